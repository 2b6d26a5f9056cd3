"""Divide users into groups: a directory of them, and what a group's schema has besides.

Revision ID: d8f3a6b20c17
Revises: b7e4c19d5f30
Create Date: 2026-12-01 07:00:00+00:00

In `public` it makes the directory, empty. In the schema of a group, which the migrations up to here
have made as they make `public`, it leaves the tables of users alone, and ties them to the directory
(decision 0066). Later migrations say whose tables they change (`TABLES_OF`).
"""

# pyright: reportUnknownArgumentType=false
import sqlalchemy as sa
from alembic import context, op

from src.common.postgres.migrations import Loss
from src.common.postgres.routes import is_group

revision = "d8f3a6b20c17"
down_revision = "b7e4c19d5f30"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = (
    Loss("payments_directory"),
    Loss("users_directory"),
    Loss("user_groups"),
)
_DIRECTORY, _PAYMENTS, _GROUPS = "users_directory", "payments_directory", "user_groups"
_EVERYBODYS = (
    *("anchor_checkpoints", "anchor_parts", "anchor_sinks", "anchor_turns", "anchored_users"),
    *("api_keys", "approvals", "console_actions", "console_people", "console_sessions"),
    *("credit_verifications", "notice_endpoint_states", "notice_endpoints"),
    *("notice_secrets", "reconciliations", "stripe_events", "unmatched_payments"),
    *("worker_failures", "worker_heartbeats"),
)
"""What a group's schema has no copy of: it would be found in the place of `public`'s."""

_LIST = ",".join(_EVERYBODYS)
_NAMES = "|".join(_EVERYBODYS)

# Executed where the group's schema is the only one that is seen; `@here` is its name.
_LEAVE_THE_USERS_TABLES = f"""
DO $leave$
DECLARE
  functions text;
  function record;
BEGIN
  SELECT string_agg(DISTINCT tgfoid::regprocedure::text, ', ') INTO functions
  FROM pg_trigger WHERE NOT tgisinternal AND tgrelid = ANY ('{{{_LIST}}}'::regclass[])
    AND tgfoid NOT IN (SELECT tgfoid FROM pg_trigger
      WHERE tgrelid <> ALL ('{{{_LIST}}}'::regclass[]));
  DROP TABLE {_LIST};
  EXECUTE coalesce('DROP FUNCTION ' || functions, 'SELECT');
  -- What is everybody's is looked up where it is.
  FOR function IN
    SELECT pg_get_functiondef(oid) AS definition FROM pg_proc
    WHERE pronamespace = current_schema()::regnamespace
      AND prosrc ~ '\\m@here\\.({_NAMES})\\M'
  LOOP
    EXECUTE regexp_replace(function.definition,
      '\\m@here\\.({_NAMES})\\M', 'public.\\1', 'g');
  END LOOP;
END $leave$"""  # noqa: S608  our own names

# One type for all groups: a statement that was prepared for one is planned anew for another, and
# its parameters keep their types.
_SHARE_THE_TYPE = (
    "ALTER TABLE users ALTER COLUMN user_type DROP DEFAULT",
    (
        "ALTER TABLE users ALTER COLUMN user_type"
        " TYPE public.user_type USING user_type::text::public.user_type"
    ),
    "ALTER TABLE users ALTER COLUMN user_type SET DEFAULT 'individual'",
    "DROP TYPE @here.user_type",
)
# All groups are one ledger: a user's chain of hashes begins alike wherever the user is.
_SHARE_THE_LEDGER = (
    "ALTER TABLE credit_ledgers DISABLE TRIGGER USER",
    "UPDATE credit_ledgers SET ledger_id = (SELECT ledger_id FROM public.credit_ledgers)",
    "ALTER TABLE credit_ledgers ENABLE TRIGGER USER",
)
_HOME = (
    (
        "ALTER TABLE users ADD COLUMN home text NOT NULL DEFAULT '@here'"
        " CONSTRAINT ck_users_home CHECK (home = '@here')"
    ),
    (
        "ALTER TABLE users ADD CONSTRAINT fk_users_user_id_users_directory"
        " FOREIGN KEY (user_id, home) REFERENCES public.users_directory (user_id, schema)"
        " DEFERRABLE INITIALLY DEFERRED"
    ),
)


