"""Index the refunds that Stripe has not answered.

Revision ID: 91d4c6e07b2f
Revises: 3f7a92c41e58
Create Date: 2026-11-30 20:11:00+00:00
"""

import sqlalchemy as sa
from alembic import op

from src.common.postgres.migrations import Loss

revision = "91d4c6e07b2f"
down_revision = "3f7a92c41e58"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()


def upgrade() -> None:
    """Find them, the oldest first."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '3s'")
        op.execute("SET statement_timeout = 0")  # as long as the table is large
        op.drop_index("ix_refund_requests_open", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            "ix_refund_requests_open",
            "refund_requests",
            ["created_at", "idempotency_key"],
            postgresql_where=sa.text("status = 'requested'"),
            postgresql_concurrently=True,
            if_not_exists=True,
        )


def downgrade() -> None:
    """Undo."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_index("ix_refund_requests_open", if_exists=True)
