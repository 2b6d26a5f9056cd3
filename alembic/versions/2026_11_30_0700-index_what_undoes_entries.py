"""Index the entries that undo others, so that what is left to undo is found.

Revision ID: e0a4c81d7b35
Revises: c7d31f0a52e8
Create Date: 2026-11-30 07:00:00+00:00
"""

import sqlalchemy as sa
from alembic import op

from src.common.postgres.migrations import Loss

revision = "e0a4c81d7b35"
down_revision = "c7d31f0a52e8"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()
_NAME = "ix_credit_entries_reversals"


def upgrade() -> None:
    """Index the entries that undo others: none yet."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '3s'")
        op.execute("SET statement_timeout = 0")  # as long as the table is large
        op.drop_index(_NAME, if_exists=True, postgresql_concurrently=True)
        op.create_index(
            _NAME,
            "credit_entries",
            ["user_id", "related_seq", "seq"],
            postgresql_where=sa.text("kind = 'reversal'"),
            postgresql_concurrently=True,
            if_not_exists=True,
        )


def downgrade() -> None:
    """Undo: index the entries that undo others."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_index(_NAME, if_exists=True)
