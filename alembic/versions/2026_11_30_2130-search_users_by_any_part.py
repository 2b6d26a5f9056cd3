"""Search users by any part of their e-mail, name or company.

Revision ID: 4c1f7e92ab60
Revises: c1a7e95b3d60
Create Date: 2026-11-30 21:30:00+00:00
"""

import sqlalchemy as sa
from alembic import op

from src.common.models.user_search import (
    CREATE_FUNCTIONS,
    DROP_FUNCTIONS,
    INDEXED,
    IX_USERS_SEARCH,
)
from src.common.postgres.migrations import Loss

revision = "4c1f7e92ab60"
down_revision = "c1a7e95b3d60"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()


def upgrade() -> None:
    """Index all groups of three characters, by functions of our own."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for statement in CREATE_FUNCTIONS:
        op.execute(statement)
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '3s'")
        op.execute("SET statement_timeout = 0")  # as long as the table is large
        op.drop_index(IX_USERS_SEARCH, if_exists=True, postgresql_concurrently=True)
        op.create_index(
            IX_USERS_SEARCH,
            "users",
            [sa.text(INDEXED)],
            postgresql_using="gin",
            postgresql_concurrently=True,
            if_not_exists=True,
        )


def downgrade() -> None:
    """Undo: find them by reading all."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_index(IX_USERS_SEARCH, if_exists=True)
    for statement in DROP_FUNCTIONS:
        op.execute(statement)
