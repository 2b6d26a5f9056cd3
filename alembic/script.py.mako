"""${message}.

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}
Create Date: ${create_date}

Read `docs/how-to/change-the-schema.md` before you edit this. In short:

- The release before this one runs against the new schema while we deploy: expand first, backfill
  by a command in batches, enforce in a later migration.
- Locks are taken for moments only: indexes with `postgresql_concurrently=True` inside
  `op.get_context().autocommit_block()`, constraints `postgresql_not_valid=True` and validated
  afterwards, no rewrite of a large table.
- `downgrade` undoes `upgrade` exactly, types included (`DROP TYPE`), in one database transaction. What
  it drops that people, payments or the ledger put there stands in `LOST_BY_DOWNGRADE`: `Loss("table")`,
  or `Loss("table", "column IS NOT NULL", what="column")`. Whoever goes down is asked first.
- `TABLES_OF` says whether the tables are of users, which each group has, or everybody's. A migration of both is two.
"""

# pyright: reportUnknownArgumentType=false
import sqlalchemy as sa
from alembic import op

from src.common.postgres.migrations import Loss
from src.common.postgres.sides import Side
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}

TABLES_OF = Side.USERS
LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()


def upgrade() -> None:
    """${message}."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Undo: ${message}."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    ${downgrades if downgrades else "pass"}
