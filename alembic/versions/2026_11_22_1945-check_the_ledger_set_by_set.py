"""Check the ledger set by set: the walls look at a statement's rows together, at its end.

Revision ID: 7e1d4c2b9a58
Revises: 61d0c3b5a7e8
Create Date: 2026-11-22 19:45:00+00:00
"""

from types import ModuleType

from alembic import context, op

from src.common.models.ledger_walls import LOWER_WALLS, RAISE_WALLS

revision = "7e1d4c2b9a58"
down_revision = "61d0c3b5a7e8"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Check the ledger set by set."""
    _replace(_walls_before().LOWER_WALLS, RAISE_WALLS)


def downgrade() -> None:
    """Undo: check the ledger set by set."""
    _replace(LOWER_WALLS, _walls_before().RAISE_WALLS)


def _replace(lower: tuple[str, ...], raise_: tuple[str, ...]) -> None:
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for statement in (*lower, *raise_):
        op.execute(statement)


def _walls_before() -> ModuleType:
    """The walls as the migration that first raised them has them."""
    return context.script.get_revision("9d8c7b6a5f40").module
