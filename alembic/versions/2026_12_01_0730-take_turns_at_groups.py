"""Note when each kind of work last began with each group of users.

Revision ID: 9c2e5d7a4b18
Revises: d8f3a6b20c17
Create Date: 2026-12-01 07:30:00+00:00
"""

# pyright: reportUnknownArgumentType=false
import sqlalchemy as sa
from alembic import op

from src.common.postgres.sides import Side

revision = "9c2e5d7a4b18"
down_revision = "d8f3a6b20c17"
branch_labels = None
depends_on = None

TABLES_OF = Side.EVERYBODY
LOST_BY_DOWNGRADE = ()
"""What it knows is known again after a round."""


def upgrade() -> None:
    """Create the table, empty."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.create_table(
        "group_turns",
        sa.Column("work", sa.String(), nullable=False),
        sa.Column("schema", sa.String(), nullable=False),
        sa.Column(
            "began_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["schema"], ["user_groups.schema"], name=op.f("fk_group_turns_schema_user_groups")
        ),
        sa.PrimaryKeyConstraint("work", "schema", name=op.f("pk_group_turns")),
    )


def downgrade() -> None:
    """Drop the table."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_table("group_turns")
