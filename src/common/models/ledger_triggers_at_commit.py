"""The triggers' second form: each row by itself, when its database transaction commits.

For where a statement may be cut into several, so that no statement's end shows whole books: Citus
writes each table of the ledger's one statement by itself (decision 0065). What the first form asks
of a statement, this one asks of a database transaction. The rules are the first form's, taken from
its modules; what is here is how a row finds what its database transaction has written:

- A row is looked at as it is at COMMIT, not as it was when it was written. Only what a lot, a debt
  or a user was before needs each change by itself (`old`, `new`).
- `credit_written_now` tells whether a row is of the database transaction at hand, savepoints
  included. Rows of one statement can no longer be told from those of another.
- A posting leads to the next one of its lot, and each change of a lot to its postings. So all of
  them are linked, however many statements wrote them.

The first form's triggers stay, switched off; so migrations find what they expect.
`src/common/postgres/ledger_triggers_form.py` puts one form in the place of the other. A trigger
whose definition changes needs another name: functions are compared by text, triggers by name.
"""

from src.common.models.ledger_triggers_ddl import (
    APPEND_ONLY,
    AT_ONCE,
    BY_INDEX,
    PLAINLY,
    function_ddl,
)
from src.common.models.ledger_triggers_holds import (
    DEBT_REFUSED,
    HOLD_FUNCTIONS,
    OWED_BESIDE_CREDITS,
)
from src.common.models.ledger_triggers_journal import ENTRIES, ENTRIES_FOLLOW, UNDOING
from src.common.models.ledger_triggers_lots import LOT_FUNCTIONS
from src.common.models.notice_triggers import SETTINGS, TRIGGERS
from src.common.models.notice_triggers_at_commit import NOTICE_CHECKED, NOTICE_COMMIT_FUNCTIONS


def _put(text: str, phrase: str, instead: str) -> str:
    """The text with another phrase; it is there exactly once, or the first form has changed."""
    before, after = text.split(phrase)
    return f"{before}{instead}{after}"


_WRITTEN_NOW = """
DECLARE
  own bigint := pg_current_xact_id()::text::bigint;
  later bigint := (writer::text::bigint - own) & 4294967295;
BEGIN
  IF later = 0 OR later >= 2147483648 THEN
    RETURN later = 0;
  END IF;
  BEGIN
    RETURN pg_xact_status((own + later)::text::xid8) = 'in progress';
  EXCEPTION WHEN invalid_parameter_value THEN
    RETURN false;
  END;
END"""
"""Savepoints have numbers of their own, all after that of their database transaction. What others
wrote meanwhile is seen once they have committed. A number that was not given out yet is that of a
row so old that the numbers have begun anew."""

_ENTRY_WRITTEN_NOW = """
DECLARE
  writer xid;
BEGIN
  SELECT e.xmin INTO writer FROM @here.credit_entries e WHERE e.user_id = who AND e.seq = number;
  RETURN coalesce(@here.credit_written_now(writer), false);
END"""
"""Who wrote a row is asked by statements of their own: Citus words no other with `xmin` in it."""

_NEW = "FROM (SELECT new.*) "
_BESIDE = " coalesce((SELECT {0}.xmin = e.xmin AND {0}.cmin = e.cmin"
_KINDS = _put(
    _put(
        ENTRIES.removeprefix(ENTRIES_FOLLOW),
        _BESIDE.format("d"),
        " coalesce((SELECT is_d_written",
    ),
    _BESIDE.format("h"),
    " coalesce((SELECT is_h_written",
)
_LINES = """coalesce((SELECT CASE WHEN count(*) = 0 THEN a.amount = 0
      ELSE sum(p.amount) = a.amount AND (min(p.amount) > 0 OR max(p.amount) < 0)
        AND CASE WHEN a.amount > 0 AND a.kind = ANY ('{grant,opening,adjustment}'::text[])
          THEN max(p.lot_seq) = a.seq AND count(*) = 1 ELSE max(p.lot_seq) < a.seq END
        AND (a.kind <> 'lot_expiry' OR (count(*) = 1 AND max(p.remaining_after) = 0)) END
    FROM @here.credit_postings p WHERE p.user_id = a.user_id AND p.seq = a.seq), false)
    OR (a.kind = 'lot_expiry' AND EXISTS (SELECT FROM @here.credit_postings p
      JOIN @here.credit_lots l ON l.user_id = p.user_id AND l.seq = p.lot_seq
      WHERE p.user_id = a.user_id AND p.seq = a.seq
        AND (l.expires_at <= a.effective_at) IS NOT TRUE))"""
