"""Index the entries that act on holds, so that the triggers find what a hold should say.

Revision ID: 9e2a61c04b7d
Revises: 7c1f4eaf6b28
Create Date: 2026-11-29 01:00:00+00:00
"""

import sqlalchemy as sa
from alembic import op

from src.common.postgres.migrations import Loss

revision = "9e2a61c04b7d"
down_revision = "7c1f4eaf6b28"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()

_NAME = "ix_credit_entries_holds"
_ACTING = (
    "related_seq IS NOT NULL AND kind = ANY ('{capture,release,hold_expiry,renewal,spend}'::text[])"
)


def upgrade() -> None:
    """Index the entries that act on holds."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '3s'")
        op.execute("SET statement_timeout = 0")  # as long as the table is large
        op.drop_index(_NAME, if_exists=True, postgresql_concurrently=True)
        op.create_index(
            _NAME,
            "credit_entries",
            ["user_id", "related_seq", "seq"],
            postgresql_where=sa.text(_ACTING),
            postgresql_concurrently=True,
            if_not_exists=True,
        )


def downgrade() -> None:
    """Undo: index the entries that act on holds."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_index(_NAME, if_exists=True)
