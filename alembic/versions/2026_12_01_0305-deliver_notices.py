"""Deliver notices: how endpoints are, and what waits for them (decision 0064).

Revision ID: 5a1c7e0b93d4
Revises: 3fd08a6c75b1
Create Date: 2026-12-01 03:05:00+00:00
"""

# pyright: reportUnknownArgumentType=false
import sqlalchemy as sa
from alembic import op

from src.common.postgres.migrations import Loss

revision = "5a1c7e0b93d4"
down_revision = "3fd08a6c75b1"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()
_STATES = "notice_endpoint_states"
_INDEXES = {
    "ix_credit_notices_pending_users": (["endpoint_id", "user_id", "number"], "status = 'pending'"),
    "ix_credit_notices_dead": (["endpoint_id", "number"], "status = 'dead'"),
}


def upgrade() -> None:
    """Create the table, empty, and the indexes."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.create_table(
        _STATES,
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("delivered", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("failed", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("paused_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.CheckConstraint(
            "failures >= 0 AND delivered >= 0 AND failed >= 0",
            name=op.f(f"ck_{_STATES}_counts_not_negative"),
        ),
        sa.CheckConstraint(
            "(last_failed_at IS NULL) = (last_error IS NULL)",
            name=op.f(f"ck_{_STATES}_failure_says_why"),
        ),
        sa.ForeignKeyConstraint(
            ["endpoint_id"],
            ["notice_endpoints.endpoint_id"],
            name=op.f("fk_notice_endpoint_states_endpoint_id_notice_endpoints"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("endpoint_id", name=op.f(f"pk_{_STATES}")),
    )
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '3s'")
        op.execute("SET statement_timeout = 0")  # as long as the table is large
        for name, (columns, condition) in _INDEXES.items():
            op.drop_index(name, if_exists=True, postgresql_concurrently=True)
            op.create_index(
                name,
                "credit_notices",
                columns,
                postgresql_where=sa.text(condition),
                postgresql_concurrently=True,
                if_not_exists=True,
            )


def downgrade() -> None:
    """Undo: how endpoints are is found out again."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for name in _INDEXES:
        op.drop_index(name, table_name="credit_notices", if_exists=True)
    op.drop_table(_STATES)
