"""Let entries be undone, in the very lots they moved.

Revision ID: f19b5d2e6c40
Revises: e0a4c81d7b35
Create Date: 2026-11-30 07:01:00+00:00
"""

from alembic import context, op

from src.common.postgres.migrations import Loss, found

revision = "f19b5d2e6c40"
down_revision = "e0a4c81d7b35"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = (
    Loss("credit_entries", "kind = 'reversal'", what="the meaning of reversals"),
)

_CHECK = "ck_credit_entries_sign_goes_with_kind"
_SIGNS = (
    "kind = ANY (CASE WHEN amount > 0 THEN"
    " '{{opening,grant,adjustment,capture,release,hold_expiry,reinstatement{reversal}}}'::text[]"
    " WHEN amount < 0 THEN"
    " '{{spend,adjustment,hold,lot_expiry,clawback,debt_repayment{reversal}}}'::text[]"
    " ELSE '{{opening,capture,renewal,clawback,reinstatement}}'::text[] END)"
)

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
        AND a.kind <> ALL (
          '{capture,release,hold_expiry,renewal,debt_repayment,reversal}'::text[])
      WHEN a.kind = ANY ('{clawback,reinstatement,reversal}'::text[]) THEN a.captured IS NULL
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
    IF NOT found AND EXISTS (SELECT FROM added a WHERE a.kind = 'reversal') THEN
      SELECT a.user_id, a.seq INTO wrong FROM added a
    WHERE a.kind = 'reversal' AND NOT coalesce((SELECT CASE
        WHEN a.amount > 0 THEN o.amount < 0
          AND o.kind = ANY ('{spend,hold,adjustment}'::text[])
          AND (o.kind <> 'hold' OR (SELECT sum(r.amount) FROM @here.credit_entries r
              WHERE r.user_id = o.user_id AND r.related_seq = o.seq AND r.kind = 'reversal')
            <= (SELECT coalesce(sum(c.captured), 0) FROM @here.credit_entries c
              WHERE c.user_id = o.user_id AND c.related_seq = o.seq AND c.kind = 'capture'))
          AND NOT EXISTS (SELECT FROM @here.credit_postings p
            WHERE p.user_id = a.user_id AND p.seq = a.seq AND coalesce((
              SELECT -t.amount FROM @here.credit_postings t
              WHERE t.user_id = o.user_id AND t.seq = o.seq AND t.lot_seq = p.lot_seq), 0)
              < (SELECT sum((SELECT q.amount FROM @here.credit_postings q
                  WHERE q.user_id = r.user_id AND q.seq = r.seq AND q.lot_seq = p.lot_seq))
                FROM @here.credit_entries r
                WHERE r.user_id = o.user_id AND r.related_seq = o.seq AND r.kind = 'reversal')
            OFFSET 0)
        ELSE o.amount > 0 AND o.kind = ANY ('{grant,adjustment}'::text[])
          AND EXISTS (SELECT FROM @here.credit_lots l WHERE l.user_id = o.user_id
            AND l.seq = o.seq AND l.source <> 'purchase' OFFSET 0)
          AND NOT EXISTS (SELECT FROM @here.credit_postings p
            WHERE p.user_id = a.user_id AND p.seq = a.seq AND p.lot_seq <> o.seq OFFSET 0)
      END FROM @here.credit_entries o WHERE o.user_id = a.user_id AND o.seq = a.related_seq), false)
    LIMIT 1;
    END IF;
  END IF;
  IF found THEN
    PERFORM @here.credit_ledger_unbalanced(format(
      'entry %s of user %s does not follow from the one before it, or is of another time, or has '
      'no postings, or comes without its hold or debt, or undoes what is not there to be undone, '
      'or the user is missing or stays behind it',
      wrong.seq, wrong.user_id));
  END IF;
  RETURN NULL;
END $$
$ddl$, '@here', pg_catalog.quote_ident(pg_catalog.current_schema()));
END $make$"""
"""The function as it was while it looked up the postings of every entry."""


def upgrade() -> None:
    """Let there be reversals; the next migration validates the constraint."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    _replace_check(_SIGNS.format(reversal=",reversal"))
    op.execute(ENTRIES_BALANCED)


def downgrade() -> None:
    """Undo: there are no reversals. Those that are there stay, and nobody knows what they are."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = 0")  # as long as the table is large
    before = context.script.get_revision("a47d0f3e8c52").module
    op.execute(before.ENTRIES_BALANCED)
    _replace_check(_SIGNS.format(reversal=""))
    if not found("SELECT FROM credit_entries WHERE kind = 'reversal'"):
        op.execute(f"ALTER TABLE credit_entries VALIDATE CONSTRAINT {_CHECK}")


def _replace_check(condition: str) -> None:
    op.drop_constraint(op.f(_CHECK), "credit_entries", type_="check")
    op.create_check_constraint(op.f(_CHECK), "credit_entries", condition, postgresql_not_valid=True)
