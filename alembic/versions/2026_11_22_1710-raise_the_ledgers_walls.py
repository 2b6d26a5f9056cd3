"""Raise the ledger's walls: triggers that refuse books that do not balance.

Revision ID: 9d8c7b6a5f40
Revises: 3f4e5d6c7b8a
Create Date: 2026-11-22 17:10:00+00:00
"""

from alembic import op

from src.common.models.ledger_walls import LOWER_WALLS, RAISE_WALLS

revision = "9d8c7b6a5f40"
down_revision = "3f4e5d6c7b8a"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Raise the ledger's walls."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for statement in RAISE_WALLS:
        op.execute(statement)


def downgrade() -> None:
    """Undo: raise the ledger's walls."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for statement in LOWER_WALLS:
        op.execute(statement)
