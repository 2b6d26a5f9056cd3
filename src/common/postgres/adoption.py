"""`flashslides db adopt`: takes over a database that the document's `create_all` made.

It brings `users` and `transactions` to what the first migration makes, without losing a row, while
the database is in use: every step is a statement of its own that holds its lock for a moment, or
keeps nobody out. Killed at any point it is run again. One constraint is left to the import of the
balances: that none is negative (decision 0010).
"""

from collections.abc import Callable

from alembic import command
from sqlalchemy import Connection, text

from src.common.exceptions import SettingsError
from src.common.postgres.migrations import alembic_config, current_revision

FIRST_REVISION = "c6134a1d3b72"
BATCH_SIZE = 1_000

_OBSTACLES = {
    "two e-mails differ in nothing but case": """
        SELECT min(user_id::text) FROM users GROUP BY lower(email) HAVING count(*) > 1""",
    "an e-mail has no @, or is longer than 320 characters": """
        SELECT user_id::text FROM users WHERE position('@' in email) <= 1 OR length(email) > 320""",
    "a password hash is empty": "SELECT user_id::text FROM users WHERE password_hash = ''",
    "preferences are no JSON object, or their company is longer than 500 characters": """
        SELECT user_id::text FROM users WHERE jsonb_typeof(preferences) NOT IN ('object', 'null')
        OR length(preferences ->> 'company') > 500""",
    "a balance is below -2147483647": """
        SELECT user_id::text FROM users WHERE credits_balance < -2147483647""",
    "a purchase has no credits, a negative price or an empty Stripe session": """
        SELECT transaction_id::text FROM transactions
        WHERE credits_added <= 0 OR amount_paid_cents < 0 OR stripe_session_id = ''""",
}
"""What our constraints refuse and nobody but its owner can mend."""

_RENAMED = (
    ("users", "p", "pk_users"),
    ("transactions", "p", "pk_transactions"),
    ("transactions", "u", "uq_transactions_stripe_session_id"),
    ("transactions", "f", "fk_transactions_user_id_users"),
)
_RENAMED_INDEXES = {
    # As the document's "JSONB Query Performance" names them.
    "idx_preferences": "ix_users_preferences",
    "idx_company": "ix_users_company",
}
_COLUMNS = (
    ("users", "credits_version integer DEFAULT 0 NOT NULL"),
    ("users", "erased_at timestamptz"),
    ("transactions", "payment_intent_id varchar"),
    ("transactions", "invoice_id varchar"),
    ("transactions", "currency varchar DEFAULT 'usd' NOT NULL"),
    ("transactions", "livemode boolean"),
    ("transactions", "refunded_cents integer DEFAULT 0 NOT NULL"),
    ("transactions", "disputed_cents integer DEFAULT 0 NOT NULL"),
)
_DEFAULTS = (
    ("users", "user_id", "gen_random_uuid()"),
    ("users", "credits_balance", "0"),
    ("users", "preferences", "'{}'::jsonb"),
    ("users", "user_type", "'individual'"),
    ("users", "is_active", "true"),
    ("users", "created_at", "now()"),
    ("transactions", "transaction_id", "gen_random_uuid()"),
    ("transactions", "created_at", "now()"),
)
_REQUIRED = (
    ("users", "user_id", "user_type", "'individual'"),
    ("users", "user_id", "is_active", "true"),
    ("users", "user_id", "created_at", "now()"),
    ("transactions", "transaction_id", "created_at", "now()"),
)
_CHECKS = (
    ("users", "preferences_is_object", "jsonb_typeof(preferences) = 'object'"),
    ("users", "company_length", "length(preferences ->> 'company') <= 500"),
    ("users", "password_hash_not_empty", "password_hash <> ''"),
    ("users", "email_has_at_sign", "position('@' in email) > 1"),
    ("users", "email_length", "length(email) <= 320"),
    ("users", "credits_version_not_negative", "credits_version >= 0"),
    ("users", "erased_is_inactive", "erased_at IS NULL OR NOT is_active"),
    ("transactions", "currency_is_iso_4217", "currency ~ '^[a-z]{3}$'"),
    ("transactions", "stripe_session_id_not_empty", "stripe_session_id <> ''"),
    ("transactions", "amount_paid_cents_not_negative", "amount_paid_cents >= 0"),
    ("transactions", "credits_added_positive", "credits_added > 0"),
    ("transactions", "disputed_cents_not_negative", "disputed_cents >= 0"),
    ("transactions", "refunded_cents_not_negative", "refunded_cents >= 0"),
)
_INDEXES = (
    ("", "ix_users_company", "users ((preferences ->> 'company'))"),
    ("", "ix_users_preferences", "users USING gin (preferences)"),
    ("UNIQUE", "ix_users_email", "users (email)"),
    ("UNIQUE", "ix_users_stripe_customer_id", "users (stripe_customer_id)"),
    ("UNIQUE", "uq_users_email_lower", "users (lower(email))"),
    ("", "ix_transactions_user_id", "transactions (user_id)"),
    (
        "",
        "ix_transactions_user_id_created_at",
        "transactions (user_id, created_at DESC, transaction_id DESC)",
    ),
    ("UNIQUE", "uq_transactions_payment_intent_id", "transactions (payment_intent_id)"),
    ("UNIQUE", "uq_transactions_invoice_id", "transactions (invoice_id)"),
)


