"""Index what is owed, so that it is added up without reading every debt.

Revision ID: 8a6f13d94c27
Revises: 5d20c8b7e3f1
Create Date: 2026-11-30 12:01:00+00:00
"""

import sqlalchemy as sa
from alembic import op

from src.common.postgres.migrations import Loss

revision = "8a6f13d94c27"
down_revision = "5d20c8b7e3f1"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()
_NAME = "ix_credit_debts_outstanding"


def upgrade() -> None:
    """Index debts of which something is outstanding."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '3s'")
        op.execute("SET statement_timeout = 0")  # as long as the table is large
        op.drop_index(_NAME, if_exists=True, postgresql_concurrently=True)
        op.create_index(
            _NAME,
            "credit_debts",
            ["outstanding"],
            postgresql_where=sa.text("outstanding >= 1"),
            postgresql_concurrently=True,
            if_not_exists=True,
        )


def downgrade() -> None:
    """Undo: index what is owed."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_index(_NAME, if_exists=True)
