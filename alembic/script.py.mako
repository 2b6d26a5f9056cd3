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
- `downgrade` undoes `upgrade` exactly, types included (`DROP TYPE`), and refuses to drop what people
  or payments put there: `refuse_data_loss("table")`.
"""

# pyright: reportUnknownArgumentType=false
import sqlalchemy as sa
from alembic import op
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


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
