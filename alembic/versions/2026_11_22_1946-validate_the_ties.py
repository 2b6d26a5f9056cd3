"""Validate the constraints that the migration before added.

Revision ID: 5d2e3f4a6b71
Revises: 4c1d2e3f5a60
Create Date: 2026-11-22 19:46:00+00:00
"""

from alembic import op

from src.common.postgres.migrations import Loss

revision = "5d2e3f4a6b71"
down_revision = "4c1d2e3f5a60"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()

_CONSTRAINTS = {
    "ck_credit_debts_opening_debt_not_negative": "credit_debts",
    "fk_credit_debts_user_id_seq_credit_entries": "credit_debts",
    "ck_credit_entries_sign_goes_with_kind": "credit_entries",
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
                                  WHERE conname = '{name}');
            BEGIN
              ALTER TABLE {table} DROP CONSTRAINT {name};
              EXECUTE 'ALTER TABLE {table} ADD CONSTRAINT {name} ' || definition || ' NOT VALID';
            END $$
            """  # noqa: S608  our own names
        )
