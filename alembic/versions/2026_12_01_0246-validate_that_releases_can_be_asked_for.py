"""Validate the constraint that the migration before replaced.

Revision ID: c40b9e6f21d8
Revises: 83c6e0d1b57a
Create Date: 2026-12-01 02:46:00+00:00
"""

from alembic import op

from src.common.postgres.migrations import Loss

revision = "c40b9e6f21d8"
down_revision = "83c6e0d1b57a"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()
_VERSIONED = "ck_approvals_command_is_versioned"


def upgrade() -> None:
    """Validate; nobody is kept out meanwhile."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.execute(f"ALTER TABLE approvals VALIDATE CONSTRAINT {_VERSIONED}")


def downgrade() -> None:
    """Undo: validate. The same constraint, for new rows only."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.execute(
        f"""
        DO $$
        DECLARE
          definition text := (SELECT pg_get_constraintdef(oid) FROM pg_constraint
            WHERE conname = '{_VERSIONED}' AND conrelid = 'approvals'::regclass);
        BEGIN
          ALTER TABLE approvals DROP CONSTRAINT {_VERSIONED};
          EXECUTE 'ALTER TABLE approvals ADD CONSTRAINT {_VERSIONED} ' || definition
            || ' NOT VALID';
        END $$
        """  # noqa: S608  our own name
    )
