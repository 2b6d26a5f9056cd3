"""What the two pgbench contestants execute; printed with every run."""

import uuid
from textwrap import wrap

from benchmarks.seed import SQL_USER_ID
from benchmarks.workload import AMOUNT_MAX, LOT, RESERVE
from src.common.credits.domain.commands import Grant, Spend
from src.common.credits.domain.digest import digested_bytes
from src.common.models.user import User

_USER_COLUMNS = "\n    ".join(
    wrap(", ".join(column.name for column in User.__table__.columns), width=90)
)
_NOBODY = uuid.UUID(int=0)
_ACTOR = "system:benchmark"
_GRANT_DIGEST = Grant(user_id=_NOBODY, key="any", actor=_ACTOR, amount=LOT).digest.hex()
_SPEND_BEGINNING = digested_bytes(_ACTOR, Spend.digested_as, Spend.kind, None).hex()
_SPEND_DIGEST = (
    f"sha256(decode('{_SPEND_BEGINNING}', 'hex') || int4send(length('i' || :wanted))"
    " || convert_to('i' || :wanted, 'UTF8'))"
)
"""The ledger's own digests of these requests: `verify` looks at them."""
_USER = SQL_USER_ID.format(number=":number")

DOCUMENT_SQL = rf"""
\set number random(:first_number, :first_number + :numbers_drawn - 1)
\set credits random(1, {AMOUNT_MAX})
BEGIN;
SELECT {_USER_COLUMNS}
  FROM users WHERE user_id = {_USER} FOR UPDATE \gset user_
\set balance :user_credits_balance + :credits
INSERT INTO transactions (transaction_id, user_id, stripe_session_id, amount_paid_cents, credits_added)
  VALUES (gen_random_uuid(), :user_user_id, 'cs_' || gen_random_uuid(), 5, :credits);
UPDATE users SET credits_balance = :balance, updated_at = now()
  WHERE user_id = :user_user_id;
COMMIT;
""".removeprefix("\n")  # noqa: S608, E501  our own column names
"""The document's five statements ("Transactions with Multiple Operations")."""

# The rows of a grant and of a spend that draws on one lot or on two, each in one statement, as the
# triggers demand and our writes do. The reads are the two that it takes: the user, locked, and the
# first two lots in burn order.
SAME_ROWS = rf"""
\set number random(:first_number, :first_number + :numbers_drawn - 1)
\set wanted random(1, {AMOUNT_MAX})
BEGIN;
SELECT user_id AS id, credits_balance AS balance, credits_version + 1 AS seq,
    clock_timestamp() AS now, gen_random_uuid() AS key
  FROM users WHERE user_id = {_USER} FOR NO KEY UPDATE \gset
\if :balance - {RESERVE} < {LOT}
\set balance :balance + {LOT}
WITH entries AS (INSERT INTO credit_entries (user_id, seq, kind, amount, balance_after,
    result_balance, idempotency_key, request_digest, actor, effective_at, created_at)
  VALUES (:id, :seq, 'grant', {LOT}, :balance, :balance,
    :key, decode('{_GRANT_DIGEST}', 'hex'), 'system:' || 'benchmark', :now, :now)),
lots AS (INSERT INTO credit_lots (user_id, seq, source, priority, granted, remaining, last_seq,
    is_open)
  VALUES (:id, :seq, 'promo', 10, {LOT}, {LOT}, :seq, true)),
postings AS (INSERT INTO credit_postings (user_id, seq, lot_seq, amount, remaining_after)
  VALUES (:id, :seq, :seq, {LOT}, {LOT}))
UPDATE users SET credits_balance = :balance, credits_version = :seq WHERE user_id = :id;
\else
SELECT seq AS lot1, remaining AS left1, lead(seq) OVER burn AS lot2,
    lead(remaining) OVER burn AS left2
  FROM (SELECT seq, remaining, priority, expires_at FROM credit_lots
        WHERE user_id = :id AND is_open
        ORDER BY priority, expires_at NULLS LAST, seq LIMIT 2) AS lots
  WINDOW burn AS (ORDER BY priority, expires_at NULLS LAST, seq) LIMIT 1 \gset
\set balance :balance - :wanted
\set amount 0 - :wanted
\set amount1 0 - least(:wanted, :left1)
\set amount2 :amount - :amount1
\set left1 :left1 + :amount1
\set open1 :left1 > 0
\if :amount2 = 0
WITH entries AS (INSERT INTO credit_entries (user_id, seq, kind, amount, balance_after,
    result_balance, idempotency_key, request_digest, actor, effective_at, created_at)
  VALUES (:id, :seq, 'spend', :amount, :balance, :balance,
    :key, {_SPEND_DIGEST},
    'system:' || 'benchmark', :now, :now)),
lots AS (UPDATE credit_lots SET remaining = :left1, last_seq = :seq, is_open = :open1
  WHERE user_id = :id AND seq = :lot1),
postings AS (INSERT INTO credit_postings (user_id, seq, lot_seq, amount, remaining_after)
  VALUES (:id, :seq, :lot1, :amount1, :left1))
UPDATE users SET credits_balance = :balance, credits_version = :seq WHERE user_id = :id;
\else
\set left2 :left2 + :amount2
\set open2 :left2 > 0
WITH entries AS (INSERT INTO credit_entries (user_id, seq, kind, amount, balance_after,
    result_balance, idempotency_key, request_digest, actor, effective_at, created_at)
  VALUES (:id, :seq, 'spend', :amount, :balance, :balance,
    :key, {_SPEND_DIGEST},
    'system:' || 'benchmark', :now, :now)),
lot1 AS (UPDATE credit_lots SET remaining = :left1, last_seq = :seq, is_open = :open1
  WHERE user_id = :id AND seq = :lot1),
lot2 AS (UPDATE credit_lots SET remaining = :left2, last_seq = :seq, is_open = :open2
  WHERE user_id = :id AND seq = :lot2),
postings AS (INSERT INTO credit_postings (user_id, seq, lot_seq, amount, remaining_after)
  VALUES (:id, :seq, :lot1, :amount1, :left1), (:id, :seq, :lot2, :amount2, :left2))
UPDATE users SET credits_balance = :balance, credits_version = :seq WHERE user_id = :id;
\endif
\endif
COMMIT;
""".removeprefix("\n")  # noqa: S608  our own numbers
"""One database transaction an operation, leaving the rows our grant and spend leave."""
