"""Create the credit ledger: entries, postings, lots, holds, debts.

Revision ID: 3f4e5d6c7b8a
Revises: 8b7c2d60e9f1
Create Date: 2026-11-22 16:57:47.286975+00:00
"""

# pyright: reportUnknownArgumentType=false
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from src.common.postgres.migrations import Loss, found

revision = "3f4e5d6c7b8a"
down_revision = "8b7c2d60e9f1"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = (
    Loss("credit_entries"),
    Loss("credit_entry_metadata"),
    Loss("credit_postings"),
    Loss("credit_lots"),
    Loss("credit_holds"),
    Loss("credit_debts"),
)


def upgrade() -> None:
    """Create the credit ledger."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.create_table(
        "credit_entries",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("amount", sa.Integer(), nullable=False),
        sa.Column("balance_after", sa.Integer(), nullable=False),
        sa.Column("result_balance", sa.Integer(), nullable=False),
        sa.Column("captured", sa.Integer(), nullable=True),
        sa.Column("related_seq", sa.Integer(), nullable=True),
        sa.Column("hold_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("idempotency_key", sa.String(), nullable=False),
        sa.Column("request_digest", sa.LargeBinary(), nullable=False),
        sa.Column("reference", sa.String(), nullable=True),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("effective_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "CASE kind"
            " WHEN 'opening' THEN amount > 0"
            " WHEN 'grant' THEN amount > 0"
            " WHEN 'spend' THEN amount < 0"
            " WHEN 'adjustment' THEN amount <> 0"
            " WHEN 'hold' THEN amount < 0"
            " WHEN 'capture' THEN amount >= 0"
            " WHEN 'release' THEN amount > 0"
            " WHEN 'hold_expiry' THEN amount > 0"
            " WHEN 'renewal' THEN amount = 0"
            " WHEN 'lot_expiry' THEN amount < 0"
            " WHEN 'clawback' THEN amount <= 0"
            " WHEN 'debt_repayment' THEN amount < 0"
            " WHEN 'reinstatement' THEN amount >= 0"
            " ELSE false END",
            name=op.f("ck_credit_entries_sign_goes_with_kind"),
        ),
        sa.CheckConstraint(
            "balance_after >= 0 AND result_balance >= 0",
            name=op.f("ck_credit_entries_balance_not_negative"),
        ),
        sa.CheckConstraint("captured >= 0", name=op.f("ck_credit_entries_captured_not_negative")),
        sa.CheckConstraint(
            "length(idempotency_key) BETWEEN 1 AND 255", name=op.f("ck_credit_entries_key_length")
        ),
        sa.CheckConstraint(
            "octet_length(request_digest) = 32", name=op.f("ck_credit_entries_digest_is_sha256")
        ),
        sa.CheckConstraint("seq > 0", name=op.f("ck_credit_entries_seq_positive")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.user_id"], name=op.f("fk_credit_entries_user_id_users")
        ),
        sa.PrimaryKeyConstraint("user_id", "seq", name=op.f("pk_credit_entries")),
        sa.UniqueConstraint(
            "user_id", "idempotency_key", name="uq_credit_entries_user_id_idempotency_key"
        ),
    )
    op.create_table(
        "credit_entry_metadata",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("document", postgresql.JSONB(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id", "seq"],
            ["credit_entries.user_id", "credit_entries.seq"],
            name=op.f("fk_credit_entry_metadata_user_id_seq_credit_entries"),
        ),
        sa.PrimaryKeyConstraint("user_id", "seq", name=op.f("pk_credit_entry_metadata")),
    )
    op.create_table(
        "credit_holds",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("amount", sa.Integer(), nullable=False),
        sa.Column("captured", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "status <> 'open' OR captured < amount",
            name=op.f("ck_credit_holds_fully_captured_is_closed"),
        ),
        sa.CheckConstraint(
            "status IN ('open', 'captured', 'released', 'expired')",
            name=op.f("ck_credit_holds_status"),
        ),
        sa.CheckConstraint("amount > 0", name=op.f("ck_credit_holds_amount_positive")),
        sa.CheckConstraint(
            "captured BETWEEN 0 AND amount", name=op.f("ck_credit_holds_captured_within_amount")
        ),
        sa.ForeignKeyConstraint(
            ["user_id", "seq"],
            ["credit_entries.user_id", "credit_entries.seq"],
            name=op.f("fk_credit_holds_user_id_seq_credit_entries"),
        ),
        sa.PrimaryKeyConstraint("user_id", "seq", name=op.f("pk_credit_holds")),
    )
    op.create_index(
        "ix_credit_holds_due",
        "credit_holds",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("status = 'open'"),
    )
    op.create_index(
        "ix_credit_holds_open",
        "credit_holds",
        ["user_id", "seq"],
        unique=False,
        postgresql_where=sa.text("status = 'open'"),
    )
    op.create_table(
        "credit_lots",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("transaction_id", sa.Uuid(), nullable=True),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("granted", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("remaining", sa.Integer(), nullable=False),
        sa.Column("last_seq", sa.Integer(), nullable=False),
        sa.Column("is_open", sa.Boolean(), nullable=False),
        sa.CheckConstraint(
            "source IN ('purchase', 'promo', 'subscription', 'adjustment', 'opening')",
            name=op.f("ck_credit_lots_source"),
        ),
        sa.CheckConstraint(
            "transaction_id IS NULL OR source IN ('purchase', 'opening')",
            name=op.f("ck_credit_lots_only_purchases_have_transactions"),
        ),
        sa.CheckConstraint("granted > 0", name=op.f("ck_credit_lots_granted_positive")),
        sa.CheckConstraint(
            "is_open = (remaining > 0)", name=op.f("ck_credit_lots_open_while_anything_remains")
        ),
        sa.CheckConstraint("last_seq >= seq", name=op.f("ck_credit_lots_last_seq_not_before_seq")),
        sa.CheckConstraint(
            "remaining BETWEEN 0 AND granted", name=op.f("ck_credit_lots_remaining_within_granted")
        ),
        sa.ForeignKeyConstraint(
            ["user_id", "seq"],
            ["credit_entries.user_id", "credit_entries.seq"],
            name=op.f("fk_credit_lots_user_id_seq_credit_entries"),
        ),
        sa.PrimaryKeyConstraint("user_id", "seq", name=op.f("pk_credit_lots")),
        sa.UniqueConstraint(
            "user_id", "transaction_id", name=op.f("uq_credit_lots_user_id_transaction_id")
        ),
    )
    op.create_index(
        "ix_credit_lots_burn_order",
        "credit_lots",
        ["user_id", "priority", sa.literal_column("expires_at NULLS LAST"), "seq"],
        unique=False,
        postgresql_where=sa.text("is_open"),
    )
    op.create_index(
        "ix_credit_lots_due",
        "credit_lots",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("is_open AND expires_at IS NOT NULL"),
    )
    op.create_table(
        "credit_debts",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("outstanding", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "outstanding >= 0", name=op.f("ck_credit_debts_outstanding_not_negative")
        ),
        sa.ForeignKeyConstraint(
            ["user_id", "seq"],
            ["credit_lots.user_id", "credit_lots.seq"],
            name=op.f("fk_credit_debts_user_id_seq_credit_lots"),
        ),
        sa.PrimaryKeyConstraint("user_id", "seq", name=op.f("pk_credit_debts")),
    )
    op.create_table(
        "credit_postings",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("lot_seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("amount", sa.Integer(), nullable=False),
        sa.Column("remaining_after", sa.Integer(), nullable=False),
        sa.CheckConstraint("amount <> 0", name=op.f("ck_credit_postings_amount_not_zero")),
        sa.CheckConstraint("lot_seq <= seq", name=op.f("ck_credit_postings_lot_before_entry")),
        sa.CheckConstraint(
            "remaining_after >= 0", name=op.f("ck_credit_postings_remaining_not_negative")
        ),
        sa.ForeignKeyConstraint(
            ["user_id", "lot_seq"],
            ["credit_lots.user_id", "credit_lots.seq"],
            name=op.f("fk_credit_postings_user_id_lot_seq_credit_lots"),
        ),
        sa.ForeignKeyConstraint(
            ["user_id", "seq"],
            ["credit_entries.user_id", "credit_entries.seq"],
            name=op.f("fk_credit_postings_user_id_seq_credit_entries"),
        ),
        sa.PrimaryKeyConstraint("user_id", "seq", "lot_seq", name=op.f("pk_credit_postings")),
    )


def downgrade() -> None:
    """Undo: create the credit ledger."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    # The document's column again: what is there, what holds would give back, less what is owed.
    op.execute("ALTER TABLE users DROP CONSTRAINT IF EXISTS ck_users_credits_balance_not_negative")
    op.execute(
        """
        UPDATE users SET credits_version = 0, credits_balance = credits_balance
            + (SELECT coalesce(sum(amount - captured), 0) FROM credit_holds
               WHERE credit_holds.user_id = users.user_id AND status = 'open')
            - (SELECT coalesce(sum(outstanding), 0) FROM credit_debts
               WHERE credit_debts.user_id = users.user_id)
        WHERE credits_version > 0
        """
    )
    if not found("SELECT FROM users WHERE credits_balance < 0"):
        op.create_check_constraint(
            op.f("ck_users_credits_balance_not_negative"), "users", "credits_balance >= 0"
        )
    op.drop_table("credit_debts")
    op.drop_table("credit_holds")
    op.drop_table("credit_postings")
    op.drop_table("credit_lots")
    op.drop_table("credit_entry_metadata")
    op.drop_table("credit_entries")
