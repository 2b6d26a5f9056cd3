"""Keep the answers to requests that were charged, for whoever sends one again.

Revision ID: b52e9d1f7a64
Revises: 8d2b6f4c1a37
Create Date: 2026-11-29 12:40:00+00:00
"""

# pyright: reportUnknownArgumentType=false
import sqlalchemy as sa
from alembic import op

from src.common.postgres.migrations import Loss

revision = "b52e9d1f7a64"
down_revision = "8d2b6f4c1a37"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE = (Loss("charged_requests", "status IS NOT NULL", "answers"),)


def upgrade() -> None:
    """Create `charged_requests`, empty."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.create_table(
        "charged_requests",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("key_digest", sa.LargeBinary(), nullable=False),
        sa.Column("request_digest", sa.LargeBinary(), nullable=False),
        sa.Column("claim_id", sa.Uuid(), nullable=False),
        sa.Column("hold_seq", sa.Integer(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=True),
        sa.Column("headers", sa.ARRAY(sa.LargeBinary()), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "octet_length(key_digest) = 32", name=op.f("ck_charged_requests_key_is_sha256")
        ),
        sa.CheckConstraint(
            "octet_length(request_digest) = 32", name=op.f("ck_charged_requests_digest_is_sha256")
        ),
        sa.CheckConstraint(
            "num_nulls(status, headers, body) IN (0, 3)",
            name=op.f("ck_charged_requests_answer_is_whole"),
        ),
        sa.CheckConstraint(
            "octet_length(body) <= 16777216", name=op.f("ck_charged_requests_body_is_bounded")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.user_id"], name=op.f("fk_charged_requests_user_id_users")
        ),
        sa.PrimaryKeyConstraint("user_id", "key_digest", name=op.f("pk_charged_requests")),
    )
    op.create_index("ix_charged_requests_expires_at", "charged_requests", ["expires_at"])


def downgrade() -> None:
    """Undo. The journal still knows which requests were charged; their answers are gone."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_table("charged_requests")
