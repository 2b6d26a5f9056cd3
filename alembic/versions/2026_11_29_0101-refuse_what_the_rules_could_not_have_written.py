"""Refuse what the rules could not have written, whatever a session did before (decision 0020).

Revision ID: a47d0f3e8c52
Revises: 9e2a61c04b7d
Create Date: 2026-11-29 01:01:00+00:00
"""

from types import ModuleType

from alembic import context, op

from src.common.models.ledger_triggers import CREATE_TRIGGERS, DROP_TRIGGERS
from src.common.postgres.migrations import Loss

revision = "a47d0f3e8c52"
down_revision = "9e2a61c04b7d"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()

ENTRIES_BALANCED = """
DO $make$ BEGIN
  EXECUTE pg_catalog.replace($ddl$
CREATE OR REPLACE FUNCTION @here.credit_entries_balanced() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
  wrong record;
BEGIN
  SELECT a.user_id, a.seq INTO wrong
  FROM (SELECT e.*, lag(e.seq) OVER book AS before, lead(e.seq) OVER book AS next,
      lag(e.balance_after) OVER book AS balance_before,
      lag(e.effective_at) OVER book AS effective_before,
      e.created_at > statement_timestamp() + interval '5 minutes' AS is_ahead
    FROM added e WINDOW book AS (PARTITION BY e.user_id ORDER BY e.seq)) a
  WHERE NOT CASE
      WHEN a.before IS NOT NULL THEN a.before = a.seq - 1
        AND a.balance_after = a.balance_before + a.amount
        AND a.effective_at >= a.effective_before
        AND (NOT a.is_ahead OR a.created_at = a.effective_before)
      WHEN a.seq = 1 THEN a.balance_after = a.amount AND NOT a.is_ahead
        AND a.effective_at >= '2000-01-01T00:00:00Z'
      ELSE coalesce((SELECT a.balance_after = e.balance_after + a.amount
          AND a.effective_at >= e.effective_at
          AND (NOT a.is_ahead OR a.created_at = e.effective_at)
        FROM @here.credit_entries e WHERE e.user_id = a.user_id AND e.seq = a.seq - 1), false)
    END
    OR a.effective_at > a.created_at
    OR (a.next IS NULL AND NOT coalesce(a.seq <= (SELECT u.credits_version FROM @here.users u
      WHERE u.user_id = a.user_id), false))
    OR (a.amount <> 0 AND NOT EXISTS (SELECT FROM @here.credit_postings p
      WHERE p.user_id = a.user_id AND p.seq = a.seq OFFSET 0))
    OR NOT (a.related_seq IS NULL AND a.captured IS NULL AND a.hold_expires_at IS NULL
      AND a.kind = ANY ('{opening,grant,spend,adjustment,lot_expiry}'::text[]))
  LIMIT 1;
  IF found THEN
    SELECT a.user_id, a.seq INTO wrong
  FROM (SELECT e.*, lag(e.seq) OVER book AS before, lead(e.seq) OVER book AS next,
      lag(e.balance_after) OVER book AS balance_before,
      lag(e.effective_at) OVER book AS effective_before,
      e.created_at > statement_timestamp() + interval '5 minutes' AS is_ahead
    FROM added e WINDOW book AS (PARTITION BY e.user_id ORDER BY e.seq)) a
  WHERE NOT CASE
      WHEN a.before IS NOT NULL THEN a.before = a.seq - 1
        AND a.balance_after = a.balance_before + a.amount
        AND a.effective_at >= a.effective_before
        AND (NOT a.is_ahead OR a.created_at = a.effective_before)
      WHEN a.seq = 1 THEN a.balance_after = a.amount AND NOT a.is_ahead
        AND a.effective_at >= '2000-01-01T00:00:00Z'
      ELSE coalesce((SELECT a.balance_after = e.balance_after + a.amount
          AND a.effective_at >= e.effective_at
          AND (NOT a.is_ahead OR a.created_at = e.effective_at)
        FROM @here.credit_entries e WHERE e.user_id = a.user_id AND e.seq = a.seq - 1), false)
    END
    OR a.effective_at > a.created_at
    OR (a.next IS NULL AND NOT coalesce(a.seq <= (SELECT u.credits_version FROM @here.users u
      WHERE u.user_id = a.user_id), false))
    OR (a.amount <> 0 AND NOT EXISTS (SELECT FROM @here.credit_postings p
      WHERE p.user_id = a.user_id AND p.seq = a.seq OFFSET 0))
    OR NOT CASE
      WHEN a.related_seq IS NULL AND a.kind <> 'hold' THEN a.captured IS NULL
        AND a.hold_expires_at IS NULL
        AND a.kind <> ALL ('{capture,release,hold_expiry,renewal,debt_repayment}'::text[])
      WHEN a.kind = ANY ('{clawback,reinstatement}'::text[]) THEN a.captured IS NULL
        AND a.hold_expires_at IS NULL AND a.related_seq < a.seq
      WHEN a.kind = 'debt_repayment' THEN a.captured IS NULL AND a.hold_expires_at IS NULL
        AND coalesce((SELECT d.xmin = e.xmin AND d.cmin = e.cmin
          FROM @here.credit_debts d JOIN @here.credit_entries e ON e.user_id = d.user_id
          WHERE d.user_id = a.user_id AND d.seq = a.related_seq AND e.seq = a.seq), false)
      WHEN a.kind = ANY ('{hold,capture,release,hold_expiry,renewal,spend}'::text[])
        THEN a.captured IS NOT DISTINCT FROM CASE a.kind WHEN 'hold' THEN NULL
          WHEN 'capture' THEN greatest(a.captured, 1) WHEN 'spend' THEN -a.amount ELSE 0 END
        AND CASE WHEN a.kind = ANY ('{hold,renewal}'::text[])
          THEN coalesce(a.hold_expires_at > a.created_at
            AND a.hold_expires_at <= a.created_at + interval '720 hours', false)
          ELSE a.hold_expires_at IS NULL END
        AND (a.kind = 'hold') = (a.related_seq IS NULL)
        AND coalesce((SELECT h.xmin = e.xmin AND h.cmin = e.cmin
          FROM @here.credit_holds h JOIN @here.credit_entries e ON e.user_id = h.user_id
          WHERE h.user_id = a.user_id AND h.seq = coalesce(a.related_seq, a.seq)
            AND e.seq = a.seq), false)
      ELSE false
    END
  LIMIT 1;
  END IF;
  IF found THEN
    PERFORM @here.credit_ledger_unbalanced(format(
      'entry %s of user %s does not follow from the one before it, or is of another time, or has '
      'no postings, or comes without its hold or debt, or the user is missing or stays behind it',
      wrong.seq, wrong.user_id));
  END IF;
  RETURN NULL;
END $$
$ddl$, '@here', pg_catalog.quote_ident(pg_catalog.current_schema()));
END $make$"""
"""The function as it was before entries could be undone."""

