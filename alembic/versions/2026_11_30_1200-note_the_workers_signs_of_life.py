"""Note the workers' signs of life.

Revision ID: 5d20c8b7e3f1
Revises: 0c72a8e41f96
Create Date: 2026-11-30 12:00:00+00:00
"""

# pyright: reportUnknownArgumentType=false
import sqlalchemy as sa
from alembic import op

from src.common.postgres.migrations import Loss

revision = "5d20c8b7e3f1"
down_revision = "0c72a8e41f96"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()


def upgrade() -> None:
    """Create `worker_heartbeats`, empty."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.create_table(
        "worker_heartbeats",
        sa.Column("worker_id", sa.Uuid(), nullable=False),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("beat_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("work", sa.String(), nullable=True),
        sa.Column("work_began_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(work IS NULL) = (work_began_at IS NULL)",
            name=op.f("ck_worker_heartbeats_work_says_since_when"),
        ),
        sa.PrimaryKeyConstraint("worker_id", name=op.f("pk_worker_heartbeats")),
    )


def downgrade() -> None:
    """Undo. Workers that live leave signs again after the next upgrade."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_table("worker_heartbeats")
