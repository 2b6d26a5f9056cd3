"""Write notices of what happens to credits and purchases (decision 0063).

Revision ID: b4d90f6e21c8
Revises: c40b9e6f21d8
Create Date: 2026-12-01 02:47:00+00:00
"""

# pyright: reportUnknownArgumentType=false
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from src.common.models.notice_triggers import CREATE_TRIGGERS, DROP_TRIGGERS
from src.common.postgres.migrations import Loss

revision = "b4d90f6e21c8"
down_revision = "c40b9e6f21d8"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = (
    Loss("credit_notices"),
    Loss("notice_endpoints"),
    Loss("notice_secrets"),
    Loss("notice_endpoints", what="the triggers that write notices, for the rows"),
)

_TYPES = (
    "'{credits.granted,credits.spent,credits.low,credits.exhausted,credits.expiring,"
    "credits.reversed,credits.debt_opened,credits.debt_settled,purchase.credited,"
    "purchase.refunded,purchase.disputed,hold.expired}'::text[]"
)


def upgrade() -> None:
    """Create the outbox, its endpoints and secrets, empty, and the triggers that write notices."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    _create_notices()
    _create_endpoints()
    for statement in CREATE_TRIGGERS:
        op.execute(statement)


def _create_notices() -> None:
    op.create_table(
        "credit_notices",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=True),
        sa.Column("data", postgresql.JSONB(), nullable=False),
        _instant("created_at", "clock_timestamp()", nullable=False),
        sa.Column("status", sa.String(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        _instant("next_attempt_at", "clock_timestamp()"),
        _instant("lease_expires_at"),
        sa.Column("response_status", sa.Integer(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        _instant("finished_at"),
        _check("credit_notices", "type", f"type = ANY ({_TYPES})"),
        _check(*("credit_notices", "status"), "status = ANY ('{pending,delivered,dead}'::text[])"),
        _check("credit_notices", "data_is_object", "jsonb_typeof(data) = 'object'"),
        _check("credit_notices", "attempts_not_negative", "attempts >= 0"),
        _check(
            *("credit_notices", "finished_or_tried_again"),
            "(status = 'pending') = (finished_at IS NULL)"
            " AND (status = 'pending') = (next_attempt_at IS NOT NULL)",
        ),
        sa.PrimaryKeyConstraint("user_id", "number", name=op.f("pk_credit_notices")),
    )
    op.create_index("ix_credit_notices_number", "credit_notices", ["number"], unique=True)
    op.create_index(
        "ix_credit_notices_pending",
        "credit_notices",
        ["endpoint_id", "number"],
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "ix_credit_notices_finished_at",
        "credit_notices",
        ["finished_at"],
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index(
        "uq_credit_notices_expiring",
        "credit_notices",
        ["endpoint_id", "user_id", "seq"],
        unique=True,
        postgresql_where=sa.text("type = 'credits.expiring'"),
    )


def _create_endpoints() -> None:
    op.create_table(
        "notice_endpoints",
        _id("endpoint_id"),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("types", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("low_threshold", sa.Integer(), nullable=True),
        sa.Column("expiring_lead_seconds", sa.BigInteger(), nullable=True),
        _instant("disabled_at"),
        sa.Column("disabled_reason", sa.String(), nullable=True),
        _instant("created_at", "now()", nullable=False),
        _instant("updated_at"),
        _check("notice_endpoints", "url_length", "length(url) BETWEEN 1 AND 2000"),
        _check(
            *("notice_endpoints", "types_are_known"),
            f"cardinality(types) > 0 AND types <@ {_TYPES}",
        ),
        _check("notice_endpoints", "low_threshold_positive", "low_threshold > 0"),
        _check(
            *("notice_endpoints", "low_has_threshold"),
            "(low_threshold IS NOT NULL) = ('credits.low' = ANY (types))",
        ),
        _check(
            *("notice_endpoints", "expiring_lead_bounds"),
            "expiring_lead_seconds BETWEEN 1 AND 31622400",
        ),
        _check(
            *("notice_endpoints", "expiring_has_lead"),
            "(expiring_lead_seconds IS NOT NULL) = ('credits.expiring' = ANY (types))",
        ),
        _check(
            *("notice_endpoints", "disabled_says_why"),
            "(disabled_at IS NULL) = (disabled_reason IS NULL)",
        ),
        sa.PrimaryKeyConstraint("endpoint_id", name=op.f("pk_notice_endpoints")),
    )
    op.create_table(
        "notice_secrets",
        _id("secret_id"),
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        _instant("created_at", "now()", nullable=False),
        _instant("expires_at"),
        _check("notice_secrets", "secret_length", "octet_length(secret) BETWEEN 24 AND 64"),
        sa.ForeignKeyConstraint(
            ["endpoint_id"],
            ["notice_endpoints.endpoint_id"],
            name=op.f("fk_notice_secrets_endpoint_id_notice_endpoints"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("secret_id", name=op.f("pk_notice_secrets")),
    )
    op.create_index("ix_notice_secrets_endpoint_id", "notice_secrets", ["endpoint_id"])


def _id(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False)


def _instant(name: str, default: str | None = None, *, nullable: bool = True) -> sa.Column[object]:
    made = None if default is None else sa.text(default)
    return sa.Column(name, sa.DateTime(timezone=True), server_default=made, nullable=nullable)


def _check(table: str, name: str, condition: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(condition, name=op.f(f"ck_{table}_{name}"))


def downgrade() -> None:
    """Undo: nothing is told any more."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for statement in DROP_TRIGGERS:
        op.execute(statement)
    op.drop_table("notice_secrets")
    op.drop_table("notice_endpoints")
    op.drop_table("credit_notices")
