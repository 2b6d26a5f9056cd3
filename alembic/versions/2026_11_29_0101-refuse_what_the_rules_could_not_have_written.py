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


def upgrade() -> None:
    """Refuse what the rules could not have written."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    _replace(_triggers_before().drop_triggers(), CREATE_TRIGGERS)


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
