"""Index who is signed in to the console, their sign-ins, and requests about no user.

Revision ID: e13c8b6f92d0
Revises: a9d27f50c4e6
Create Date: 2026-11-30 23:42:00+00:00
"""

import sqlalchemy as sa
from alembic import op

from src.common.postgres.migrations import Loss

revision = "e13c8b6f92d0"
down_revision = "a9d27f50c4e6"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()


def upgrade() -> None:
    """Find them, and have a request's key be one request's."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '3s'")
        op.execute("SET statement_timeout = 0")  # as long as the tables are large
        for name in ("approvals_of_no_user", "console_sessions_person_id", "console_sign_ins"):
            op.drop_index(f"ix_{name}", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            "ix_approvals_of_no_user",
            "approvals",
            ["idempotency_key"],
            unique=True,
            postgresql_where=sa.text("user_id IS NULL"),
            postgresql_concurrently=True,
            if_not_exists=True,
        )
        op.create_index(
            "ix_console_sessions_person_id",
            "console_sessions",
            ["person_id"],
            postgresql_concurrently=True,
            if_not_exists=True,
        )
        op.create_index(
            "ix_console_sign_ins",
            "console_actions",
            ["actor", "created_at"],
            postgresql_where=sa.text("action = 'sign_in'"),
            postgresql_concurrently=True,
            if_not_exists=True,
        )


def downgrade() -> None:
    """Undo."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for name in ("approvals_of_no_user", "console_sessions_person_id", "console_sign_ins"):
        op.drop_index(f"ix_{name}", if_exists=True)
