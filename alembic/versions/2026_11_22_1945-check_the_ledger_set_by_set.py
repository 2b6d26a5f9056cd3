"""Check the ledger set by set: the triggers look at a statement's rows together, at its end.

Revision ID: 7e1d4c2b9a58
Revises: 61d0c3b5a7e8
Create Date: 2026-11-22 19:45:00+00:00
"""

from types import ModuleType

from alembic import context, op

from src.common.postgres.migrations import Loss

revision = "7e1d4c2b9a58"
down_revision = "61d0c3b5a7e8"
branch_labels = None
depends_on = None

LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()

# The triggers as they were when this was the newest migration about them.
_FUNCTIONS = (
    """
CREATE FUNCTION credit_ledger_unbalanced(problem text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = 'P0001',
    MESSAGE = 'LEDGER_UNBALANCED: ' || problem,
    HINT = 'change credits with src.common.credits, or by assigning credits_balance on a '
      'loaded User';
END $$
""",
    """
CREATE FUNCTION credit_ledger_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM credit_ledger_unbalanced(
    tg_op || ' on ' || tg_table_name || ' is refused: the ledger is append-only');
  RETURN NULL;
END $$
""",
    # Looked up by scalar subqueries: no planner turns them into a scan of the whole table.
    """
CREATE FUNCTION credit_users_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE FUNCTION credit_users_booked() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE FUNCTION credit_entries_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  wrong record;
BEGIN
  SELECT a.user_id, a.seq INTO wrong
  FROM added a LEFT JOIN LATERAL (SELECT e.seq, e.balance_after, e.effective_at
    FROM credit_entries e WHERE e.user_id = a.user_id AND e.seq = a.seq - 1 LIMIT 1) e ON true
  WHERE a.seq > (SELECT u.credits_version FROM users u WHERE u.user_id = a.user_id)
    OR (a.seq > 1 AND e.seq IS NULL)
    OR a.balance_after <> coalesce(e.balance_after, 0) + a.amount
    OR a.effective_at < e.effective_at
    OR (a.amount <> 0 AND NOT EXISTS (SELECT FROM credit_postings p
      WHERE p.user_id = a.user_id AND p.seq = a.seq OFFSET 0))
  LIMIT 1;
  IF found THEN
    PERFORM credit_ledger_unbalanced(format(
      'entry %s of user %s does not follow from the one before it, or has no postings, or the '
      'user stays behind it', wrong.seq, wrong.user_id));
  END IF;
  RETURN NULL;
END $$
""",
    # The last line of each lot is what the lot now holds: none is added to an older entry.
    """
CREATE FUNCTION credit_postings_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE FUNCTION credit_lots_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE FUNCTION credit_lots_fixed() RETURNS trigger LANGUAGE plpgsql AS $$
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

_FIXED = """
CREATE TRIGGER credit_lots_fixed BEFORE UPDATE ON credit_lots FOR EACH ROW
  WHEN ((new.user_id, new.seq, new.source, new.priority, new.granted)
      <> (old.user_id, old.seq, old.source, old.priority, old.granted)
    OR new.expires_at IS DISTINCT FROM old.expires_at
    OR new.transaction_id IS DISTINCT FROM old.transaction_id
    OR (new.last_seq <= old.last_seq
      AND (new.last_seq, new.remaining) <> (old.last_seq, old.remaining)))
  EXECUTE FUNCTION credit_lots_fixed()
"""

CREATE_TRIGGERS = tuple(
    statement.strip() for statement in (*_FUNCTIONS, *_APPEND_ONLY, *_AT_ONCE, *_AT_COMMIT, _FIXED)
)
"""Every function and trigger, in the order in which they can be made."""

DROP_TRIGGERS = (
    *(
        f"DROP TRIGGER {name} ON {table}"
        for name, table in (
            ("users_balanced", "users"),
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
        )
    ),
    *(
        f"-- squawk-ignore ban-drop-function\nDROP FUNCTION {name}"
        for name in (
            "credit_lots_fixed",
            "credit_lots_balanced",
            "credit_postings_balanced",
            "credit_entries_balanced",
            "credit_users_booked",
            "credit_users_balanced",
            "credit_ledger_append_only",
            "credit_ledger_unbalanced",
        )
    ),
)
"""The way back."""


def upgrade() -> None:
    """Check the ledger set by set."""
    _replace(_triggers_before().DROP_TRIGGERS, CREATE_TRIGGERS)


def downgrade() -> None:
    """Undo: check the ledger set by set."""
    _replace(DROP_TRIGGERS, _triggers_before().CREATE_TRIGGERS)


def _replace(lower: tuple[str, ...], raise_: tuple[str, ...]) -> None:
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for statement in (*lower, *raise_):
        op.execute(statement)


def _triggers_before() -> ModuleType:
    """The triggers as the migration that first made them has them."""
    return context.script.get_revision("9d8c7b6a5f40").module
