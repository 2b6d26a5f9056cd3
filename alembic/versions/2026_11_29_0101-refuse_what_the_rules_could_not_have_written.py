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


def upgrade() -> None:
    """Refuse what the rules could not have written."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    created = tuple(
        ENTRIES_BALANCED if " @here.credit_entries_balanced()" in statement else statement
        for statement in CREATE_TRIGGERS
    )
    _replace(_triggers_before().drop_triggers(), created)


def downgrade() -> None:
    """Undo: refuse what the rules could not have written. What is refused already stays refused."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    _replace(DROP_TRIGGERS, _triggers_before().create_triggers())


def _replace(lower: tuple[str, ...], raise_: tuple[str, ...]) -> None:
    for statement in (*lower, *raise_):
        op.execute(statement)


def _triggers_before() -> ModuleType:
    """The triggers as the migration that last made them has them."""
    return context.script.get_revision("6b0e3d9f5a17").module
