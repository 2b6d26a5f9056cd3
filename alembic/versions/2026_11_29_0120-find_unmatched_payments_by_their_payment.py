"""Find unmatched payments by their PaymentIntent, whichever object they were noted by.

Revision ID: 3c7e0b5d9a12
Revises: 6a1f7c3e9b52
Create Date: 2026-11-29 01:20:00+00:00
"""

import sqlalchemy as sa
from alembic import op

from src.common.postgres.migrations import Loss

revision = "3c7e0b5d9a12"
down_revision = "6a1f7c3e9b52"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()
_NAME = "ix_unmatched_payments_payment_intent_id"


def upgrade() -> None:
    """Index the PaymentIntent among the details."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '3s'")
        op.execute("SET statement_timeout = 0")
        op.drop_index(_NAME, if_exists=True, postgresql_concurrently=True)
        op.create_index(
            _NAME,
            "unmatched_payments",
            [sa.text("(details ->> 'payment_intent_id')")],
            postgresql_concurrently=True,
            if_not_exists=True,
        )


def downgrade() -> None:
    """Undo: find them by the object alone that they were noted by."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_index(_NAME, if_exists=True)
