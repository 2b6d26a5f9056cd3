"""Note which events need an answer of Stripe's.

Revision ID: 6a1f7c3e9b52
Revises: 91c5d2e7a3f4
Create Date: 2026-11-29 01:12:00+00:00
"""

import sqlalchemy as sa
from alembic import op

from src.common.postgres.migrations import Loss

revision = "6a1f7c3e9b52"
down_revision = "91c5d2e7a3f4"
branch_labels = None
depends_on = None

# The next attempt finds out again.
LOST_BY_DOWNGRADE: tuple[Loss, ...] = (Loss("stripe_events", "false", what="needs_lookup"),)


def upgrade() -> None:
    """Add `stripe_events.needs_lookup`, false: the next attempt finds out."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.add_column(
        "stripe_events",
        sa.Column("needs_lookup", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )


def downgrade() -> None:
    """Undo."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_column("stripe_events", "needs_lookup")
