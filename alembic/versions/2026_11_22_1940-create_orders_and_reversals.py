"""Create orders, reversals, refund requests and reconciliations.

Revision ID: 2fc471da6c01
Revises: 9d8c7b6a5f40
Create Date: 2026-11-22 19:40:22.596421+00:00
"""

# pyright: reportUnknownArgumentType=false
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from src.common.postgres.migrations import Loss

revision = "2fc471da6c01"
down_revision = "9d8c7b6a5f40"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = (
    Loss("stripe_reversals"),
    Loss("refund_requests"),
    Loss("checkout_orders"),
    Loss("reconciliations"),
)


def upgrade() -> None:
    """Create orders, reversals, refund requests and reconciliations."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.create_table(
        "reconciliations",
        sa.Column(
            "reconciliation_id",
            sa.Uuid(),
            server_default=sa.text("gen_random_uuid()"),
            nullable=False,
        ),
        sa.Column("livemode", sa.Boolean(), nullable=False),
        sa.Column("since_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("repairs", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(), server_default=sa.text("'running'"), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("cursor", sa.String(), nullable=True),
        sa.Column("compared", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("drift", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "findings",
            postgresql.JSONB(),
            server_default=sa.text("'[]'::jsonb"),
            nullable=False,
        ),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status = 'finished') = (finished_at IS NOT NULL)",
            name=op.f("ck_reconciliations_finished_says_when"),
        ),
        sa.CheckConstraint(
            "status IN ('running', 'finished')", name=op.f("ck_reconciliations_status")
        ),
        sa.CheckConstraint(
            "compared >= 0 AND drift >= 0", name=op.f("ck_reconciliations_counts_not_negative")
        ),
        sa.CheckConstraint("since_at < until_at", name=op.f("ck_reconciliations_window_not_empty")),
        sa.PrimaryKeyConstraint("reconciliation_id", name=op.f("pk_reconciliations")),
    )
    op.create_index(
        "ix_reconciliations_started_at", "reconciliations", ["started_at"], unique=False
    )
    op.create_table(
        "checkout_orders",
        sa.Column(
            "order_id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False
        ),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("idempotency_key", sa.String(), nullable=False),
        sa.Column("request_digest", sa.LargeBinary(), nullable=False),
        sa.Column("package_id", sa.String(), nullable=False),
        sa.Column("credits", sa.Integer(), nullable=False),
        sa.Column("amount_cents", sa.Integer(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("livemode", sa.Boolean(), nullable=False),
        sa.Column("allows_discount", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("allows_tax", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("success_url", sa.String(), nullable=False),
        sa.Column("cancel_url", sa.String(), nullable=False),
        sa.Column("stripe_session_id", sa.String(), nullable=True),
        sa.Column("url", sa.String(), nullable=True),
        sa.Column("status", sa.String(), server_default=sa.text("'created'"), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "currency ~ '^[a-z]{3}$'", name=op.f("ck_checkout_orders_currency_is_iso_4217")
        ),
        sa.CheckConstraint(
            "status IN ('created', 'open', 'processing', 'failed', 'expired', 'paid')",
            name=op.f("ck_checkout_orders_status"),
        ),
        sa.CheckConstraint(
            "url IS NULL OR stripe_session_id IS NOT NULL",
            name=op.f("ck_checkout_orders_url_has_session"),
        ),
        sa.CheckConstraint(
            "amount_cents >= 0", name=op.f("ck_checkout_orders_amount_cents_not_negative")
        ),
        sa.CheckConstraint("credits > 0", name=op.f("ck_checkout_orders_credits_positive")),
        sa.CheckConstraint(
            "length(idempotency_key) BETWEEN 1 AND 255", name=op.f("ck_checkout_orders_key_length")
        ),
        sa.CheckConstraint(
            "octet_length(request_digest) = 32", name=op.f("ck_checkout_orders_digest_is_sha256")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.user_id"], name=op.f("fk_checkout_orders_user_id_users")
        ),
        sa.PrimaryKeyConstraint("order_id", name=op.f("pk_checkout_orders")),
        sa.UniqueConstraint("stripe_session_id", name=op.f("uq_checkout_orders_stripe_session_id")),
        sa.UniqueConstraint(
            "user_id", "idempotency_key", name=op.f("uq_checkout_orders_user_id_idempotency_key")
        ),
    )
    op.create_index(
        "ix_checkout_orders_unfinished",
        "checkout_orders",
        ["created_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('created', 'open', 'processing')"),
    )
    op.create_table(
        "refund_requests",
        sa.Column("transaction_id", sa.Uuid(), nullable=False),
        sa.Column("idempotency_key", sa.String(), nullable=False),
        sa.Column("request_digest", sa.LargeBinary(), nullable=False),
        sa.Column("amount_cents", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("status", sa.String(), server_default=sa.text("'requested'"), nullable=False),
        sa.Column("refund_id", sa.String(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "(status = 'accepted') = (refund_id IS NOT NULL)",
            name=op.f("ck_refund_requests_accepted_has_refund"),
        ),
        sa.CheckConstraint(
            "(status = 'refused') = (error IS NOT NULL)",
            name=op.f("ck_refund_requests_refused_says_why"),
        ),
        sa.CheckConstraint(
            "status IN ('requested', 'accepted', 'refused')", name=op.f("ck_refund_requests_status")
        ),
        sa.CheckConstraint(
            "amount_cents > 0", name=op.f("ck_refund_requests_amount_cents_positive")
        ),
        sa.CheckConstraint(
            "length(idempotency_key) BETWEEN 1 AND 255", name=op.f("ck_refund_requests_key_length")
        ),
        sa.CheckConstraint(
            "octet_length(request_digest) = 32", name=op.f("ck_refund_requests_digest_is_sha256")
        ),
        sa.ForeignKeyConstraint(
            ["transaction_id"],
            ["transactions.transaction_id"],
            name=op.f("fk_refund_requests_transaction_id_transactions"),
        ),
        sa.PrimaryKeyConstraint(
            "transaction_id", "idempotency_key", name=op.f("pk_refund_requests")
        ),
    )
    op.create_table(
        "stripe_reversals",
        sa.Column("livemode", sa.Boolean(), nullable=False),
        sa.Column("reversal_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("payment_intent_id", sa.String(), nullable=True),
        sa.Column("transaction_id", sa.Uuid(), nullable=True),
        sa.Column("amount_cents", sa.Integer(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "CASE kind"
            " WHEN 'refund' THEN status IN ('pending', 'succeeded', 'failed', 'canceled')"
            " WHEN 'dispute' THEN status IN ('inquiry', 'withdrawn', 'reinstated')"
            " WHEN 'credit_note' THEN status IN ('issued', 'void')"
            " ELSE false END",
            name=op.f("ck_stripe_reversals_status_goes_with_kind"),
        ),
        sa.CheckConstraint(
            "currency ~ '^[a-z]{3}$'", name=op.f("ck_stripe_reversals_currency_is_iso_4217")
        ),
        sa.CheckConstraint(
            "reversal_id <> ''", name=op.f("ck_stripe_reversals_reversal_id_not_empty")
        ),
        sa.CheckConstraint(
            "amount_cents >= 0", name=op.f("ck_stripe_reversals_amount_cents_not_negative")
        ),
        sa.ForeignKeyConstraint(
            ["transaction_id"],
            ["transactions.transaction_id"],
            name=op.f("fk_stripe_reversals_transaction_id_transactions"),
        ),
        sa.PrimaryKeyConstraint("livemode", "reversal_id", name=op.f("pk_stripe_reversals")),
    )
    op.create_index(
        op.f("ix_stripe_reversals_payment_intent_id"),
        "stripe_reversals",
        ["payment_intent_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_stripe_reversals_transaction_id"),
        "stripe_reversals",
        ["transaction_id"],
        unique=False,
    )
    op.create_index(
        "ix_stripe_reversals_unfinished",
        "stripe_reversals",
        ["created_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('pending', 'inquiry', 'withdrawn')"),
    )


def downgrade() -> None:
    """Undo: create orders, reversals, refund requests and reconciliations."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_table("stripe_reversals")
    op.drop_table("refund_requests")
    op.drop_table("checkout_orders")
    op.drop_table("reconciliations")
