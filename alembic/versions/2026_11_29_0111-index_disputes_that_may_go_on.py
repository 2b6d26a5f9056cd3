"""Index disputes whose funds came back among what may still change.

Revision ID: 91c5d2e7a3f4
Revises: 6a1f4c8e2b90
Create Date: 2026-11-29 01:11:00+00:00
"""

import sqlalchemy as sa
from alembic import op

from src.common.postgres.migrations import Loss

revision = "91c5d2e7a3f4"
down_revision = "6a1f4c8e2b90"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()
_NAME = "ix_stripe_reversals_unfinished"


def upgrade() -> None:
    """Make the index anew: a bank may have the funds withdrawn once more."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '3s'")
        op.execute("SET statement_timeout = 0")
        op.drop_index(_NAME, if_exists=True, postgresql_concurrently=True)
        op.create_index(
            _NAME,
            "stripe_reversals",
            ["created_at"],
            postgresql_where=sa.text("status IN ('pending', 'inquiry', 'withdrawn', 'reinstated')"),
            postgresql_concurrently=True,
            if_not_exists=True,
        )


def downgrade() -> None:
    """Undo: index disputes whose funds came back."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_index(_NAME, if_exists=True)
    op.create_index(
        _NAME,
        "stripe_reversals",
        ["created_at"],
        postgresql_where=sa.text("status IN ('pending', 'inquiry', 'withdrawn')"),
    )
