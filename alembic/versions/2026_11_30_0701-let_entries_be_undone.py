"""Let entries be undone, in the very lots they moved.

Revision ID: f19b5d2e6c40
Revises: e0a4c81d7b35
Create Date: 2026-11-30 07:01:00+00:00
"""

from alembic import context, op

from src.common.models.ledger_triggers import CREATE_TRIGGERS
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


def upgrade() -> None:
    """Let there be reversals; the next migration validates the constraint."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    _replace_check(_SIGNS.format(reversal=",reversal"))
    [entries_balanced] = (
        each for each in CREATE_TRIGGERS if " @here.credit_entries_balanced()" in each
    )
    op.execute(entries_balanced)


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
