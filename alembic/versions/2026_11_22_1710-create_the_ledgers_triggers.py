"""Create the ledger's triggers: they refuse books that do not balance.

Revision ID: 9d8c7b6a5f40
Revises: 3f4e5d6c7b8a
Create Date: 2026-11-22 17:10:00+00:00
"""

from alembic import op

from src.common.postgres.migrations import Loss

revision = "9d8c7b6a5f40"
down_revision = "3f4e5d6c7b8a"
branch_labels = None
depends_on = None

# No row goes, but from then on anything can be written into the books that are there.
LOST_BY_DOWNGRADE: tuple[Loss, ...] = (
    Loss("credit_entries", what="the triggers that guard the rows"),
)

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
    """
CREATE FUNCTION credit_users_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  booked record;
BEGIN
  SELECT u.credits_balance AS balance, u.credits_version AS version,
    (SELECT e.balance_after FROM credit_entries e
      WHERE e.user_id = u.user_id AND e.seq = u.credits_version) AS last_balance,
    (SELECT coalesce(sum(l.remaining), 0) FROM credit_lots l
      WHERE l.user_id = u.user_id AND l.is_open) AS in_lots,
    EXISTS (SELECT FROM credit_entries e
      WHERE e.user_id = u.user_id AND e.seq = u.credits_version + 1) AS has_later_entry
  INTO booked FROM users u WHERE u.user_id = new.user_id;
  IF NOT found OR (booked.balance, booked.version) <> (new.credits_balance, new.credits_version)
  THEN
    RETURN NULL;
  END IF;
  IF booked.balance <> coalesce(booked.last_balance, 0) OR booked.balance <> booked.in_lots
    OR booked.has_later_entry OR (booked.version > 0 AND booked.last_balance IS NULL)
  THEN
    PERFORM credit_ledger_unbalanced(format(
      'user %s has credits_balance %s at version %s, its last entry says %s, its lots hold %s',
      new.user_id, booked.balance, booked.version, booked.last_balance, booked.in_lots));
  END IF;
  RETURN NULL;
END $$
""",
    """
CREATE FUNCTION credit_entries_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  version integer;
  previous record;
  in_postings bigint;
BEGIN
  SELECT u.credits_version INTO version FROM users u WHERE u.user_id = new.user_id;
  SELECT e.balance_after AS balance, e.effective_at INTO previous FROM credit_entries e
    WHERE e.user_id = new.user_id AND e.seq = new.seq - 1;
  SELECT coalesce(sum(p.amount), 0) INTO in_postings FROM credit_postings p
    WHERE p.user_id = new.user_id AND p.seq = new.seq;
  IF new.seq > version OR (new.seq > 1 AND previous.balance IS NULL)
    OR new.balance_after <> coalesce(previous.balance, 0) + new.amount
    OR new.effective_at < previous.effective_at OR in_postings <> new.amount
  THEN
    PERFORM credit_ledger_unbalanced(format(
      'entry %s of user %s does not follow from the one before it, or its postings sum to %s '
      'instead of %s', new.seq, new.user_id, in_postings, new.amount));
  END IF;
  RETURN NULL;
END $$
""",
    """
CREATE FUNCTION credit_postings_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  lot record;
  entry_amount integer;
  in_postings bigint;
BEGIN
  SELECT l.last_seq, l.remaining INTO lot FROM credit_lots l
    WHERE l.user_id = new.user_id AND l.seq = new.lot_seq;
  SELECT e.amount INTO entry_amount FROM credit_entries e
    WHERE e.user_id = new.user_id AND e.seq = new.seq;
  SELECT sum(p.amount) INTO in_postings FROM credit_postings p
    WHERE p.user_id = new.user_id AND p.seq = new.seq;
  IF lot.last_seq < new.seq OR in_postings <> entry_amount
    OR (lot.last_seq = new.seq AND lot.remaining <> new.remaining_after)
  THEN
    PERFORM credit_ledger_unbalanced(format(
      'posting (%s, %s) of user %s agrees neither with its lot nor its entry',
      new.seq, new.lot_seq, new.user_id));
  END IF;
  RETURN NULL;
END $$
""",
    """
CREATE FUNCTION credit_lots_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM credit_postings p WHERE p.user_id = new.user_id
      AND p.seq = new.last_seq AND p.lot_seq = new.seq AND p.remaining_after = new.remaining)
    OR (tg_op = 'INSERT' AND NOT EXISTS (SELECT FROM credit_postings p
      WHERE p.user_id = new.user_id AND p.seq = new.seq AND p.lot_seq = new.seq
        AND p.amount = new.granted))
  THEN
    PERFORM credit_ledger_unbalanced(format(
      'lot %s of user %s was granted %s and holds %s, which postings %s and %s do not say',
      new.seq, new.user_id, new.granted, new.remaining, new.seq, new.last_seq));
  END IF;
  RETURN NULL;
END $$
""",
    """
CREATE FUNCTION credit_lots_fixed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (new.user_id, new.seq, new.source, new.priority, new.granted, new.expires_at)
      IS DISTINCT FROM (old.user_id, old.seq, old.source, old.priority, old.granted, old.expires_at)
    OR new.transaction_id IS DISTINCT FROM old.transaction_id
    OR (new.last_seq <= old.last_seq AND (new.last_seq, new.remaining)
      IS DISTINCT FROM (old.last_seq, old.remaining))
  THEN
    PERFORM credit_ledger_unbalanced(format(
      'lot %s of user %s: only what remains changes, by a new posting', old.seq, old.user_id));
  END IF;
  RETURN new;
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

_WHEN_BALANCE_CHANGED = (
    " WHEN ((old.credits_balance, old.credits_version)"
    " <> (new.credits_balance, new.credits_version))"
)
_DEFERRED = tuple(
    f"CREATE CONSTRAINT TRIGGER {name} AFTER {operation} ON {table}"
    f" DEFERRABLE INITIALLY DEFERRED FOR EACH ROW{condition}"
    f" EXECUTE FUNCTION {function}()"
    for name, operation, table, condition, function in (
        (
            "users_balanced_new",
            "INSERT",
            "users",
            " WHEN (new.credits_balance <> 0 OR new.credits_version <> 0)",
            "credit_users_balanced",
        ),
        (
            "users_balanced",
            "UPDATE OF credits_balance, credits_version",
            "users",
            _WHEN_BALANCE_CHANGED,
            "credit_users_balanced",
        ),
        ("credit_entries_balanced", "INSERT", "credit_entries", "", "credit_entries_balanced"),
        ("credit_postings_balanced", "INSERT", "credit_postings", "", "credit_postings_balanced"),
        (
            "credit_lots_balanced",
            "INSERT OR UPDATE OF remaining, last_seq",
            "credit_lots",
            "",
            "credit_lots_balanced",
        ),
    )
)

_FIXED = (
    "CREATE TRIGGER credit_lots_fixed BEFORE UPDATE ON credit_lots"
    " FOR EACH ROW EXECUTE FUNCTION credit_lots_fixed()"
)

CREATE_TRIGGERS = tuple(
    statement.strip() for statement in (*_FUNCTIONS, *_APPEND_ONLY, *_DEFERRED, _FIXED)
)
"""Every function and trigger, in the order in which they can be made."""

DROP_TRIGGERS = (
    *("DROP TRIGGER users_balanced_new ON users", "DROP TRIGGER users_balanced ON users"),
    "DROP TRIGGER credit_entries_append_only ON credit_entries",
    "DROP TRIGGER credit_entries_balanced ON credit_entries",
    "DROP TRIGGER credit_postings_append_only ON credit_postings",
    "DROP TRIGGER credit_postings_balanced ON credit_postings",
    "DROP TRIGGER credit_lots_append_only ON credit_lots",
    "DROP TRIGGER credit_lots_balanced ON credit_lots",
    "DROP TRIGGER credit_lots_fixed ON credit_lots",
    *(
        f"-- squawk-ignore ban-drop-function\nDROP FUNCTION {name}"
        for name in (
            "credit_lots_fixed",
            "credit_lots_balanced",
            "credit_postings_balanced",
            "credit_entries_balanced",
            "credit_users_balanced",
            "credit_ledger_append_only",
            "credit_ledger_unbalanced",
        )
    ),
)
"""The way back."""


def upgrade() -> None:
    """Create the ledger's triggers."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for statement in CREATE_TRIGGERS:
        op.execute(statement)


def downgrade() -> None:
    """Undo: create the ledger's triggers."""
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for statement in DROP_TRIGGERS:
        op.execute(statement)
