"""Check the journal's references set by set too: by triggers, in place of three foreign keys.

Revision ID: 1f7c9e2b4d83
Revises: 8c4f6a2d1e93
Create Date: 2026-11-27 22:05:00+00:00
"""

from types import ModuleType

from alembic import context, op

from src.common.postgres.migrations import Loss

revision = "1f7c9e2b4d83"
down_revision = "8c4f6a2d1e93"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()

_FUNCTIONS = (
    """
CREATE OR REPLACE FUNCTION credit_ledger_unbalanced(problem text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = 'P0001',
    MESSAGE = 'LEDGER_UNBALANCED: ' || problem,
    HINT = 'change credits with src.common.credits, or by assigning credits_balance on a '
      'loaded User';
END $$
""",
    """
CREATE OR REPLACE FUNCTION credit_ledger_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM credit_ledger_unbalanced(
    tg_op || ' on ' || tg_table_name || ' is refused: the ledger is append-only');
  RETURN NULL;
END $$
""",
    # Looked up by scalar subqueries: no planner turns them into a scan of the whole table. And not
    # by a bitmap, which visits every lot that was closed since the last vacuum.
    """
CREATE OR REPLACE FUNCTION credit_users_balanced() RETURNS trigger LANGUAGE plpgsql
SET enable_bitmapscan = off AS $$
DECLARE
  wrong record;
BEGIN
  SELECT a.user_id, a.credits_balance, a.credits_version INTO wrong
  FROM before b JOIN after a ON a.user_id = b.user_id
  WHERE a.credits_version <> b.credits_version
    AND (a.credits_version < b.credits_version
      OR a.credits_balance IS DISTINCT FROM (SELECT e.balance_after FROM credit_entries e
        WHERE e.user_id = a.user_id AND e.seq = a.credits_version)
      OR a.credits_balance <> (SELECT coalesce(sum(l.remaining), 0) FROM credit_lots l
        WHERE l.user_id = a.user_id AND l.is_open))
  LIMIT 1;
  IF found THEN
    PERFORM credit_ledger_unbalanced(format(
      'user %s has credits_balance %s at version %s, which entries and lots do not say',
      wrong.user_id, wrong.credits_balance, wrong.credits_version));
  END IF;
  RETURN NULL;
END $$
""",
    """
CREATE OR REPLACE FUNCTION credit_users_booked() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  booked record;
BEGIN
  SELECT u.credits_balance AS balance, u.credits_version AS version,
    (SELECT e.balance_after FROM credit_entries e
      WHERE e.user_id = u.user_id AND e.seq = u.credits_version) AS last_balance
  INTO booked FROM users u WHERE u.user_id = new.user_id;
  IF booked.balance <> coalesce(booked.last_balance, 0)
    OR (booked.version > 0 AND booked.last_balance IS NULL)
  THEN
    PERFORM credit_ledger_unbalanced(format(
      'user %s has credits_balance %s at version %s, its last entry says %s',
      new.user_id, booked.balance, booked.version, booked.last_balance));
  END IF;
  RETURN NULL;
END $$
""",
    """
CREATE OR REPLACE FUNCTION credit_entries_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  wrong record;
BEGIN
  SELECT a.user_id, a.seq INTO wrong
  FROM added a LEFT JOIN LATERAL (SELECT e.seq, e.balance_after, e.effective_at
    FROM credit_entries e WHERE e.user_id = a.user_id AND e.seq = a.seq - 1 LIMIT 1) e ON true
  WHERE NOT coalesce(a.seq <= (SELECT u.credits_version FROM users u
      WHERE u.user_id = a.user_id), false)
    OR (a.seq > 1 AND e.seq IS NULL)
    OR a.balance_after <> coalesce(e.balance_after, 0) + a.amount
    OR a.effective_at < e.effective_at
    OR (a.amount <> 0 AND NOT EXISTS (SELECT FROM credit_postings p
      WHERE p.user_id = a.user_id AND p.seq = a.seq OFFSET 0))
  LIMIT 1;
  IF found THEN
    PERFORM credit_ledger_unbalanced(format(
      'entry %s of user %s does not follow from the one before it, or has no postings, or the '
      'user is missing or stays behind it', wrong.seq, wrong.user_id));
  END IF;
  RETURN NULL;
END $$
""",
    # The last line of each lot is what the lot now holds: none is added to an older entry.
    """
CREATE OR REPLACE FUNCTION credit_postings_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  wrong record;
BEGIN
  SELECT s.user_id, s.seq, s.lot_seq INTO wrong
  FROM (SELECT a.*, lag(a.remaining_after) OVER lot AS before, lead(a.seq) OVER lot AS next,
      row_number() OVER entry AS line
    FROM added a WINDOW lot AS (PARTITION BY a.user_id, a.lot_seq ORDER BY a.seq),
      entry AS (PARTITION BY a.user_id, a.seq)) s
  WHERE s.before + s.amount <> s.remaining_after
    OR (s.line = 1 AND (SELECT sum(p.amount) FROM credit_postings p
        WHERE p.user_id = s.user_id AND p.seq = s.seq)
      IS DISTINCT FROM (SELECT e.amount FROM credit_entries e
        WHERE e.user_id = s.user_id AND e.seq = s.seq))
    OR (s.next IS NULL AND NOT coalesce((SELECT (l.last_seq, l.remaining)
        = (s.seq, s.remaining_after) FROM credit_lots l
      WHERE l.user_id = s.user_id AND l.seq = s.lot_seq), false))
  LIMIT 1;
  IF found THEN
    PERFORM credit_ledger_unbalanced(format('posting (%s, %s) of user %s agrees neither with '
      'its lot nor its entry', wrong.seq, wrong.lot_seq, wrong.user_id));
  END IF;
  RETURN NULL;
END $$
""",
    """
CREATE OR REPLACE FUNCTION credit_lots_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  wrong record;
BEGIN
  SELECT a.user_id, a.seq, a.remaining, a.last_seq INTO wrong FROM after a
  WHERE a.remaining IS DISTINCT FROM (SELECT p.remaining_after FROM credit_postings p
      WHERE p.user_id = a.user_id AND p.seq = a.last_seq AND p.lot_seq = a.seq)
    OR (tg_op = 'INSERT' AND a.granted IS DISTINCT FROM (SELECT p.amount FROM credit_postings p
      WHERE p.user_id = a.user_id AND p.seq = a.seq AND p.lot_seq = a.seq))
  LIMIT 1;
  IF found THEN
    PERFORM credit_ledger_unbalanced(format(
      'lot %s of user %s holds %s, which its postings %s and %s do not say',
      wrong.seq, wrong.user_id, wrong.remaining, wrong.seq, wrong.last_seq));
  END IF;
  RETURN NULL;
END $$
""",
    """
CREATE OR REPLACE FUNCTION credit_users_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM credit_ledger_unbalanced(
    tg_op || ' on users is refused: those who have entries stay as long as their books');
  RETURN NULL;
END $$
""",
    """
CREATE OR REPLACE FUNCTION credit_lots_fixed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM credit_ledger_unbalanced(format(
    'lot %s of user %s: only what remains changes, by a new posting', old.seq, old.user_id));
  RETURN NULL;
END $$
""",
)

