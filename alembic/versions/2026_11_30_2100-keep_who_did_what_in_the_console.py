"""Keep who did what in the console.

Revision ID: c1a7e95b3d60
Revises: 91d4c6e07b2f
Create Date: 2026-11-30 21:00:00+00:00
"""

# pyright: reportUnknownArgumentType=false
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from src.common.models.console_action import CREATE_GUARD
from src.common.postgres.migrations import Loss

revision = "c1a7e95b3d60"
down_revision = "91d4c6e07b2f"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = (
    Loss("console_actions"),
    Loss("console_people"),
)


def upgrade() -> None:
    """Create `console_actions`, `console_people` and `console_sessions`, empty."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    _create_actions()
    for statement in CREATE_GUARD:
        op.execute(statement)
    op.create_table(
        "console_people",
        sa.Column("person_id", sa.Uuid(), nullable=False),
        sa.Column("issuer", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        _created_at(),
        sa.Column("signed_in_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("person_id", name=op.f("pk_console_people")),
    )
    op.create_table(
        "console_sessions",
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("person_id", sa.Uuid(), nullable=False),
        sa.Column("roles", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("is_link", sa.Boolean(), nullable=False),
        _created_at(),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "octet_length(secret_hash) = 32",
            name=op.f("ck_console_sessions_secret_hash_is_sha256"),
        ),
        sa.CheckConstraint(
            "cardinality(roles) > 0 AND roles <@ '{viewer,support,finance,admin}'::text[]",
            name=op.f("ck_console_sessions_roles_are_known"),
        ),
        sa.CheckConstraint(
            "expires_at > created_at", name=op.f("ck_console_sessions_expires_later")
        ),
        sa.PrimaryKeyConstraint("secret_hash", name=op.f("pk_console_sessions")),
    )


def _create_actions() -> None:
    op.create_table(
        "console_actions",
        sa.Column("action_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        _created_at(),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("target", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("before", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.Column("after", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.Column("form_key", sa.Uuid(), nullable=True),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.CheckConstraint(
            "actor LIKE 'user:_%'", name=op.f("ck_console_actions_actor_is_a_person")
        ),
        sa.CheckConstraint("action <> ''", name=op.f("ck_console_actions_action_not_empty")),
        sa.CheckConstraint(
            "length(reason) BETWEEN 1 AND 500", name=op.f("ck_console_actions_reason_length")
        ),
        sa.CheckConstraint(
            "position('@' in concat(actor, target, reason, before::text, after::text)) = 0",
            name=op.f("ck_console_actions_names_no_address"),
        ),
        sa.PrimaryKeyConstraint("action_id", name=op.f("pk_console_actions")),
        sa.UniqueConstraint("form_key", name=op.f("uq_console_actions_form_key")),
    )
    op.create_index("ix_console_actions_user_id", "console_actions", ["user_id", "action_id"])
    op.create_index("ix_console_actions_actor", "console_actions", ["actor", "action_id"])


def _created_at() -> sa.Column[object]:
    return sa.Column(
        "created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
    )


def downgrade() -> None:
    """Undo. Everybody signs in again after the next upgrade."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_table("console_sessions")
    op.drop_table("console_people")
    op.drop_table("console_actions")
    op.execute("-- squawk-ignore ban-drop-function\nDROP FUNCTION console_actions_kept()")
