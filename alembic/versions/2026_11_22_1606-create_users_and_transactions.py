"""Create users and transactions.

Revision ID: c6134a1d3b72
Revises:
Create Date: 2026-11-22 16:06:00+00:00
"""

# pyright: reportUnknownArgumentType=false
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from src.common.postgres.migrations import Loss

revision = "c6134a1d3b72"
down_revision = None
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = (Loss("transactions"), Loss("users"))


def upgrade() -> None:
    """Create users and transactions."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    sa.Enum("admin", "member", "guest", "individual", name="user_type").create(op.get_bind())
    op.create_table(
        "users",
        sa.Column(
            "user_id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False
        ),
        sa.Column("email", sa.String(), nullable=False),
        sa.Column("password_hash", sa.String(), nullable=False),
        sa.Column("first_name", sa.String(), nullable=True),
        sa.Column("last_name", sa.String(), nullable=True),
        sa.Column("profile_image_url", sa.String(), nullable=True),
        sa.Column("phone", sa.String(), nullable=True),
        sa.Column("stripe_customer_id", sa.String(), nullable=True),
        sa.Column("credits_balance", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("credits_version", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "preferences",
            postgresql.JSONB(),
            server_default=sa.text("'{}'::jsonb"),
            nullable=True,
        ),
        sa.Column("timezone", sa.String(), nullable=True),
        sa.Column("language_preference", sa.String(), nullable=True),
        sa.Column(
            "user_type",
            postgresql.ENUM(
                "admin", "member", "guest", "individual", name="user_type", create_type=False
            ),
            server_default=sa.text("'individual'"),
            nullable=False,
        ),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("last_login_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "jsonb_typeof(preferences) = 'object'", name=op.f("ck_users_preferences_is_object")
        ),
        sa.CheckConstraint(
            "length(preferences ->> 'company') <= 500", name=op.f("ck_users_company_length")
        ),
        sa.CheckConstraint("password_hash <> ''", name=op.f("ck_users_password_hash_not_empty")),
        sa.CheckConstraint("position('@' in email) > 1", name=op.f("ck_users_email_has_at_sign")),
        sa.CheckConstraint(
            "credits_balance >= 0", name=op.f("ck_users_credits_balance_not_negative")
        ),
        sa.CheckConstraint(
            "credits_version >= 0", name=op.f("ck_users_credits_version_not_negative")
        ),
        sa.CheckConstraint(
            "erased_at IS NULL OR NOT is_active", name=op.f("ck_users_erased_is_inactive")
        ),
        sa.CheckConstraint("length(email) <= 320", name=op.f("ck_users_email_length")),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_users")),
    )
    op.create_index(
        "ix_users_company",
        "users",
        [sa.literal_column("(preferences ->> 'company')")],
        unique=False,
    )
    op.create_index(op.f("ix_users_email"), "users", ["email"], unique=True)
    op.create_index(
        "ix_users_preferences", "users", ["preferences"], unique=False, postgresql_using="gin"
    )
    op.create_index(
        op.f("ix_users_stripe_customer_id"), "users", ["stripe_customer_id"], unique=True
    )
    op.create_index(
        "uq_users_email_lower", "users", [sa.literal_column("lower(email)")], unique=True
    )
    op.create_table(
        "transactions",
        sa.Column(
            "transaction_id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False
        ),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("stripe_session_id", sa.String(), nullable=False),
        sa.Column("payment_intent_id", sa.String(), nullable=True),
        sa.Column("invoice_id", sa.String(), nullable=True),
        sa.Column("amount_paid_cents", sa.Integer(), nullable=False),
        sa.Column("currency", sa.String(), server_default=sa.text("'usd'"), nullable=False),
        sa.Column("livemode", sa.Boolean(), nullable=True),
        sa.Column("credits_added", sa.Integer(), nullable=False),
        sa.Column("refunded_cents", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("disputed_cents", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "currency ~ '^[a-z]{3}$'", name=op.f("ck_transactions_currency_is_iso_4217")
        ),
        sa.CheckConstraint(
            "stripe_session_id <> ''", name=op.f("ck_transactions_stripe_session_id_not_empty")
        ),
        sa.CheckConstraint(
            "amount_paid_cents >= 0", name=op.f("ck_transactions_amount_paid_cents_not_negative")
        ),
        sa.CheckConstraint(
            "credits_added > 0", name=op.f("ck_transactions_credits_added_positive")
        ),
        sa.CheckConstraint(
            "disputed_cents >= 0", name=op.f("ck_transactions_disputed_cents_not_negative")
        ),
        sa.CheckConstraint(
            "refunded_cents >= 0", name=op.f("ck_transactions_refunded_cents_not_negative")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.user_id"], name=op.f("fk_transactions_user_id_users")
        ),
        sa.PrimaryKeyConstraint("transaction_id", name=op.f("pk_transactions")),
        sa.UniqueConstraint("invoice_id", name=op.f("uq_transactions_invoice_id")),
        sa.UniqueConstraint("payment_intent_id", name=op.f("uq_transactions_payment_intent_id")),
        sa.UniqueConstraint("stripe_session_id", name=op.f("uq_transactions_stripe_session_id")),
    )
    op.create_index(op.f("ix_transactions_user_id"), "transactions", ["user_id"], unique=False)
    op.create_index(
        "ix_transactions_user_id_created_at",
        "transactions",
        ["user_id", sa.literal_column("created_at DESC"), sa.literal_column("transaction_id DESC")],
        unique=False,
    )


def downgrade() -> None:
    """Undo: create users and transactions."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_table("transactions")
    op.drop_table("users")
    op.execute("DROP TYPE user_type")
