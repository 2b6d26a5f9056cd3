"""Note users who could not be booked, and work that failed.

Revision ID: 4e8b1d6c9f27
Revises: a47d0f3e8c52
Create Date: 2026-11-29 01:02:00+00:00
"""

# pyright: reportUnknownArgumentType=false
import sqlalchemy as sa
from alembic import op

from src.common.postgres.migrations import Loss

revision = "4e8b1d6c9f27"
down_revision = "a47d0f3e8c52"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()


def upgrade() -> None:
    """Create `credit_booking_failures` and `worker_failures`, both empty."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.create_table(
        "credit_booking_failures",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("credits_version", sa.Integer(), nullable=False),
        sa.Column("error_type", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        _instant("first_failed_at"),
        _instant("last_failed_at"),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "attempts > 0", name=op.f("ck_credit_booking_failures_attempts_positive")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.user_id"], name=op.f("fk_credit_booking_failures_user_id_users")
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_credit_booking_failures")),
    )
    op.create_index(
        "ix_credit_booking_failures_next_attempt_at", "credit_booking_failures", ["next_attempt_at"]
    )
    op.create_table(
        "worker_failures",
        sa.Column("work", sa.String(), nullable=False),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("error_type", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        _instant("first_failed_at"),
        _instant("last_failed_at"),
        sa.CheckConstraint("failures > 0", name=op.f("ck_worker_failures_failures_positive")),
        sa.PrimaryKeyConstraint("work", name=op.f("pk_worker_failures")),
    )


def downgrade() -> None:
    """Undo. What still fails is noted again after the next upgrade."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_table("worker_failures")
    op.drop_table("credit_booking_failures")


def _instant(name: str) -> sa.Column[object]:
    return sa.Column(
        name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
    )
