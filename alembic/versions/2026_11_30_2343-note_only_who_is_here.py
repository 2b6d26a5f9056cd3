"""Have the audit trail name those only who are signed in.

Revision ID: 72f5a0d9be34
Revises: e13c8b6f92d0
Create Date: 2026-11-30 23:43:00+00:00
"""

from alembic import op

from src.common.models.console_action import CREATE_PRESENCE
from src.common.postgres.migrations import Loss

revision = "72f5a0d9be34"
down_revision = "e13c8b6f92d0"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = (
    Loss("console_actions", what="the triggers that say who is here, for the rows"),
)


def upgrade() -> None:
    """Create the trigger."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for statement in CREATE_PRESENCE:
        op.execute(statement)


def downgrade() -> None:
    """Undo."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.execute("DROP TRIGGER console_actions_by_who_is_here ON console_actions")
    op.execute("-- squawk-ignore ban-drop-function\nDROP FUNCTION console_actions_by_who_is_here()")