def _guard(name: str, table: str, columns: str, problem: str, query: str) -> tuple[str, ...]:
    """At COMMIT, look at the row as it is then."""
    return (
        f"""
CREATE FUNCTION @here.{name}() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF EXISTS ({query}) THEN
    RAISE EXCEPTION USING ERRCODE = 'P0001', MESSAGE = 'DIRECTORY_DIFFERS: {problem}';
  END IF;
  RETURN NULL;
END $$""",
        (
            f"CREATE CONSTRAINT TRIGGER {name} AFTER INSERT OR UPDATE OF {columns} ON {table}"
            f" DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {name}()"
        ),
    )


_NAMED = """SELECT FROM @here.{table} t, unnest(ARRAY[{columns}]) AS named (object_id)
    WHERE t.{key} = new.{key} AND named.object_id IS NOT NULL AND NOT EXISTS (
      SELECT FROM public.payments_directory p
      WHERE p.object_id = named.object_id AND p.user_id = t.user_id)"""
_GUARDS = (
    *_guard(
        "users_in_directory",
        *("users", "user_id, email, stripe_customer_id"),
        "a user whom it does not have so",
        """SELECT FROM @here.users u LEFT JOIN public.users_directory d ON d.user_id = u.user_id
    WHERE u.user_id = new.user_id AND (d.email_lower IS DISTINCT FROM lower(u.email)
      OR d.stripe_customer_id IS DISTINCT FROM u.stripe_customer_id)""",
    ),
    *_guard(
        "transactions_in_directory",
        *("transactions", "user_id, stripe_session_id, payment_intent_id, invoice_id"),
        "a purchase whose payment is not its user''s there",
        _NAMED.format(
            table="transactions",
            key="transaction_id",
            columns="t.stripe_session_id, t.payment_intent_id, t.invoice_id",
        ),
    ),
    *_guard(
        "checkout_orders_in_directory",
        *("checkout_orders", "user_id, stripe_session_id"),
        "an order whose session is not its user''s there",
        _NAMED.format(table="checkout_orders", key="order_id", columns="t.stripe_session_id"),
    ),
)


_SHAPE = (
    *(_LEAVE_THE_USERS_TABLES, *_SHARE_THE_TYPE, *_SHARE_THE_LEDGER),
    *(*_HOME, *_GUARDS),
)


def upgrade() -> None:
    """Make the directory; in a group's schema, leave the users' tables, tied to it."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    if _here() is not None:
        _shape_group()
        return
    op.create_table(
        _GROUPS,
        sa.Column("schema", sa.String(), nullable=False),
        sa.Column("is_open", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("users_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("counted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "schema ~ '^g[0-9]{4,9}$'", name=op.f("ck_user_groups_schema_of_a_group")
        ),
        sa.CheckConstraint(
            "users_count >= 0", name=op.f("ck_user_groups_users_count_not_negative")
        ),
        sa.PrimaryKeyConstraint("schema", name=op.f("pk_user_groups")),
    )
    op.create_table(
        _DIRECTORY,
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("schema", sa.String(), nullable=False),
        sa.Column("email_lower", sa.String(), nullable=False),
        sa.Column("stripe_customer_id", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["schema"], ["user_groups.schema"], name=op.f("fk_users_directory_schema_user_groups")
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_users_directory")),
        sa.UniqueConstraint("email_lower", name=op.f("uq_users_directory_email_lower")),
        sa.UniqueConstraint(
            "stripe_customer_id", name=op.f("uq_users_directory_stripe_customer_id")
        ),
        sa.UniqueConstraint("user_id", "schema", name=op.f("uq_users_directory_user_id_schema")),
    )
    op.create_index(op.f("ix_users_directory_schema"), _DIRECTORY, ["schema"])
    op.create_table(
        _PAYMENTS,
        sa.Column("object_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint(
            "object_id <> ''", name=op.f("ck_payments_directory_object_id_not_empty")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users_directory.user_id"],
            name=op.f("fk_payments_directory_user_id_users_directory"),
        ),
        sa.PrimaryKeyConstraint("object_id", name=op.f("pk_payments_directory")),
    )
    op.create_index(op.f("ix_payments_directory_user_id"), _PAYMENTS, ["user_id"])


def downgrade() -> None:
    """Undo: without groups, the directory is of nobody. `env.py` refuses where there are any."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.drop_table(_PAYMENTS)
    op.drop_table(_DIRECTORY)
    op.drop_table(_GROUPS)


def _here() -> str | None:
    """The group whose schema this is, or None."""
    if context.is_offline_mode():
        return None
    here: str = op.get_bind().execute(sa.text("SELECT current_schema()::text")).scalar_one()
    return here if is_group(here) else None


def _shape_group() -> None:
    here = _here()
    for statement in _SHAPE:
        op.get_bind().exec_driver_sql(statement.replace("@here", str(here)))
