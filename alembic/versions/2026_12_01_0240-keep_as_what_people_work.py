"""Keep as what people work in the console, as the identity provider said last.

Revision ID: 5b1f0c7a92de
Revises: 72f5a0d9be34
Create Date: 2026-12-01 02:40:00+00:00
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from src.common.postgres.migrations import Loss

revision = "5b1f0c7a92de"
down_revision = "72f5a0d9be34"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = (Loss("console_people", "roles IS NOT NULL", what="roles"),)


def upgrade() -> None:
    """Add `console_people.roles`, NULL until somebody signs in or is confirmed."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.add_column("console_people", sa.Column("roles", postgresql.ARRAY(sa.Text()), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_column("console_people", "roles")
