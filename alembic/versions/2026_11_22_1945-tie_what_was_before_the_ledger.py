"""Tie what was before the ledger: historic purchases, opening debts.

Revision ID: 4c1d2e3f5a60
Revises: 7e1d4c2b9a58
Create Date: 2026-11-22 19:45:00+00:00
"""

# pyright: reportUnknownArgumentType=false
import sqlalchemy as sa
from alembic import op

from src.common.postgres.migrations import Loss, found

revision = "4c1d2e3f5a60"
down_revision = "7e1d4c2b9a58"
branch_labels = None
depends_on = None

# Whether the opening balance held what a purchase added: it has no lot of its own, and was there
# before the first entry of its user.
_PREDATES = """
NOT EXISTS (SELECT FROM credit_lots
    WHERE credit_lots.user_id = transactions.user_id
      AND credit_lots.transaction_id = transactions.transaction_id)
AND NOT EXISTS (SELECT FROM credit_entries
    WHERE credit_entries.user_id = transactions.user_id AND credit_entries.seq = 1
      AND credit_entries.created_at < transactions.created_at)
"""

LOST_BY_DOWNGRADE: tuple[Loss, ...] = (
    Loss("credit_debts", "opening_debt > 0", what="opening_debt"),
    # Where it says what `upgrade` would say again, it is not lost.
    Loss("transactions", f"predates_ledger IS DISTINCT FROM ({_PREDATES})", what="predates_ledger"),
)


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
    # Where the ledger is new, every purchase there is was there before it, and none that comes is:
    # both defaults are constants, and no row is written.
    op.add_column(
        "transactions",
        sa.Column("predates_ledger", sa.Boolean(), server_default=sa.text("true"), nullable=False),
    )
    op.alter_column("transactions", "predates_ledger", server_default=sa.text("false"))
    op.execute(f"UPDATE transactions SET predates_ledger = false WHERE NOT ({_PREDATES})")  # noqa: S608  our own names
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