_APPEND_ONLY = tuple(
    f"CREATE TRIGGER {table}_append_only BEFORE {operations} ON {table}"
    " FOR EACH STATEMENT EXECUTE FUNCTION credit_ledger_append_only()"
    for table, operations in (
        ("credit_entries", "UPDATE OR DELETE OR TRUNCATE"),
        ("credit_postings", "UPDATE OR DELETE OR TRUNCATE"),
        ("credit_lots", "DELETE OR TRUNCATE"),
    )
)

_AT_ONCE = tuple(
    f"CREATE TRIGGER {name} AFTER {operation} ON {table} REFERENCING {rows}"
    f" FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
    for name, operation, table, rows, function in (
        (
            "users_balanced",
            "UPDATE",
            "users",
            "OLD TABLE AS before NEW TABLE AS after",
            "credit_users_balanced",
        ),
        (
            "credit_entries_balanced",
            "INSERT",
            "credit_entries",
            "NEW TABLE AS added",
            "credit_entries_balanced",
        ),
        (
            "credit_postings_balanced",
            "INSERT",
            "credit_postings",
            "NEW TABLE AS added",
            "credit_postings_balanced",
        ),
        (
            "credit_lots_balanced_new",
            "INSERT",
            "credit_lots",
            "NEW TABLE AS after",
            "credit_lots_balanced",
        ),
        (
            "credit_lots_balanced",
            "UPDATE",
            "credit_lots",
            "NEW TABLE AS after",
            "credit_lots_balanced",
        ),
    )
)

_HAS_BOOKS = (
    "old.credits_version > 0 OR new.credits_version > 0"
    " OR new.credits_balance <> old.credits_balance"
)
# In place of a foreign key from every entry. An entry cannot be added meanwhile: its statement has
# to raise the user's version, and so waits for the row.
_KEPT = tuple(
    f"CREATE TRIGGER {name} BEFORE {operation} ON users FOR EACH {scope}"
    " EXECUTE FUNCTION credit_users_kept()"
    for name, operation, scope in (
        ("users_kept", "DELETE", "ROW WHEN (old.credits_version > 0)"),
        (
            "users_renumbered",
            "UPDATE OF user_id",
            f"ROW WHEN (new.user_id <> old.user_id AND ({_HAS_BOOKS}))",
        ),
        ("users_emptied", "TRUNCATE", "STATEMENT"),
    )
)

_UNBOOKED = (
    "new.credits_balance <> old.credits_balance AND new.credits_version = old.credits_version"
)
_AT_COMMIT = tuple(
    f"CREATE CONSTRAINT TRIGGER {name} AFTER {operation} ON users"
    f" DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ({condition})"
    " EXECUTE FUNCTION credit_users_booked()"
    for name, operation, condition in (
        ("users_booked_new", "INSERT", "new.credits_balance <> 0 OR new.credits_version <> 0"),
        (
            "users_booked",
            "UPDATE OF credits_balance",
            _UNBOOKED,
        ),
    )
)