"""Follows NOT: whether the lines of entry `a` together are not what it says. One of 0 has none."""
_ENTRY = f"""SELECT a.user_id, a.seq INTO wrong
  FROM (SELECT new.*, new.created_at > statement_timestamp() + interval '5 minutes' AS is_ahead) a
  WHERE NOT CASE
      WHEN a.seq = 1 THEN a.balance_after = a.amount AND NOT a.is_ahead
        AND a.effective_at >= '2000-01-01T00:00:00Z'
      ELSE coalesce((SELECT a.balance_after = e.balance_after + a.amount
          AND a.effective_at >= e.effective_at
          AND (NOT a.is_ahead OR a.created_at = e.effective_at)
        FROM @here.credit_entries e WHERE e.user_id = a.user_id AND e.seq = a.seq - 1), false)
    END
    OR a.effective_at > a.created_at
    OR NOT coalesce(a.seq <= (SELECT u.credits_version FROM @here.users u
      WHERE u.user_id = a.user_id), false)
    OR NOT {_LINES}{_KINDS}"""  # noqa: S608  our own names
_WRITTEN_WITH = """SELECT u.credits_version INTO number FROM @here.users u
    WHERE u.user_id = new.user_id;
  WHILE @here.credit_entry_written_now(new.user_id, number) LOOP
    SELECT e.kind, e.amount, e.related_seq INTO written FROM @here.credit_entries e
      WHERE e.user_id = new.user_id AND e.seq = number;
    kinds := kinds || written.kind::text;
    IF written.kind = 'debt_repayment' AND written.related_seq = new.seq THEN
      repaid := repaid || repaid[cardinality(repaid)] - written.amount;
    END IF;
    number := number - 1;
  END LOOP;"""
"""The user's entries that the database transaction wrote, from its newest back to somebody else's:
their kinds, and what the last ones together repaid of this debt, from none of them to all."""
_DECLARED = """DECLARE
  wrong record;
  written record;
  number integer;
  kinds text[] := '{}';
  repaid bigint[] := '{0}';"""

