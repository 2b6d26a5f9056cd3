"""Tie what was before the ledger: historic purchases, opening debts.

Revision ID: 4c1d2e3f5a60
Revises: 7e1d4c2b9a58
Create Date: 2026-11-22 19:45:00+00:00
"""

# pyright: reportUnknownArgumentType=false
import sqlalchemy as sa
from alembic import op

from src.common.migrations import found

revision = "4c1d2e3f5a60"
down_revision = "7e1d4c2b9a58"
branch_labels = None
depends_on = None


_SIGNS = (
    "CASE kind"
    " WHEN 'opening' THEN amount {opening} 0"
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
    " ELSE false END"
)
_CHECK = "ck_credit_entries_sign_goes_with_kind"
_TO_LOT = "fk_credit_debts_user_id_seq_credit_lots"
_TO_ENTRY = "fk_credit_debts_user_id_seq_credit_entries"


def upgrade() -> None:
    """Tie what was before the ledger; the next migration validates the constraints."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    # Every purchase there is now was there before the ledger, or has a lot of its own; later ones
    # are not. Both defaults are constants: no row is written.
    op.add_column(
        "transactions",
        sa.Column("predates_ledger", sa.Boolean(), server_default=sa.text("true"), nullable=False),
    )
    op.alter_column("transactions", "predates_ledger", server_default=sa.text("false"))
    op.add_column(
        "credit_debts",
        sa.Column("opening_debt", sa.Integer(), server_default=sa.text("0"), nullable=False),
    )
    op.create_check_constraint(
        op.f("ck_credit_debts_opening_debt_not_negative"),
        "credit_debts",
        "opening_debt >= 0",
        postgresql_not_valid=True,
    )
    op.drop_constraint(op.f(_TO_LOT), "credit_debts", type_="foreignkey")
    op.create_foreign_key(
        op.f(_TO_ENTRY),
        "credit_debts",
        "credit_entries",
        ["user_id", "seq"],
        ["user_id", "seq"],
        postgresql_not_valid=True,
    )
    op.drop_constraint(op.f(_CHECK), "credit_entries", type_="check")
    op.create_check_constraint(
        op.f(_CHECK), "credit_entries", _SIGNS.format(opening=">="), postgresql_not_valid=True
    )


def downgrade() -> None:
    """Undo: tie what was before the ledger. Opening entries of 0 stay, and hold up nothing."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_constraint(op.f(_CHECK), "credit_entries", type_="check")
    op.create_check_constraint(
        op.f(_CHECK), "credit_entries", _SIGNS.format(opening=">"), postgresql_not_valid=True
    )
    op.drop_constraint(op.f(_TO_ENTRY), "credit_debts", type_="foreignkey")
    op.create_foreign_key(
        op.f(_TO_LOT),
        "credit_debts",
        "credit_lots",
        ["user_id", "seq"],
        ["user_id", "seq"],
        postgresql_not_valid=True,
    )
    if not found("SELECT FROM credit_entries WHERE kind = 'opening' AND amount = 0"):
        op.execute(f"ALTER TABLE credit_entries VALIDATE CONSTRAINT {_CHECK}")
        op.execute(f"ALTER TABLE credit_debts VALIDATE CONSTRAINT {_TO_LOT}")
    op.drop_column("credit_debts", "opening_debt")
    op.drop_column("transactions", "predates_ledger")