# The first of them is not even looked at where only what remains changes.
_FIXED = (
    """
CREATE TRIGGER credit_lots_fixed
  BEFORE UPDATE OF user_id, seq, source, priority, granted, expires_at, transaction_id
  ON credit_lots FOR EACH ROW
  WHEN ((new.user_id, new.seq, new.source, new.priority, new.granted)
      <> (old.user_id, old.seq, old.source, old.priority, old.granted)
    OR new.expires_at IS DISTINCT FROM old.expires_at
    OR new.transaction_id IS DISTINCT FROM old.transaction_id)
  EXECUTE FUNCTION credit_lots_fixed()
""",
    """
CREATE TRIGGER credit_lots_moved_on BEFORE UPDATE ON credit_lots FOR EACH ROW
  WHEN (new.last_seq <= old.last_seq
    AND (new.last_seq, new.remaining) <> (old.last_seq, old.remaining))
  EXECUTE FUNCTION credit_lots_fixed()
""",
)

_FUNCTION_NAMES = (
    "credit_lots_fixed",
    "credit_users_kept",
    "credit_lots_balanced",
    "credit_postings_balanced",
    "credit_entries_balanced",
    "credit_users_booked",
    "credit_users_balanced",
    "credit_ledger_append_only",
    "credit_ledger_unbalanced",
)

# Whatever the session's search_path is: no table of another schema is taken for one of ours, and a
# temporary one, which would come first, least of all.
_LOOK_HERE = f"""
DO $$ BEGIN
  EXECUTE (SELECT string_agg(format('ALTER FUNCTION %s SET search_path = %I, pg_temp',
      oid::regprocedure, current_schema()), '; ')
    FROM pg_proc WHERE pronamespace = current_schema()::regnamespace
      AND proname IN ({", ".join(f"'{name}'" for name in _FUNCTION_NAMES)}));
END $$
"""  # noqa: S608  our own names

CREATE_TRIGGERS = tuple(
    statement.strip()
    for statement in (
        *_FUNCTIONS,
        _LOOK_HERE,
        *_APPEND_ONLY,
        *_AT_ONCE,
        *_KEPT,
        *_AT_COMMIT,
        *_FIXED,
    )
)
"""Every function and trigger, in the order in which they can be made."""

DROP_TRIGGERS = (
    *(
        f"DROP TRIGGER {name} ON {table}"
        for name, table in (
            ("users_balanced", "users"),
            ("users_kept", "users"),
            ("users_renumbered", "users"),
            ("users_emptied", "users"),
            ("users_booked_new", "users"),
            ("users_booked", "users"),
            ("credit_entries_append_only", "credit_entries"),
            ("credit_entries_balanced", "credit_entries"),
            ("credit_postings_append_only", "credit_postings"),
            ("credit_postings_balanced", "credit_postings"),
            ("credit_lots_append_only", "credit_lots"),
            ("credit_lots_balanced_new", "credit_lots"),
            ("credit_lots_balanced", "credit_lots"),
            ("credit_lots_fixed", "credit_lots"),
            ("credit_lots_moved_on", "credit_lots"),
        )
    ),
    *(f"-- squawk-ignore ban-drop-function\nDROP FUNCTION {name}" for name in _FUNCTION_NAMES),
)
"""The way back."""

_FOREIGN_KEYS = {
    "fk_credit_entries_user_id_users": ("credit_entries", "users", ["user_id"], ["user_id"]),
    "fk_credit_postings_user_id_seq_credit_entries": (
        *("credit_postings", "credit_entries"),
        *(["user_id", "seq"], ["user_id", "seq"]),
    ),
    "fk_credit_postings_user_id_lot_seq_credit_lots": (
        *("credit_postings", "credit_lots"),
        *(["user_id", "lot_seq"], ["user_id", "seq"]),
    ),
}


def upgrade() -> None:
    """Have the triggers refuse what the foreign keys refused (decision 0019)."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    _replace(_triggers_before().DROP_TRIGGERS, CREATE_TRIGGERS)
    for name, (table, *_) in _FOREIGN_KEYS.items():
        op.drop_constraint(name, table, type_="foreignkey")


def downgrade() -> None:
    """Undo: check the journal's references set by set. Nobody writes meanwhile."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = 0")  # as long as the tables are large
    _replace(DROP_TRIGGERS, _triggers_before().CREATE_TRIGGERS)
    for name, foreign_key in _FOREIGN_KEYS.items():
        op.create_foreign_key(name, *foreign_key)


def _replace(lower: tuple[str, ...], raise_: tuple[str, ...]) -> None:
    for statement in (*lower, *raise_):
        op.execute(statement)


def _triggers_before() -> ModuleType:
    """The triggers as the migration that last made them has them."""
    return context.script.get_revision("7e1d4c2b9a58").module
