"""Create the Stripe inbox: events and unmatched payments.

Revision ID: 5a0e9c1f7d24
Revises: c6134a1d3b72
Create Date: 2026-11-22 16:10:00+00:00
"""

# pyright: reportUnknownArgumentType=false
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from src.common.postgres.migrations import Loss

revision = "5a0e9c1f7d24"
down_revision = "c6134a1d3b72"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = (Loss("stripe_events"), Loss("unmatched_payments"))


def upgrade() -> None:
    """Create the Stripe inbox: events and unmatched payments."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.create_table(
        "stripe_events",
        sa.Column("livemode", sa.Boolean(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("api_version", sa.String(), nullable=True),
        sa.Column("object_id", sa.String(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("status", sa.String(), server_default=sa.text("'received'"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("stripe_created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "received_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("processed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("event_id <> ''", name=op.f("ck_stripe_events_event_id_not_empty")),
        sa.CheckConstraint(
            "status IN ('received', 'processed', 'ignored', 'unmatched', 'failed', 'dead')",
            name=op.f("ck_stripe_events_status"),
        ),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_stripe_events_attempts_not_negative")),
        sa.PrimaryKeyConstraint("livemode", "event_id", name=op.f("pk_stripe_events")),
    )
    op.create_index(
        "ix_stripe_events_due",
        "stripe_events",
        ["next_attempt_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('received', 'failed')"),
    )
    op.create_index(
        op.f("ix_stripe_events_object_id"), "stripe_events", ["object_id"], unique=False
    )
    op.create_table(
        "unmatched_payments",
        sa.Column("livemode", sa.Boolean(), nullable=False),
        sa.Column("stripe_object_id", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("explanation", sa.String(), nullable=False),
        sa.Column(
            "details",
            postgresql.JSONB(),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("status", sa.String(), server_default=sa.text("'open'"), nullable=False),
        sa.Column("resolution", sa.String(), nullable=True),
        sa.Column("actor", sa.String(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status = 'resolved') = (resolved_at IS NOT NULL)"
            " AND (status = 'resolved') = (resolution IS NOT NULL)"
            " AND (status = 'resolved') = (actor IS NOT NULL)",
            name=op.f("ck_unmatched_payments_resolved_says_how"),
        ),
        sa.CheckConstraint(
            "status IN ('open', 'resolved')", name=op.f("ck_unmatched_payments_status")
        ),
        sa.PrimaryKeyConstraint("livemode", "stripe_object_id", name=op.f("pk_unmatched_payments")),
    )
    op.create_index(
        "ix_unmatched_payments_open",
        "unmatched_payments",
        ["created_at"],
        unique=False,
        postgresql_where=sa.text("status = 'open'"),
    )


def downgrade() -> None:
    """Undo: create the Stripe inbox: events and unmatched payments."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_table("unmatched_payments")
    op.drop_table("stripe_events")
