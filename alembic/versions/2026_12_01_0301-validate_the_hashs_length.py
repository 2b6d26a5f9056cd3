"""Validate the length of entries' hashes.

Revision ID: 3fd08a6c75b1
Revises: b7e2c94d1f60
Create Date: 2026-12-01 03:01:00+00:00
"""

from alembic import op

from src.common.postgres.migrations import Loss

revision = "3fd08a6c75b1"
down_revision = "b7e2c94d1f60"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()

_CHECK = "ck_credit_entries_hash_is_sha256"


def upgrade() -> None:
    """Validate; nobody is kept out meanwhile."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = 0")  # as long as the table is large
    op.execute(f"ALTER TABLE credit_entries VALIDATE CONSTRAINT {_CHECK}")


def downgrade() -> None:
    """Undo: validate. The same constraint, for new rows only."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_constraint(op.f(_CHECK), "credit_entries", type_="check")
    op.create_check_constraint(
        op.f(_CHECK),
        "credit_entries",
        "octet_length(entry_hash) = 32",
        postgresql_not_valid=True,
    )
