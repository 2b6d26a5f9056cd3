"""Let people ask for unmatched payments and API keys.

Revision ID: 6b0e4d83a1c7
Revises: 4c1f7e92ab60
Create Date: 2026-11-30 23:40:00+00:00
"""

from alembic import op

from src.common.postgres.migrations import Loss, found

revision = "6b0e4d83a1c7"
down_revision = "4c1f7e92ab60"
branch_labels = None
depends_on = None

_NEW = "command ->> 'operation' IN ('payment', 'api_key')"
LOST_BY_DOWNGRADE: tuple[Loss, ...] = (
    Loss("approvals", _NEW, what="the meaning of requests about payments and keys"),
)

_VERSIONED = "ck_approvals_command_is_versioned"
_NO_USER = "ck_approvals_key_names_no_user"
_CONDITION = (
    "(jsonb_typeof(command) = 'object' AND jsonb_typeof(command -> 'version') = 'number'"
    " AND command ->> 'operation' = ANY ('{{grant,adjustment,reversal,refund{new}}}'::text[]))"
    " IS TRUE"
)


def upgrade() -> None:
    """Let there be such requests; the next migration validates the constraints."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    # The release before shows such a request, says that it cannot read it, and refuses it.
    op.execute(
        "-- squawk-ignore ban-drop-not-null\n"
        "ALTER TABLE approvals ALTER COLUMN user_id DROP NOT NULL"
    )
    _replace_check(_CONDITION.format(new=",payment,api_key"))
    op.create_check_constraint(
        op.f(_NO_USER),
        "approvals",
        "(command ->> 'operation' = 'api_key') = (user_id IS NULL)",
        postgresql_not_valid=True,
    )


def downgrade() -> None:
    """Undo: there are none. Those that are there stay, and nobody knows what they are."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_constraint(op.f(_NO_USER), "approvals", type_="check")
    _replace_check(_CONDITION.format(new=""))
    if not found(f"SELECT FROM approvals WHERE {_NEW}"):
        op.execute(f"ALTER TABLE approvals VALIDATE CONSTRAINT {_VERSIONED}")
        op.alter_column("approvals", "user_id", nullable=False)


def _replace_check(condition: str) -> None:
    op.drop_constraint(op.f(_VERSIONED), "approvals", type_="check")
    op.create_check_constraint(op.f(_VERSIONED), "approvals", condition, postgresql_not_valid=True)
