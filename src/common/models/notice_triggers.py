"""The triggers that write notices, whoever writes what they tell (rule 15, decision 0063).

An entry, a debt or money that goes back has its notices at the end of its very statement: neither
is committed without the other, by whichever road it came, that of an older release too. Where no
endpoint wants to be told, each costs one look at an empty table.

They run as their owner: a role that may write to the ledger needs no privilege of its own, so that
it can go on between a migration and `grant-runtime`. They refuse nothing, and cast nothing that
could fail: telling never stands in the way of the ledger.

`low` and `exhausted` look at the balance as it was *at* instants, as a reading of the past shows it
(rule 8): entries of one instant count together, so that what an operation gives and takes in one
go is no fall, and what fell due before it is an instant of its own, whether or not the worker was
there first. Entries that one statement does not write together are looked at apart.
"""

from sqlalchemy import Connection, MetaData, event, text

from src.common.models.credit_entry import EntryKind
from src.common.models.credit_notice import NoticeType
from src.common.models.ledger_triggers_ddl import BY_INDEX, trigger_functions

_ENABLED = "n.disabled_at IS NULL"
# Never compiled: before PostgreSQL 18 a small table that is read whole, where that is discouraged,
# makes a plan look so dear that it would be, at every write.
SETTINGS = f"SECURITY DEFINER {BY_INDEX} SET jit = off"


INSTANT = 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
"""How `to_char` writes an instant that is in UTC."""


def _instant(value: str) -> str:
    """As JSON has it, whatever the session's time zone is."""
    return f"to_char({value} AT TIME ZONE 'UTC', '{INSTANT}')"


_TYPE_OF_ENTRY = f"""CASE
    WHEN e.kind = ANY ('{{{EntryKind.GRANT},{EntryKind.OPENING}}}'::text[])
      THEN CASE WHEN e.amount > 0 THEN '{NoticeType.GRANTED}' END
    WHEN e.kind = '{EntryKind.ADJUSTMENT}'
      THEN CASE WHEN e.amount > 0 THEN '{NoticeType.GRANTED}' ELSE '{NoticeType.SPENT}' END
    WHEN e.kind = '{EntryKind.SPEND}' THEN '{NoticeType.SPENT}'
    WHEN e.kind = '{EntryKind.CAPTURE}' THEN '{NoticeType.SPENT}'
    WHEN e.kind = '{EntryKind.REVERSAL}' THEN '{NoticeType.REVERSED}'
    WHEN e.kind = '{EntryKind.HOLD_EXPIRY}' THEN '{NoticeType.HOLD_EXPIRED}'
  END"""
"""NULL where an entry is no news: holds and their ends move credits that may come back, and what
refunds, expiry and debts do is told by notices of their own."""

_OF_ENTRIES = f"""SELECT e.user_id, e.seq, 1 AS rank, n.endpoint_id, e.type, e.created_at,
    jsonb_build_object('user_id', e.user_id, 'seq', e.seq, 'kind', e.kind, 'amount', e.amount,
      'balance', e.balance_after, 'effective_at', {_instant("e.effective_at")})
    || CASE e.type
      WHEN '{NoticeType.SPENT}' THEN jsonb_build_object(
        'spent', CASE e.kind WHEN '{EntryKind.CAPTURE}' THEN e.captured ELSE -e.amount END,
        'hold_seq', e.related_seq)
      WHEN '{NoticeType.REVERSED}' THEN jsonb_build_object('reversed_seq', e.related_seq)
      WHEN '{NoticeType.HOLD_EXPIRED}' THEN jsonb_build_object('hold_seq', e.related_seq)
      ELSE coalesce((SELECT jsonb_build_object('source', l.source, 'expires_at',
          {_instant("l.expires_at")}, 'transaction_id', l.transaction_id)
        FROM @here.credit_lots l WHERE l.user_id = e.user_id AND l.seq = e.seq), '{{}}'::jsonb)
    END AS data
  FROM (SELECT e.*, {_TYPE_OF_ENTRY} AS type FROM added e) e
  JOIN @here.notice_endpoints n ON e.type = ANY (n.types)
  WHERE {_ENABLED}"""  # noqa: S608  our own names

