"""Index the inbox by time and type, and give its rows a remark.

Revision ID: 61d0c3b5a7e8
Revises: 2fc471da6c01
Create Date: 2026-11-22 19:41:00+00:00
"""

# pyright: reportUnknownArgumentType=false
import sqlalchemy as sa
from alembic import op

from src.common.postgres.migrations import Loss

revision = "61d0c3b5a7e8"
down_revision = "2fc471da6c01"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = (Loss("stripe_events", "remark IS NOT NULL", what="remark"),)

INDEXES = (
    ("ix_stripe_events_dead", ["received_at"], "status = 'dead'"),
    ("ix_stripe_events_received_at", ["received_at"], None),
    ("ix_stripe_events_type", ["type", "received_at"], None),
)


def upgrade() -> None:
    """Index the inbox by time and type, and give its rows a remark."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '3s'")
        op.execute("SET statement_timeout = 0")  # as long as the table is large
        op.add_column("stripe_events", sa.Column("remark", sa.String()), if_not_exists=True)
        for name, columns, condition in INDEXES:
            op.drop_index(name, if_exists=True, postgresql_concurrently=True)
            op.create_index(
                name,
                "stripe_events",
                columns,
                postgresql_where=sa.text(condition) if condition else None,
                postgresql_concurrently=True,
                if_not_exists=True,
            )


def downgrade() -> None:
    """Undo: index the inbox by time and type, and give its rows a remark."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for name, _, _ in INDEXES:
        op.drop_index(name, if_exists=True)
    op.drop_column("stripe_events", "remark", if_exists=True)
