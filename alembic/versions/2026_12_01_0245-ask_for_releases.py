"""Let people ask for releases of holds.

Revision ID: 83c6e0d1b57a
Revises: 5b1f0c7a92de
Create Date: 2026-12-01 02:45:00+00:00
"""

from alembic import op

from src.common.postgres.migrations import Loss, found

revision = "83c6e0d1b57a"
down_revision = "5b1f0c7a92de"
branch_labels = None
depends_on = None

_NEW = "command ->> 'operation' = 'release'"
LOST_BY_DOWNGRADE: tuple[Loss, ...] = (
    Loss("approvals", _NEW, what="the meaning of requests about holds"),
)
_VERSIONED = "ck_approvals_command_is_versioned"
_CONDITION = (
    "(jsonb_typeof(command) = 'object' AND jsonb_typeof(command -> 'version') = 'number'"
    " AND command ->> 'operation' = ANY ("
    "'{{grant,adjustment,reversal{new},refund,payment,api_key}}'::text[])) IS TRUE"
)


def upgrade() -> None:
    """Let there be such requests; the next migration validates the constraint."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    # The release before shows such a request, says that it cannot read it, and refuses it.
    _replace_check(_CONDITION.format(new=",release"))


def downgrade() -> None:
    """Undo: there are none. Those that are there stay, and nobody knows what they are."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    _replace_check(_CONDITION.format(new=""))
    if not found(f"SELECT FROM approvals WHERE {_NEW}"):
        op.execute(f"ALTER TABLE approvals VALIDATE CONSTRAINT {_VERSIONED}")


def _replace_check(condition: str) -> None:
    op.drop_constraint(op.f(_VERSIONED), "approvals", type_="check")
    op.create_check_constraint(op.f(_VERSIONED), "approvals", condition, postgresql_not_valid=True)
