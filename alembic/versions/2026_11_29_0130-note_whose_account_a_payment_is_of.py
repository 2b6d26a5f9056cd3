"""Note of which connected account a purchase, money back and a comparison are (Stripe Connect).

Revision ID: 8d2b6f4c1a37
Revises: 3c7e0b5d9a12
Create Date: 2026-11-29 01:30:00+00:00
"""

import sqlalchemy as sa
from alembic import op

from src.common.postgres.migrations import Loss

revision = "8d2b6f4c1a37"
down_revision = "3c7e0b5d9a12"
branch_labels = None
depends_on = None

_TABLES = ("transactions", "stripe_reversals", "reconciliations")
LOST_BY_DOWNGRADE: tuple[Loss, ...] = tuple(
    Loss(table, "stripe_account IS NOT NULL", what="stripe_account") for table in _TABLES
)


def upgrade() -> None:
    """Add `stripe_account`, NULL: our own."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for table in _TABLES:
        op.add_column(table, sa.Column("stripe_account", sa.String(), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for table in _TABLES:
        op.drop_column(table, "stripe_account")