POSTINGS_BALANCED = """
DO $make$ BEGIN
  EXECUTE pg_catalog.replace($ddl$
CREATE OR REPLACE FUNCTION @here.credit_postings_balanced() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
  wrong record;
BEGIN
  SELECT s.user_id, s.seq, s.lot_seq INTO wrong
  FROM (SELECT a.*, lag(a.remaining_after) OVER lot AS before, lead(a.seq) OVER lot AS next,
      row_number() OVER entry AS line, count(*) OVER entry AS lines,
      sum(a.amount) OVER entry AS total, min(a.amount) OVER entry AS least,
      max(a.amount) OVER entry AS most, max(a.lot_seq) OVER entry AS newest_lot
    FROM added a WINDOW lot AS (PARTITION BY a.user_id, a.lot_seq ORDER BY a.seq),
      entry AS (PARTITION BY a.user_id, a.seq)) s
  WHERE s.before + s.amount <> s.remaining_after
    OR (s.line = 1 AND NOT coalesce((SELECT e.amount = s.total AND (s.least > 0 OR s.most < 0)
        AND CASE WHEN s.least > 0 AND e.kind = ANY ('{grant,opening,adjustment}'::text[])
          THEN s.newest_lot = s.seq AND s.lines = 1 ELSE s.newest_lot < s.seq END
        AND s.lines = (SELECT count(*) FROM @here.credit_postings p
          WHERE p.user_id = s.user_id AND p.seq = s.seq)
        AND (e.kind <> 'lot_expiry' OR (SELECT s.lines = 1 AND l.expires_at <= e.effective_at
          AND s.remaining_after = 0 FROM @here.credit_lots l
          WHERE l.user_id = s.user_id AND l.seq = s.lot_seq))
      FROM @here.credit_entries e WHERE e.user_id = s.user_id AND e.seq = s.seq), false))
    OR (s.next IS NULL AND NOT coalesce((SELECT (l.last_seq, l.remaining)
        = (s.seq, s.remaining_after) FROM @here.credit_lots l
      WHERE l.user_id = s.user_id AND l.seq = s.lot_seq), false))
  LIMIT 1;
  IF found THEN
    PERFORM @here.credit_ledger_unbalanced(format('posting (%s, %s) of user %s agrees neither with '
      'its lot nor its entry', wrong.seq, wrong.lot_seq, wrong.user_id));
  END IF;
  RETURN NULL;
END $$
$ddl$, '@here', pg_catalog.quote_ident(pg_catalog.current_schema()));
END $make$"""
"""The function as it was before a lot's row told which entry is of the same statement."""

