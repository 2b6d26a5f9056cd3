"""Validate the constraints that the migration before added.

Revision ID: a9d27f50c4e6
Revises: 6b0e4d83a1c7
Create Date: 2026-11-30 23:41:00+00:00
"""

from alembic import op

from src.common.postgres.migrations import Loss

revision = "a9d27f50c4e6"
down_revision = "6b0e4d83a1c7"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()

_CONSTRAINTS = ("ck_approvals_command_is_versioned", "ck_approvals_key_names_no_user")


def upgrade() -> None:
    """Validate; nobody is kept out meanwhile."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for name in _CONSTRAINTS:
        op.execute(f"ALTER TABLE approvals VALIDATE CONSTRAINT {name}")


def downgrade() -> None:
    """Undo: validate. The same constraints, for new rows only."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for name in _CONSTRAINTS:
        op.execute(
            f"""
            DO $$
            DECLARE
              definition text := (SELECT pg_get_constraintdef(oid) FROM pg_constraint
                WHERE conname = '{name}' AND conrelid = 'approvals'::regclass);
            BEGIN
              ALTER TABLE approvals DROP CONSTRAINT {name};
              EXECUTE 'ALTER TABLE approvals ADD CONSTRAINT {name} ' || definition || ' NOT VALID';
            END $$
            """  # noqa: S608  our own names
        )
