"""What the two pgbench contestants execute; printed with every run."""

import uuid
from textwrap import wrap

from benchmarks.entry_hash import entry_hash, line, lot
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


def _hash(kind: str, amount: str, digest: str, lines: str, made: str = "''::bytea") -> str:
    """The ledger's own hash of the entry: `verify` looks at it too."""
    columns = {
        "user_id": ":id",
        "seq": ":seq",
        "kind": f"'{kind}'",
        "amount": amount,
        "balance_after": ":balance",
        "result_balance": ":balance",
        "idempotency_key": ":key",
        "request_digest": digest,
        "actor": "'system:' || 'benchmark'",
        "effective_at": ":now",
        "created_at": ":now",
    }
    previous = "(SELECT entry_hash FROM credit_entries WHERE user_id = :id AND seq = :seq - 1)"
    return entry_hash(columns, previous, lines, made)


_GRANT_HASH = _hash(
    *("grant", str(LOT), f"decode('{_GRANT_DIGEST}', 'hex')", line(":seq", str(LOT), str(LOT))),
    made=lot("'promo'", "10", str(LOT), "NULL", "NULL"),
)
_LINE1, _LINE2 = line(":lot1", ":amount1", ":left1"), line(":lot2", ":amount2", ":left2")
_SPEND_HASH = _hash("spend", ":amount", _SPEND_DIGEST, _LINE1)
_FIRST, _SECOND = (
    f"CASE WHEN (:lot1)::int < (:lot2)::int THEN {one} ELSE {other} END"
    for one, other in ((_LINE1, _LINE2), (_LINE2, _LINE1))
)
_SPEND_OF_TWO_HASH = _hash("spend", ":amount", _SPEND_DIGEST, f"({_FIRST} || {_SECOND})")

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
    result_balance, idempotency_key, request_digest, actor, effective_at, created_at, entry_hash)
  VALUES (:id, :seq, 'grant', {LOT}, :balance, :balance,
    :key, decode('{_GRANT_DIGEST}', 'hex'), 'system:' || 'benchmark', :now, :now,
    {_GRANT_HASH})),
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
    result_balance, idempotency_key, request_digest, actor, effective_at, created_at, entry_hash)
  VALUES (:id, :seq, 'spend', :amount, :balance, :balance,
    :key, {_SPEND_DIGEST},
    'system:' || 'benchmark', :now, :now,
    {_SPEND_HASH})),
lots AS (UPDATE credit_lots SET remaining = :left1, last_seq = :seq, is_open = :open1
  WHERE user_id = :id AND seq = :lot1),
postings AS (INSERT INTO credit_postings (user_id, seq, lot_seq, amount, remaining_after)
  VALUES (:id, :seq, :lot1, :amount1, :left1))
UPDATE users SET credits_balance = :balance, credits_version = :seq WHERE user_id = :id;
\else
\set left2 :left2 + :amount2
\set open2 :left2 > 0
WITH entries AS (INSERT INTO credit_entries (user_id, seq, kind, amount, balance_after,
    result_balance, idempotency_key, request_digest, actor, effective_at, created_at, entry_hash)
  VALUES (:id, :seq, 'spend', :amount, :balance, :balance,
    :key, {_SPEND_DIGEST},
    'system:' || 'benchmark', :now, :now,
    {_SPEND_OF_TWO_HASH})),
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