# By scalar subqueries: a join could become a scan of all purchases (`ledger_triggers_journal.py`).
_OF_PURCHASES = f"""SELECT e.user_id, e.seq, 2, n.endpoint_id, '{NoticeType.PURCHASE_CREDITED}',
    e.created_at, jsonb_build_object('user_id', e.user_id, 'seq', e.seq, 'credits', e.amount,
      'balance', e.balance_after) || e.purchase
  FROM (SELECT e.*, (SELECT jsonb_build_object('transaction_id', t.transaction_id,
        'amount_paid_cents', t.amount_paid_cents, 'currency', t.currency, 'livemode', t.livemode)
      FROM @here.transactions t WHERE t.transaction_id = (SELECT l.transaction_id
        FROM @here.credit_lots l WHERE l.user_id = e.user_id AND l.seq = e.seq)) AS purchase
    FROM added e WHERE e.kind = '{EntryKind.GRANT}') e
  JOIN @here.notice_endpoints n ON '{NoticeType.PURCHASE_CREDITED}' = ANY (n.types)
  WHERE {_ENABLED} AND e.purchase IS NOT NULL"""  # noqa: S608  our own names

OF_FALLS = f"""SELECT f.user_id, f.seq, CASE t.type WHEN '{NoticeType.LOW}' THEN 3 ELSE 4 END,
    n.endpoint_id, t.type, f.created_at,
    jsonb_build_object('user_id', f.user_id, 'seq', f.seq, 'balance', f.balance_after,
      'effective_at', {_instant("f.effective_at")})
    || CASE t.type WHEN '{NoticeType.LOW}'
      THEN jsonb_build_object('threshold', n.low_threshold) ELSE '{{}}'::jsonb END
  FROM (SELECT e.*, max(e.seq) OVER instant AS last_seq,
      e.balance_after - sum(e.amount) OVER instant AS balance_before
    FROM added e WINDOW instant AS (PARTITION BY e.user_id, e.effective_at)) f
  CROSS JOIN (VALUES ('{NoticeType.LOW}'), ('{NoticeType.EXHAUSTED}')) t (type)
  JOIN @here.notice_endpoints n ON t.type = ANY (n.types)
  WHERE {_ENABLED} AND f.seq = f.last_seq AND f.balance_after < f.balance_before
    AND CASE t.type
      WHEN '{NoticeType.LOW}'
        THEN f.balance_before > n.low_threshold AND f.balance_after <= n.low_threshold
      ELSE f.balance_after = 0 END"""  # noqa: S608  our own names

# Most entries are no news: nothing is wanted of their kind, and they leave enough. One short query
# says so; to begin the long one costs a statement of a single row as much as a tenth of it.
_PERHAPS_NEWS = f"""SELECT FROM added e JOIN @here.notice_endpoints n
    ON {_TYPE_OF_ENTRY} = ANY (n.types)
      OR (e.kind = '{EntryKind.GRANT}' AND '{NoticeType.PURCHASE_CREDITED}' = ANY (n.types))
      OR e.balance_after <= n.low_threshold
      OR (e.balance_after = 0 AND '{NoticeType.EXHAUSTED}' = ANY (n.types))
    WHERE {_ENABLED}"""

_INTO = "INSERT INTO @here.credit_notices (user_id, seq, endpoint_id, type, created_at, data)"


def _told_by_row(type_: str, user_id: str, seq: str, data: str) -> str:
    """One notice for each endpoint that wants to be told of a row that changed."""
    return f"""
BEGIN
  {_INTO}
  SELECT {user_id}, {seq}, n.endpoint_id, {type_}, clock_timestamp(), {data}
  FROM @here.notice_endpoints n WHERE {type_} = ANY (n.types) AND {_ENABLED}
  ORDER BY n.endpoint_id;
  RETURN NULL;
END"""  # noqa: S608  our own names


_VERSION = "(SELECT u.credits_version FROM @here.users u WHERE u.user_id = new.user_id)"
_DEBT_TYPE = (
    f"CASE WHEN new.outstanding > 0 THEN '{NoticeType.DEBT_OPENED}'"
    f" ELSE '{NoticeType.DEBT_SETTLED}' END"
)

IS_NEWS = f"""EXISTS (SELECT FROM @here.notice_endpoints n WHERE {_ENABLED})
    AND EXISTS ({_PERHAPS_NEWS})"""
# In the order of the entries; of one entry, what it is before what follows from it.
TELL = f"""{_INTO}
    SELECT s.user_id, s.seq, s.endpoint_id, s.type, s.created_at, s.data FROM (
  {_OF_ENTRIES}
  UNION ALL
  {_OF_PURCHASES}
  UNION ALL
  {OF_FALLS}) s
    ORDER BY s.user_id, s.seq, s.rank, s.endpoint_id;"""  # noqa: S608  our own names