LOTS_BALANCED = """
DO $make$ BEGIN
  EXECUTE pg_catalog.replace($ddl$
CREATE OR REPLACE FUNCTION @here.credit_lots_balanced() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
  wrong record;
BEGIN
  SELECT a.user_id, a.seq, a.remaining, a.seq_before, a.last_seq INTO wrong
  FROM (SELECT r.*, lag(r.remaining) OVER lot AS remaining_before,
      lag(r.last_seq) OVER lot AS seq_before
    FROM (SELECT b.user_id, b.seq, b.remaining, b.last_seq, false AS is_new FROM before b
      UNION ALL SELECT a.user_id, a.seq, a.remaining, a.last_seq, true FROM after a) r
    WINDOW lot AS (PARTITION BY r.user_id, r.seq ORDER BY r.is_new)) a
  WHERE a.is_new AND a.last_seq IS DISTINCT FROM a.seq_before
    AND NOT coalesce((SELECT a.seq_before = a.last_seq - 1 AND p.remaining_after = a.remaining
        AND a.remaining - a.remaining_before = p.amount
      FROM @here.credit_postings p
      WHERE p.user_id = a.user_id AND p.seq = a.last_seq AND p.lot_seq = a.seq), false)
  LIMIT 1;
  IF found THEN
    SELECT a.user_id, a.seq, a.remaining, a.seq_before, a.last_seq INTO wrong
  FROM (SELECT r.*, lag(r.remaining) OVER lot AS remaining_before,
      lag(r.last_seq) OVER lot AS seq_before
    FROM (SELECT b.user_id, b.seq, b.remaining, b.last_seq, false AS is_new FROM before b
      UNION ALL SELECT a.user_id, a.seq, a.remaining, a.last_seq, true FROM after a) r
    WINDOW lot AS (PARTITION BY r.user_id, r.seq ORDER BY r.is_new)) a
  WHERE a.is_new AND a.last_seq IS DISTINCT FROM a.seq_before
    AND NOT coalesce((SELECT p.remaining_after = a.remaining
        AND a.remaining - a.remaining_before = CASE
          WHEN NOT EXISTS (SELECT FROM @here.credit_entries e
            WHERE e.user_id = a.user_id AND e.seq = a.last_seq - 1 AND e.seq > a.seq_before
              AND e.xmin = p.xmin AND e.cmin = p.cmin OFFSET 0)
          THEN p.amount
          ELSE (SELECT sum(q.amount) FROM @here.credit_postings q
            WHERE q.user_id = a.user_id AND q.lot_seq = a.seq AND q.seq <= a.last_seq
              AND q.seq > greatest(a.seq_before, CASE WHEN EXISTS (
                  SELECT FROM @here.credit_entries e WHERE e.user_id = a.user_id
                    AND e.seq = a.last_seq - 1000 AND e.xmin = p.xmin AND e.cmin = p.cmin OFFSET 0)
                THEN 0 ELSE a.last_seq - 1000 END)) END
      FROM @here.credit_postings p
      WHERE p.user_id = a.user_id AND p.seq = a.last_seq AND p.lot_seq = a.seq), false)
  LIMIT 1;
  END IF;
  IF found THEN
    PERFORM @here.credit_ledger_unbalanced(format(
      'lot %s of user %s holds %s, which what it held and its postings after %s to %s do not say',
      wrong.seq, wrong.user_id, wrong.remaining, wrong.seq_before, wrong.last_seq));
  END IF;
  RETURN NULL;
END $$
$ddl$, '@here', pg_catalog.quote_ident(pg_catalog.current_schema()));
END $make$"""
"""The function as it was while it looked for an entry between even where there is no room."""

_AS_IT_WAS = {
    "credit_entries_balanced": ENTRIES_BALANCED,
    "credit_postings_balanced": POSTINGS_BALANCED,
    "credit_lots_balanced": LOTS_BALANCED,
}


def upgrade() -> None:
    """Refuse what the rules could not have written."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    _replace(_triggers_before().drop_triggers(), tuple(map(_as_it_was, CREATE_TRIGGERS)))


def downgrade() -> None:
    """Undo: refuse what the rules could not have written. What is refused already stays refused."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    _replace(DROP_TRIGGERS, _triggers_before().create_triggers())


def _as_it_was(statement: str) -> str:
    """The statement, or where it makes a function that has changed since, the one that did then."""
    return next(
        (then for name, then in _AS_IT_WAS.items() if f" @here.{name}()" in statement), statement
    )


def _replace(lower: tuple[str, ...], raise_: tuple[str, ...]) -> None:
    for statement in (*lower, *raise_):
        op.execute(statement)


def _triggers_before() -> ModuleType:
    """The triggers as the migration that last made them has them."""
    return context.script.get_revision("6b0e3d9f5a17").module