COMMIT_FUNCTIONS = {
    "credit_written_now": _WRITTEN_NOW,
    "credit_entry_written_now": _ENTRY_WRITTEN_NOW,
    # Each step leads to an entry; the last one to books that are whole and settled.
    "credit_users_at_commit": """
BEGIN
  IF new.credits_version < old.credits_version
    OR NOT coalesce((SELECT e.balance_after = new.credits_balance FROM @here.credit_entries e
      WHERE e.user_id = new.user_id AND e.seq = new.credits_version), false)
    OR NOT coalesce((SELECT u.credits_version <> new.credits_version
        OR ((SELECT coalesce(sum(l.remaining), 0) = e.balance_after
            AND coalesce(min(l.expires_at) > e.effective_at, true)
          FROM @here.credit_lots l WHERE l.user_id = u.user_id AND l.is_open)
        AND NOT EXISTS (SELECT FROM @here.credit_holds h WHERE h.user_id = u.user_id
          AND h.status = 'open' AND h.expires_at <= e.effective_at OFFSET 0)
        AND (e.balance_after = 0 OR NOT EXISTS (SELECT FROM @here.credit_debts d
          WHERE d.user_id = u.user_id AND d.outstanding > 0 OFFSET 0)))
      FROM @here.users u JOIN @here.credit_entries e
        ON e.user_id = u.user_id AND e.seq = u.credits_version
      WHERE u.user_id = new.user_id), false)
  THEN
    PERFORM @here.credit_ledger_unbalanced(format(
      'user %s has credits_balance %s at version %s, which entries, lots, holds and debts do not '
      'say', new.user_id, new.credits_balance, new.credits_version));
  END IF;
  RETURN NULL;
END""",
    "credit_entries_at_commit": f"""
DECLARE
  wrong record;
  writer xid;
  is_d_written boolean;
  is_h_written boolean;
BEGIN
  IF new.kind = 'debt_repayment' THEN
    SELECT d.xmin INTO writer FROM @here.credit_debts d
      WHERE d.user_id = new.user_id AND d.seq = new.related_seq;
    is_d_written := @here.credit_written_now(writer);
  ELSIF new.kind = 'hold' OR new.related_seq IS NOT NULL THEN
    SELECT h.xmin INTO writer FROM @here.credit_holds h
      WHERE h.user_id = new.user_id AND h.seq = coalesce(new.related_seq, new.seq);
    is_h_written := @here.credit_written_now(writer);
  END IF;
  {_ENTRY}
  IF NOT found AND new.kind = 'reversal' THEN
    {_put(UNDOING, "FROM added ", _NEW)}
  END IF;
  IF found THEN
    PERFORM @here.credit_ledger_unbalanced(format(
      'entry %s of user %s does not follow from the one before it, or is of another time, or has '
      'no postings, or comes without its hold or debt, or undoes what is not there to be undone, '
      'or the user is missing or stays behind it',
      wrong.seq, wrong.user_id));
  END IF;
  RETURN NULL;
END""",  # noqa: S608  our own names
    # A posting comes with its entry, whose lines are added up for each of them: an entry that was
    # looked at before may have got another line since. It leads to the next one of its lot, or is
    # what the lot says. All entries after its own are of this database transaction.
    "credit_postings_at_commit": f"""
BEGIN
  IF NOT @here.credit_entry_written_now(new.user_id, new.seq)
    OR NOT coalesce((SELECT CASE WHEN l.last_seq = new.seq THEN l.remaining = new.remaining_after
        ELSE (SELECT n.remaining_after - n.amount = new.remaining_after
          FROM @here.credit_postings n WHERE n.user_id = new.user_id AND n.seq > new.seq
            AND n.lot_seq = new.lot_seq AND l.last_seq > new.seq ORDER BY n.seq LIMIT 1) END
      FROM @here.credit_lots l WHERE l.user_id = new.user_id AND l.seq = new.lot_seq), false)
    OR EXISTS (SELECT FROM @here.credit_entries a
      WHERE a.user_id = new.user_id AND a.seq = new.seq AND (NOT {_LINES}) OFFSET 0)
  THEN
    PERFORM @here.credit_ledger_unbalanced(format('posting (%s, %s) of user %s agrees neither with '
      'its lot nor its entry', new.seq, new.lot_seq, new.user_id));
  END IF;
  RETURN NULL;
END""",  # noqa: S608  our own names
    "credit_lots_made_at_commit": _put(LOT_FUNCTIONS["credit_lots_made"], "FROM after ", _NEW),
    # As `credit_lots_balanced`: the sum goes back no further than this database transaction.
    "credit_lots_at_commit": """
DECLARE
  earliest integer := new.last_seq - 1;
BEGIN
  IF old.last_seq < earliest AND @here.credit_entry_written_now(new.user_id, earliest) THEN
    earliest := CASE WHEN @here.credit_entry_written_now(new.user_id, new.last_seq - 1000)
      THEN old.last_seq ELSE greatest(old.last_seq, new.last_seq - 1000) END;
  END IF;
  IF NOT coalesce((SELECT p.remaining_after = new.remaining
      AND new.remaining - old.remaining = (SELECT sum(q.amount) FROM @here.credit_postings q
        WHERE q.user_id = new.user_id AND q.lot_seq = new.seq
          AND q.seq > earliest AND q.seq <= new.last_seq)
    FROM @here.credit_postings p
    WHERE p.user_id = new.user_id AND p.seq = new.last_seq AND p.lot_seq = new.seq), false)
  THEN
    PERFORM @here.credit_ledger_unbalanced(format(
      'lot %s of user %s holds %s, which what it held and its postings after %s to %s do not say',
      new.seq, new.user_id, new.remaining, old.last_seq, new.last_seq));
  END IF;
  RETURN NULL;
END""",
    "credit_holds_at_commit": _put(
        HOLD_FUNCTIONS["credit_holds_balanced"],
        "FROM after h",
        "FROM (SELECT c.* FROM @here.credit_holds c"
        " WHERE c.user_id = new.user_id AND c.seq = new.seq) h",
    ),
    "credit_debts_made_at_commit": f"""
{_DECLARED}
BEGIN
  {_WRITTEN_WITH}
  SELECT d.user_id, d.seq, d.outstanding INTO wrong FROM @here.credit_debts d
  WHERE d.user_id = new.user_id AND d.seq = new.seq AND ({OWED_BESIDE_CREDITS}
    OR NOT coalesce((SELECT e.kind = 'opening' OR (d.opening_debt = 0
        AND EXISTS (SELECT FROM @here.credit_lots l
          WHERE l.user_id = d.user_id AND l.seq = d.seq AND l.source = 'purchase' OFFSET 0))
      FROM @here.credit_entries e WHERE e.user_id = d.user_id AND e.seq = d.seq), false)
    OR NOT kinds && '{{clawback,reinstatement,opening}}'::text[]);
  {DEBT_REFUSED}
END""",  # noqa: S608  our own names
    # What is owed now, and the repayments from some point on, say what was owed before each step.
    "credit_debts_at_commit": f"""
{_DECLARED}
BEGIN
  {_WRITTEN_WITH}
  SELECT d.user_id, d.seq, d.outstanding INTO wrong FROM @here.credit_debts d
  WHERE d.user_id = new.user_id AND d.seq = new.seq AND ({OWED_BESIDE_CREDITS}
    OR NOT (kinds && '{{clawback,reinstatement}}'::text[]
      OR (old.outstanding > new.outstanding AND old.outstanding - d.outstanding = ANY (repaid)
        AND new.outstanding - d.outstanding = ANY (repaid))));
  {DEBT_REFUSED}
END""",  # noqa: S608  our own names
    "credit_metadata_at_commit": """
BEGIN
  IF NOT @here.credit_entry_written_now(new.user_id, new.seq) THEN
    PERFORM @here.credit_ledger_unbalanced(format(
      'metadata of entry %s of user %s was not written with it', new.seq, new.user_id));
  END IF;
  RETURN NULL;
END""",
    "credit_metadata_erased_at_commit": _put(
        HOLD_FUNCTIONS["credit_metadata_erased"], "FROM gone m", "FROM (SELECT old.*) m"
    ),
    **NOTICE_COMMIT_FUNCTIONS,
}
"""By name, the bodies of the functions; `@here` is the schema of our tables."""

