"""Validate the constraint that lets entries be undone.

Revision ID: 0c72a8e41f96
Revises: f19b5d2e6c40
Create Date: 2026-11-30 07:02:00+00:00
"""

from alembic import op

from src.common.postgres.migrations import Loss

revision = "0c72a8e41f96"
down_revision = "f19b5d2e6c40"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()
_CHECK = "ck_credit_entries_sign_goes_with_kind"


def upgrade() -> None:
    """Validate; nobody is kept out meanwhile."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = 0")  # as long as the table is large
    op.execute(f"ALTER TABLE credit_entries VALIDATE CONSTRAINT {_CHECK}")


def downgrade() -> None:
    """Undo: validate. The same constraint, for new rows only."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.execute(
        f"""
        DO $$
        DECLARE
          definition text := (SELECT pg_get_constraintdef(oid) FROM pg_constraint
            WHERE conname = '{_CHECK}' AND conrelid = 'credit_entries'::regclass);
        BEGIN
          ALTER TABLE credit_entries DROP CONSTRAINT {_CHECK};
          EXECUTE 'ALTER TABLE credit_entries ADD CONSTRAINT {_CHECK} ' || definition
            || ' NOT VALID';
        END $$
        """  # noqa: S608  our own names
    )
