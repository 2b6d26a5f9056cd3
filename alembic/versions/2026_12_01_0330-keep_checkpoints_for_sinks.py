"""Keep checkpoints over all users until every sink has them.

Revision ID: b7e4c19d5f30
Revises: 5a1c7e0b93d4
Create Date: 2026-12-01 03:30:00+00:00
"""

# pyright: reportUnknownArgumentType=false
import sqlalchemy as sa
from alembic import op

from src.common.postgres.migrations import Loss

revision = "b7e4c19d5f30"
down_revision = "5a1c7e0b93d4"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = (
    Loss("anchor_checkpoints"),
    Loss("anchor_parts"),
    Loss("anchor_sinks"),
    Loss("anchored_users"),
)


def upgrade() -> None:
    """Create the tables of anchors, empty."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.create_table(
        "anchor_checkpoints",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("checkpoint_hash", sa.LargeBinary(), nullable=False),
        sa.Column("is_complete", sa.Boolean(), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("number >= 1", name=op.f("ck_anchor_checkpoints_number_positive")),
        sa.CheckConstraint(
            "octet_length(checkpoint_hash) = 32", name=op.f("ck_anchor_checkpoints_hash_length")
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_anchor_checkpoints")),
    )
    op.create_table(
        "anchor_parts",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("part", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("leaves", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint(
            "octet_length(leaves) > 0 AND octet_length(leaves) % 56 = 0",
            name=op.f("ck_anchor_parts_whole_leaves"),
        ),
        sa.ForeignKeyConstraint(
            ["number"],
            ["anchor_checkpoints.number"],
            name=op.f("fk_anchor_parts_number_anchor_checkpoints"),
        ),
        sa.PrimaryKeyConstraint("number", "part", name=op.f("pk_anchor_parts")),
    )
    op.create_table(
        "anchored_users",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("last_hash", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("version >= 0", name=op.f("ck_anchored_users_version_not_negative")),
        sa.CheckConstraint(
            "octet_length(last_hash) = 32", name=op.f("ck_anchored_users_hash_length")
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_anchored_users")),
    )
    _create_what_workers_know()


def _create_what_workers_know() -> None:
    now = sa.text("now()")
    op.create_table(
        "anchor_sinks",
        sa.Column("sink", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=True),
        sa.Column("looked_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column("problem", sa.String(), nullable=True),
        sa.Column("explanation", sa.String(), nullable=True),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "next_attempt_at", sa.DateTime(timezone=True), server_default=now, nullable=False
        ),
        sa.CheckConstraint("number >= 1", name=op.f("ck_anchor_sinks_number_positive")),
        sa.CheckConstraint("failures >= 0", name=op.f("ck_anchor_sinks_failures_not_negative")),
        sa.CheckConstraint(
            "problem = ANY ('{unavailable,shortened,unknown_checkpoint,gap}'::text[])",
            name=op.f("ck_anchor_sinks_problem"),
        ),
        sa.CheckConstraint(
            "(problem IS NULL) = (explanation IS NULL)",
            name=op.f("ck_anchor_sinks_problem_is_explained"),
        ),
        sa.PrimaryKeyConstraint("sink", name=op.f("pk_anchor_sinks")),
    )
    op.create_table(
        "anchor_turns",
        sa.Column(
            "turn_id",
            sa.SmallInteger(),
            server_default=sa.text("1"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("holder", sa.Uuid(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column("attempted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("was_blocked", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("contradiction", sa.String(), nullable=True),
        sa.CheckConstraint("turn_id = 1", name=op.f("ck_anchor_turns_one_row")),
        sa.PrimaryKeyConstraint("turn_id", name=op.f("pk_anchor_turns")),
    )


def downgrade() -> None:
    """Undo."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for table in (
        *("anchor_turns", "anchor_sinks", "anchored_users"),
        *("anchor_parts", "anchor_checkpoints"),
    ):
        op.drop_table(table)
