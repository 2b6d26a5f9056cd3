"""Create approvals: what takes a second person's consent.

Revision ID: 3f7a92c41e58
Revises: 5e8c1b7f2d94
Create Date: 2026-11-30 20:10:00+00:00
"""

# pyright: reportUnknownArgumentType=false
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from src.common.models.approval_triggers import CREATE_FUNCTION, CREATE_TRIGGERS, DROP_FUNCTION
from src.common.postgres.migrations import Loss

revision = "3f7a92c41e58"
down_revision = "5e8c1b7f2d94"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = (Loss("approvals"),)


def upgrade() -> None:
    """Create `approvals`, empty, and the triggers that keep what was asked."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.create_table(
        "approvals",
        *_columns(),
        *_checks(),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.user_id"], name=op.f("fk_approvals_user_id_users")
        ),
        sa.ForeignKeyConstraint(
            ["transaction_id"],
            ["transactions.transaction_id"],
            name=op.f("fk_approvals_transaction_id_transactions"),
        ),
        sa.PrimaryKeyConstraint("approval_id", name=op.f("pk_approvals")),
        sa.UniqueConstraint(
            "user_id", "idempotency_key", name=op.f("uq_approvals_user_id_idempotency_key")
        ),
    )
    op.create_index("ix_approvals_created_at", "approvals", ["created_at", "approval_id"])
    op.create_index(
        "ix_approvals_open",
        "approvals",
        ["expires_at"],
        postgresql_where=sa.text("status = 'open'"),
    )
    for statement in (CREATE_FUNCTION, *CREATE_TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    """Undo."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_table("approvals")
    op.execute(DROP_FUNCTION)


def _columns() -> tuple[sa.Column[object], ...]:
    instant = sa.DateTime(timezone=True)
    return (
        sa.Column(
            "approval_id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False
        ),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("transaction_id", sa.Uuid(), nullable=True),
        sa.Column("command", postgresql.JSONB(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("requester", sa.String(), nullable=False),
        sa.Column("idempotency_key", sa.String(), nullable=False),
        sa.Column("request_digest", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.String(), server_default=sa.text("'open'"), nullable=False),
        sa.Column("decider", sa.String(), nullable=True),
        sa.Column("note", sa.String(), nullable=True),
        sa.Column(
            "created_at", instant, server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("expires_at", instant, nullable=False),
        sa.Column("decided_at", instant, nullable=True),
    )


def _checks() -> tuple[sa.CheckConstraint, ...]:
    return tuple(
        sa.CheckConstraint(condition, name=op.f(f"ck_approvals_{name}"))
        for name, condition in {
            "command_is_versioned": (
                "(jsonb_typeof(command) = 'object' AND jsonb_typeof(command -> 'version') ="
                " 'number' AND command ->> 'operation' ="
                " ANY ('{grant,adjustment,reversal,refund}'::text[])) IS TRUE"
            ),
            "refund_names_purchase": (
                "(command ->> 'operation' = 'refund') = (transaction_id IS NOT NULL)"
            ),
            "status": "status = ANY ('{open,consented,refused,withdrawn}'::text[])",
            "key_length": "length(idempotency_key) BETWEEN 1 AND 255",
            "digest_is_sha256": "octet_length(request_digest) = 32",
            "reason_length": "length(reason) BETWEEN 1 AND 255",
            "note_length": "length(note) BETWEEN 1 AND 255",
            "expires_later": "expires_at > created_at",
            "decided_says_by_whom": (
                "(status = 'open') = (decider IS NULL) AND (status = 'open') ="
                " (decided_at IS NULL) AND (status <> 'open' OR note IS NULL)"
            ),
            "decided_in_time": "decided_at < expires_at",
            "decided_by_somebody_else": (
                "CASE status WHEN 'open' THEN true WHEN 'withdrawn' THEN"
                " decider = ANY (ARRAY[requester, 'system:erasure'])"
                " ELSE decider <> requester END"
            ),
        }.items()
    )
