"""List users and purchases by time, and those with money back, however many there are.

Revision ID: c7d31f0a52e8
Revises: b52e9d1f7a64
Create Date: 2026-11-29 22:30:00+00:00
"""

import sqlalchemy as sa
from alembic import op

from src.common.postgres.migrations import Loss

revision = "c7d31f0a52e8"
down_revision = "b52e9d1f7a64"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()
_INDEXES = (
    ("ix_users_created_at", "users", "user_id", None),
    ("ix_users_inactive", "users", "user_id", "NOT is_active"),
    ("ix_transactions_created_at", "transactions", "transaction_id", None),
    (
        "ix_transactions_money_back",
        "transactions",
        "transaction_id",
        "refunded_cents > 0 OR disputed_cents > 0",
    ),
)


def upgrade() -> None:
    """Index them, newest first."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '3s'")
        op.execute("SET statement_timeout = 0")
        for name, table, row_id, where in _INDEXES:
            op.drop_index(name, if_exists=True, postgresql_concurrently=True)
            op.create_index(
                name,
                table,
                [sa.text("created_at DESC"), sa.text(f"{row_id} DESC")],
                postgresql_where=None if where is None else sa.text(where),
                postgresql_concurrently=True,
                if_not_exists=True,
            )


def downgrade() -> None:
    """Undo: find them by reading all."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for name, *_ in _INDEXES:
        op.drop_index(name, if_exists=True)
