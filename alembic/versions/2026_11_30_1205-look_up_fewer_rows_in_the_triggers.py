"""Look up fewer rows in the triggers (decision 0042).

Revision ID: 5e8c1b7f2d94
Revises: 8a6f13d94c27
Create Date: 2026-11-30 12:05:00+00:00
"""

from alembic import context, op

from src.common.models.ledger_triggers import CREATE_TRIGGERS
from src.common.postgres.migrations import Loss

revision = "5e8c1b7f2d94"
down_revision = "8a6f13d94c27"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()

_CHANGED = ("credit_postings_balanced", "credit_lots_balanced")


def upgrade() -> None:
    """Replace two functions."""
    _begin()
    for statement in CREATE_TRIGGERS:
        if any(f" @here.{name}()" in statement for name in _CHANGED):
            op.execute(statement)


def downgrade() -> None:
    """Undo: the functions refuse the same as before."""
    _begin()
    before = context.script.get_revision("a47d0f3e8c52").module
    op.execute(before.POSTINGS_BALANCED)
    op.execute(before.LOTS_BALANCED)


def _begin() -> None:
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