FUNCTIONS = {
    "credit_entries_told": f"""
BEGIN
  IF {IS_NEWS} THEN
    {TELL}
  END IF;
  RETURN NULL;
END""",
    # One debt a payment: what others still owe for the user's other payments is not told with it.
    "credit_debts_told": _told_by_row(
        _DEBT_TYPE,
        "new.user_id",
        _VERSION,
        "jsonb_build_object('user_id', new.user_id, 'payment_seq', new.seq,"
        " 'outstanding', new.outstanding, 'transaction_id', (SELECT l.transaction_id"
        " FROM @here.credit_lots l WHERE l.user_id = new.user_id AND l.seq = new.seq))",
    ),
    # What money went back changes only under the user's row lock (`purchases/money_back.py`).
    "transactions_told": f"""
BEGIN
  {_INTO}
  SELECT new.user_id, NULL, n.endpoint_id, t.type, clock_timestamp(),
    jsonb_build_object('user_id', new.user_id, 'transaction_id', new.transaction_id,
      'amount_paid_cents', new.amount_paid_cents, 'refunded_cents', new.refunded_cents,
      'disputed_cents', new.disputed_cents, 'changed_by_cents', t.cents,
      'currency', new.currency, 'livemode', new.livemode)
  FROM (VALUES
    ('{NoticeType.PURCHASE_REFUNDED}', new.refunded_cents - old.refunded_cents),
    ('{NoticeType.PURCHASE_DISPUTED}', new.disputed_cents - old.disputed_cents)) t (type, cents)
  JOIN @here.notice_endpoints n ON t.type = ANY (n.types)
  WHERE {_ENABLED} AND t.cents <> 0
  ORDER BY t.type DESC, n.endpoint_id;
  RETURN NULL;
END""",  # noqa: S608  our own names
}
"""By name, the bodies of the functions; `@here` is the schema of our tables."""

_OWED_OR_NOT = "(old.outstanding > 0) <> (new.outstanding > 0)"
_WENT_BACK = "(new.refunded_cents, new.disputed_cents) <> (old.refunded_cents, old.disputed_cents)"
ROW_BY_ROW = {
    ("credit_debts_told_new", "credit_debts"): (
        *("INSERT", "new.outstanding > 0", "credit_debts_told"),
    ),
    ("credit_debts_told", "credit_debts"): (
        *("UPDATE OF outstanding", _OWED_OR_NOT, "credit_debts_told"),
    ),
    ("transactions_told", "transactions"): (
        *("UPDATE OF refunded_cents, disputed_cents", _WENT_BACK, "transactions_told"),
    ),
}
"""By name and table: operation, condition, function."""
_TRIGGERS = (
    (
        "CREATE TRIGGER credit_entries_told AFTER INSERT ON credit_entries"
        " REFERENCING NEW TABLE AS added"
        " FOR EACH STATEMENT EXECUTE FUNCTION credit_entries_told()"
    ),
    *(
        f"CREATE TRIGGER {name} AFTER {operation} ON {table} FOR EACH ROW WHEN ({condition})"
        f" EXECUTE FUNCTION {function}()"
        for (name, table), (operation, condition, function) in ROW_BY_ROW.items()
    ),
)

CREATE_FUNCTIONS = trigger_functions(FUNCTIONS, SETTINGS)
"""What the triggers run. Each statement can be executed again, over the function that is there."""
CREATE_TRIGGERS = tuple(statement.strip() for statement in (*CREATE_FUNCTIONS, *_TRIGGERS))
"""Every function and trigger, in the order in which they can be made."""

TRIGGERS = (("credit_entries_told", "credit_entries"), *ROW_BY_ROW)
"""Their names and tables."""
DROP_TRIGGERS = (
    *(f"DROP TRIGGER {name} ON {table}" for name, table in TRIGGERS),
    *(f"-- squawk-ignore ban-drop-function\nDROP FUNCTION {name}" for name in FUNCTIONS),
)
"""The way back."""


def create_after_create_all(metadata: MetaData) -> None:
    """Have `metadata.create_all` make the triggers too, so that it makes the migrations' schema."""
    event.listen(metadata, "after_create", _create)


def _create(_metadata: MetaData, connection: Connection, **_others: object) -> None:
    standing = connection.exec_driver_sql(
        "SELECT count(*) FROM pg_trigger WHERE tgname = 'credit_entries_told'"
        " AND tgrelid = to_regclass('credit_entries')"
    ).scalar_one()
    if not standing:
        for statement in CREATE_TRIGGERS:
            connection.execute(text(statement))
