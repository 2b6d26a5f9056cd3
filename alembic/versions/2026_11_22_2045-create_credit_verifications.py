"""Create the row that says how far the workers have verified everybody's books.

Revision ID: 8c4f6a2d1e93
Revises: 5d2e3f4a6b71
Create Date: 2026-11-22 20:45:00+00:00
"""

# pyright: reportUnknownArgumentType=false
import sqlalchemy as sa
from alembic import op

from src.common.postgres.migrations import Loss

revision = "8c4f6a2d1e93"
down_revision = "5d2e3f4a6b71"
branch_labels = None
depends_on = None

# How far a pass has come is no more than that: the next one begins anew.
LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()


def upgrade() -> None:
    """Create `credit_verifications`; the first worker writes its one row."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.create_table(
        "credit_verifications",
        sa.Column(
            "verification_id",
            sa.SmallInteger(),
            autoincrement=False,
            server_default=sa.text("1"),
            nullable=False,
        ),
        sa.Column(
            "cursor",
            sa.Uuid(),
            server_default=sa.text("'00000000-0000-0000-0000-000000000000'::uuid"),
            nullable=False,
        ),
        sa.Column("users", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("differing_users", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "next_slice_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("last_pass_users", sa.Integer(), nullable=True),
        sa.Column("last_pass_differing_users", sa.Integer(), nullable=True),
        sa.Column("last_pass_ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("verification_id = 1", name=op.f("ck_credit_verifications_one_row")),
        sa.CheckConstraint(
            "users >= 0 AND differing_users >= 0",
            name=op.f("ck_credit_verifications_counts_not_negative"),
        ),
        sa.CheckConstraint(
            "(last_pass_ended_at IS NULL) = (last_pass_users IS NULL)"
            " AND (last_pass_ended_at IS NULL) = (last_pass_differing_users IS NULL)",
            name=op.f("ck_credit_verifications_ended_says_what_it_found"),
        ),
        sa.PrimaryKeyConstraint("verification_id", name=op.f("pk_credit_verifications")),
    )


def downgrade() -> None:
    """Undo: create `credit_verifications`. The next upgrade begins a new pass."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_table("credit_verifications")
