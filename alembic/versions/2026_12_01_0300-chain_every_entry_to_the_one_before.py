"""Chain every entry to the one before (decision 0061).

Revision ID: b7e2c94d1f60
Revises: b4d90f6e21c8
Create Date: 2026-12-01 03:00:00+00:00
"""

# pyright: reportUnknownArgumentType=false
import sqlalchemy as sa
from alembic import op

from src.common.models.credit_ledger import CREATE_LEDGER
from src.common.models.ledger_triggers_chain import CREATE_CHAIN
from src.common.postgres.migrations import Loss

revision = "b7e2c94d1f60"
down_revision = "b4d90f6e21c8"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = (
    Loss("credit_entries", "entry_hash IS NOT NULL", what="entry_hash"),
    Loss(
        "credit_ledgers",
        "EXISTS (SELECT FROM credit_entries WHERE entry_hash IS NOT NULL)",
        what="ledger_id",
    ),
)


def upgrade() -> None:
    """Add the hash, which `flashslides db chain` gives to entries that are there, and the ledger.

    The next migration validates the constraint.
    """
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.create_table(
        "credit_ledgers",
        sa.Column(
            "ledger_number",
            sa.SmallInteger(),
            autoincrement=False,
            server_default=sa.text("1"),
            nullable=False,
        ),
        sa.Column(
            "ledger_id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False
        ),
        sa.Column("chained_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("ledger_number = 1", name=op.f("ck_credit_ledgers_one_row")),
        sa.PrimaryKeyConstraint("ledger_number", name=op.f("pk_credit_ledgers")),
    )
    op.add_column("credit_entries", sa.Column("entry_hash", sa.LargeBinary(), nullable=True))
    op.create_check_constraint(
        op.f("ck_credit_entries_hash_is_sha256"),
        "credit_entries",
        "octet_length(entry_hash) = 32",
        postgresql_not_valid=True,
    )
    for statement in (*CREATE_CHAIN, CREATE_LEDGER):
        op.execute(statement)


def downgrade() -> None:
    """Undo: chain every entry to the one before."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.execute("DROP TRIGGER credit_entries_chained ON credit_entries")
    op.execute("DROP TRIGGER credit_entries_hashed_once ON credit_entries")
    op.execute("DROP TRIGGER credit_entries_append_only ON credit_entries")
    op.execute(
        "CREATE TRIGGER credit_entries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE"
        " ON credit_entries FOR EACH STATEMENT EXECUTE FUNCTION credit_ledger_append_only()"
    )
    op.execute("-- squawk-ignore ban-drop-function\nDROP FUNCTION credit_entries_chained()")
    op.drop_constraint(op.f("ck_credit_entries_hash_is_sha256"), "credit_entries", type_="check")
    op.drop_column("credit_entries", "entry_hash")
    op.drop_table("credit_ledgers")
