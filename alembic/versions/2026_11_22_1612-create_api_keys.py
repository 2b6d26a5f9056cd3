"""Create API keys.

Revision ID: 8b7c2d60e9f1
Revises: 5a0e9c1f7d24
Create Date: 2026-11-22 16:12:00+00:00
"""

# pyright: reportUnknownArgumentType=false
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from src.common.postgres.migrations import Loss

revision = "8b7c2d60e9f1"
down_revision = "5a0e9c1f7d24"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = (Loss("api_keys"),)


def upgrade() -> None:
    """Create API keys."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("last_four", sa.String(), nullable=False),
        sa.Column("service_name", sa.String(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.String()), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("service_name <> ''", name=op.f("ck_api_keys_service_name_not_empty")),
        sa.CheckConstraint("cardinality(scopes) > 0", name=op.f("ck_api_keys_scopes_not_empty")),
        sa.CheckConstraint("length(last_four) = 4", name=op.f("ck_api_keys_last_four_length")),
        sa.CheckConstraint(
            "octet_length(key_hash) = 32", name=op.f("ck_api_keys_key_hash_is_sha256")
        ),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_api_keys_key_hash")),
    )
    op.create_index(op.f("ix_api_keys_service_name"), "api_keys", ["service_name"], unique=False)


def downgrade() -> None:
    """Undo: create API keys."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_table("api_keys")
