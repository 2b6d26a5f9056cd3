"""Validate the checks that the migration before made shorter.

Revision ID: 7c1f4eaf6b28
Revises: 6b0e3d9f5a17
Create Date: 2026-11-28 01:56:00+00:00
"""

from alembic import op

from src.common.postgres.migrations import Loss

revision = "7c1f4eaf6b28"
down_revision = "6b0e3d9f5a17"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()

_CONSTRAINTS = {
    "ck_credit_entries_sign_goes_with_kind": "credit_entries",
    "ck_credit_lots_source": "credit_lots",
    "ck_credit_lots_only_purchases_have_transactions": "credit_lots",
    "ck_credit_holds_status": "credit_holds",
}


def upgrade() -> None:
    """Validate; nobody is kept out meanwhile."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = 0")  # as long as the tables are large
    for name, table in _CONSTRAINTS.items():
        op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")


def downgrade() -> None:
    """Undo: validate. The same constraints, for new rows only."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for name, table in _CONSTRAINTS.items():
        op.execute(
            f"""
            DO $$
            DECLARE
              definition text := (SELECT pg_get_constraintdef(oid) FROM pg_constraint
                                  WHERE conname = '{name}' AND conrelid = '{table}'::regclass);
            BEGIN
              ALTER TABLE {table} DROP CONSTRAINT {name};
              EXECUTE 'ALTER TABLE {table} ADD CONSTRAINT {name} ' || definition || ' NOT VALID';
            END $$
            """  # noqa: S608  our own names
        )
