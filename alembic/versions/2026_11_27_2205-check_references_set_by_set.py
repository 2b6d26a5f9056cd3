"""Check the journal's references set by set too: the walls, in place of three foreign keys.

Revision ID: 1f7c9e2b4d83
Revises: 8c4f6a2d1e93
Create Date: 2026-11-27 22:05:00+00:00
"""

from types import ModuleType

from alembic import context, op

from src.common.models.ledger_walls import LOWER_WALLS, RAISE_WALLS

revision = "1f7c9e2b4d83"
down_revision = "8c4f6a2d1e93"
branch_labels = None
depends_on = None

_FOREIGN_KEYS = {
    "fk_credit_entries_user_id_users": ("credit_entries", "users", ["user_id"], ["user_id"]),
    "fk_credit_postings_user_id_seq_credit_entries": (
        *("credit_postings", "credit_entries"),
        *(["user_id", "seq"], ["user_id", "seq"]),
    ),
    "fk_credit_postings_user_id_lot_seq_credit_lots": (
        *("credit_postings", "credit_lots"),
        *(["user_id", "lot_seq"], ["user_id", "seq"]),
    ),
}


def upgrade() -> None:
    """Have the walls refuse what the foreign keys refused (decision 0019)."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    _replace(_walls_before().LOWER_WALLS, RAISE_WALLS)
    for name, (table, *_) in _FOREIGN_KEYS.items():
        op.drop_constraint(name, table, type_="foreignkey")


def downgrade() -> None:
    """Undo: check the journal's references set by set. Nobody writes meanwhile."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = 0")  # as long as the tables are large
    _replace(LOWER_WALLS, _walls_before().RAISE_WALLS)
    for name, foreign_key in _FOREIGN_KEYS.items():
        op.create_foreign_key(name, *foreign_key)


def _replace(lower: tuple[str, ...], raise_: tuple[str, ...]) -> None:
    for statement in (*lower, *raise_):
        op.execute(statement)


def _walls_before() -> ModuleType:
    """The walls as the migration that last raised them has them."""
    return context.script.get_revision("7e1d4c2b9a58").module