_WRITERS = {
    "credit_written_now": ("credit_written_now(writer xid)", PLAINLY),
    "credit_entry_written_now": ("credit_entry_written_now(who uuid, number integer)", BY_INDEX),
}
CREATE_COMMIT_FUNCTIONS = tuple(
    function_ddl(_WRITERS[name][0], "boolean", _WRITERS[name][1], body)
    if name in _WRITERS
    else function_ddl(
        *(f"{name}()", "trigger"),
        *(SETTINGS if name in NOTICE_COMMIT_FUNCTIONS else BY_INDEX, body),
    )
    for name, body in COMMIT_FUNCTIONS.items()
)
"""In the order in which they can be made, once the first form's are there."""

_CHANGES = "new.credits_version <> old.credits_version"
# name: operation, table, condition, function
_CHECKED = {
    "users_at_commit": ("UPDATE", "users", _CHANGES, "credit_users_at_commit"),
    "credit_entries_at_commit": ("INSERT", "credit_entries", "true", "credit_entries_at_commit"),
    "credit_postings_at_commit": ("INSERT", "credit_postings", "true", "credit_postings_at_commit"),
    "credit_lots_made_at_commit": ("INSERT", "credit_lots", "true", "credit_lots_made_at_commit"),
    "credit_lots_at_commit": (
        *("UPDATE", "credit_lots"),
        *("new.last_seq IS DISTINCT FROM old.last_seq", "credit_lots_at_commit"),
    ),
    "credit_holds_at_commit": (
        *("INSERT OR UPDATE", "credit_holds"),
        *("true", "credit_holds_at_commit"),
    ),
    "credit_debts_made_at_commit": (
        *("INSERT", "credit_debts"),
        *("true", "credit_debts_made_at_commit"),
    ),
    "credit_debts_at_commit": ("UPDATE", "credit_debts", "true", "credit_debts_at_commit"),
    "credit_metadata_at_commit": (
        *("INSERT", "credit_entry_metadata"),
        *("true", "credit_metadata_at_commit"),
    ),
    "credit_metadata_erased_at_commit": (
        *("DELETE", "credit_entry_metadata"),
        *("true", "credit_metadata_erased_at_commit"),
    ),
    **NOTICE_CHECKED,
}
_KEPT = {
    table: " OR ".join(each for each in ("UPDATE", "DELETE") if each in operations)
    for table, operations in APPEND_ONLY.items()
} | {"credit_entries": "DELETE", "credit_ledgers": "DELETE"}
"""`ledger_triggers_chain.py` looks at each UPDATE of these two."""

CREATE_AT_COMMIT = {
    **{
        (name, table): f"CREATE CONSTRAINT TRIGGER {name} AFTER {operation} ON {table}"
        f" DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ({condition})"
        f" EXECUTE FUNCTION {run}()"
        for name, (operation, table, condition, run) in _CHECKED.items()
    },
    **{
        (f"{table}_kept", table): f"CREATE TRIGGER {table}_kept BEFORE {operations} ON {table}"
        " FOR EACH ROW EXECUTE FUNCTION credit_ledger_append_only()"
        for table, operations in _KEPT.items()
    },
    **{
        (f"{table}_emptied", table): f"CREATE TRIGGER {table}_emptied BEFORE TRUNCATE ON {table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION credit_ledger_append_only()"
        for table in _KEPT
    },
}
"""By name and table, the statement that makes a trigger of the second form."""

REPLACED = (
    *((name, table) for name, (_, table, *_) in AT_ONCE.items()),
    *((f"{table}_append_only", table) for table in _KEPT),
    *TRIGGERS,
)
"""The triggers of the first form that those stand for: by name and table. All others are of both
forms."""

DROP_AT_COMMIT = (
    *(f"DROP TRIGGER IF EXISTS {name} ON {table}" for name, table in CREATE_AT_COMMIT),
    *(f"DROP FUNCTION IF EXISTS {name}" for name in reversed(COMMIT_FUNCTIONS)),
)
"""The way back; then the first form's are to be switched on."""