def adopt(connection: Connection, say: Callable[[str], None]) -> None:
    """Bring the document's two tables to the first revision; `say` is told each step.

    Raises:
        SettingsError: it has a revision already, is not the document's, or holds rows that our
            schema refuses; nothing was changed.
    """
    connection.execution_options(isolation_level="AUTOCOMMIT")
    _check(connection)
    _run(connection, "SET lock_timeout = '3s'")
    for step in (_rename, _add_columns, _fill, _add_checks, _add_indexes):
        say((step.__doc__ or "").rstrip("."))
        step(connection)
    command.stamp(alembic_config(connection), FIRST_REVISION)


def _check(connection: Connection) -> None:
    found = current_revision(connection)
    if found is not None:
        raise SettingsError(f"The database is ours already, at revision {found}: run `db upgrade`")
    for table in ("users", "transactions"):
        if _scalar(connection, f"SELECT to_regclass('{table}')") is None:
            raise SettingsError(f"There is no table {table}: adopt takes over the document's two")
    if _scalar(connection, _TYPE_OF_USER_TYPE) is None:
        raise SettingsError(
            "users.user_type is no enum of admin, member, guest and individual: make it one first "
            "(CREATE TYPE user_type AS ENUM …; ALTER TABLE users ALTER user_type TYPE user_type "
            "USING user_type::user_type), which rewrites the table"
        )
    for problem, rows in _OBSTACLES.items():
        first = _scalar(connection, f"{rows} LIMIT 1")
        if first is not None:
            raise SettingsError(f"{problem[0].upper()}{problem[1:]}: {first}; nothing was changed")


_TYPE_OF_USER_TYPE = """
SELECT typname FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
WHERE attrelid = 'users'::regclass AND attname = 'user_type' AND (
    SELECT array_agg(enumlabel::text ORDER BY enumsortorder) FROM pg_enum
    WHERE enumtypid = pg_type.oid) = '{admin,member,guest,individual}'"""


def _rename(connection: Connection) -> None:
    """Names as our conventions want them."""
    enum = _scalar(connection, _TYPE_OF_USER_TYPE)
    if enum != "user_type":
        _run(connection, f'ALTER TYPE "{enum}" RENAME TO user_type')
    for table, kind, name in _RENAMED:
        found = _scalar(
            connection,
            f"SELECT conname FROM pg_constraint WHERE conrelid = '{table}'::regclass"  # noqa: S608  our own names
            f" AND contype = '{kind}' ORDER BY conname <> '{name}' LIMIT 1",
        )
        if found != name:
            _run(connection, f'ALTER TABLE {table} RENAME CONSTRAINT "{found}" TO {name}')
    for old, new in _RENAMED_INDEXES.items():
        if not _exists(connection, new):
            _run(connection, f"ALTER INDEX IF EXISTS {old} RENAME TO {new}")


def _add_columns(connection: Connection) -> None:
    """Columns and defaults, without writing a row."""
    for table, column in _COLUMNS:
        _run(connection, f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column}")
    for table, column, value in _DEFAULTS:
        _run(connection, f"ALTER TABLE {table} ALTER {column} SET DEFAULT {value}")


def _fill(connection: Connection) -> None:
    """What is missing in the rows there are, in batches."""
    for table, key, column, value in _REQUIRED:
        _fill_where(connection, table, key, f"{column} = {value}", f"{column} IS NULL")
        name = f"ck_{table}_{column}_is_there"
        _add_check(connection, table, name, f"{column} IS NOT NULL")
        _run(connection, f"ALTER TABLE {table} ALTER {column} SET NOT NULL")
        _run(connection, f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    # The document's column stores an assigned None as JSON's null.
    _fill_where(
        connection, "users", "user_id", "preferences = NULL", "jsonb_typeof(preferences) = 'null'"
    )


def _add_checks(connection: Connection) -> None:
    """Constraints: for new rows at once, then for those there are."""
    for table, name, condition in _CHECKS:
        _add_check(connection, table, f"ck_{table}_{name}", condition)


def _add_indexes(connection: Connection) -> None:
    """Indexes, while others read and write."""
    for unique, name, definition in _INDEXES:
        if _scalar(
            connection,
            f"SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass('{name}')",  # noqa: S608  our own names
        ):
            _run(connection, f"DROP INDEX CONCURRENTLY {name}")  # of a build that failed
        if not _exists(connection, name):
            _run(connection, f"CREATE {unique} INDEX CONCURRENTLY {name} ON {definition}")
    for name in ("uq_transactions_payment_intent_id", "uq_transactions_invoice_id"):
        if not _has_constraint(connection, name):
            _run(
                connection,
                f"ALTER TABLE transactions ADD CONSTRAINT {name} UNIQUE USING INDEX {name}",
            )


def _add_check(connection: Connection, table: str, name: str, condition: str) -> None:
    if not _has_constraint(connection, name):
        _run(connection, f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({condition}) NOT VALID")
    _run(connection, f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")


def _fill_where(
    connection: Connection, table: str, key: str, assignment: str, condition: str
) -> None:
    statement = text(
        f"UPDATE {table} SET {assignment} WHERE {key} IN (SELECT {key} FROM {table}"  # noqa: S608  our own names
        f" WHERE {condition} ORDER BY {key} LIMIT {BATCH_SIZE} FOR NO KEY UPDATE)"
    )
    while connection.execute(statement).rowcount:
        pass


def _exists(connection: Connection, relation: str) -> bool:
    return _scalar(connection, f"SELECT to_regclass('{relation}')") is not None


def _has_constraint(connection: Connection, name: str) -> bool:
    return _scalar(connection, f"SELECT 1 FROM pg_constraint WHERE conname = '{name}'") is not None  # noqa: S608  our own names


def _scalar(connection: Connection, statement: str) -> object:
    return connection.execute(text(statement)).scalar()


def _run(connection: Connection, statement: str) -> None:
    connection.execute(text(statement))
