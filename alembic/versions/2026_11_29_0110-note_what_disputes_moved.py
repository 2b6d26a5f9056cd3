"""Note what was moved for a dispute, out and back.

Revision ID: 6a1f4c8e2b90
Revises: 4e8b1d6c9f27
Create Date: 2026-11-29 01:10:00+00:00
"""

import sqlalchemy as sa
from alembic import op

from src.common.postgres.migrations import Loss

revision = "6a1f4c8e2b90"
down_revision = "4e8b1d6c9f27"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = (
    Loss("stripe_reversals", "moved_cents > 0", what="moved_cents"),
)


def upgrade() -> None:
    """Add `stripe_reversals.moved_cents`; where funds moved, the amount out, or out and back.

    A copy of an old event then changes nothing, and whatever tells of a later movement does.
    """
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.add_column(
        "stripe_reversals",
        sa.Column("moved_cents", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
    )
    # Disputes are few; what was moved for them nobody has noted so far.
    op.execute(
        "UPDATE stripe_reversals SET moved_cents = amount_cents"
        " * CASE status WHEN 'reinstated' THEN 2 ELSE 1 END"
        " WHERE kind = 'dispute' AND status IN ('withdrawn', 'reinstated')"
    )


def downgrade() -> None:
    """Undo: note what disputes moved."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_column("stripe_reversals", "moved_cents")
