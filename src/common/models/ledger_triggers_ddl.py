"""The ledger's triggers and functions as DDL, with those that refuse UPDATE and DELETE.

The statements stand in the order in which they can be executed.

Whatever a session does before, each function does the same: every one has its own `search_path`,
in which only PostgreSQL's own functions, operators and types are found, whoever may create others
where our tables are; the tables are named with their schema, which is that of the session that
makes the functions. And each row is looked up by its index, however small the tables were when the
plan was made: not by a scan, nor by a bitmap, which visits every row changed since the last vacuum.
"""

from collections.abc import Mapping

from src.common.models.ledger_triggers_holds import HOLD_FUNCTIONS
from src.common.models.ledger_triggers_journal import JOURNAL_FUNCTIONS
from src.common.models.ledger_triggers_lots import LOT_FUNCTIONS

_UNBALANCED = """
BEGIN
  RAISE EXCEPTION USING ERRCODE = 'P0001',
    MESSAGE = 'LEDGER_UNBALANCED: ' || problem,
    HINT = 'change credits with src.common.credits, or by assigning credits_balance on a '
      'loaded User';
END"""
_REFUSALS = {
    "credit_ledger_append_only": """
BEGIN
  PERFORM @here.credit_ledger_unbalanced(
    tg_op || ' on ' || tg_table_name || ' is refused: the ledger is append-only');
  RETURN NULL;
END""",
    "credit_users_kept": """
BEGIN
  PERFORM @here.credit_ledger_unbalanced(
    tg_op || ' on users is refused: those who have entries stay as long as their books');
  RETURN NULL;
END""",
}
PLAINLY = "SET search_path = pg_catalog, pg_temp"
BY_INDEX = f"{PLAINLY} SET enable_seqscan = off SET enable_bitmapscan = off"


def function_ddl(signature: str, result: str, settings: str, body: str) -> str:
    """DDL that makes the function where our tables are."""
    return f"""
DO $make$ BEGIN
  EXECUTE pg_catalog.replace($ddl$
CREATE OR REPLACE FUNCTION @here.{signature} RETURNS {result} LANGUAGE plpgsql
{settings} AS $${body} $$
$ddl$, '@here', pg_catalog.quote_ident(pg_catalog.current_schema()));
END $make$"""


def trigger_functions(bodies: Mapping[str, str], settings: str) -> tuple[str, ...]:
    """DDL of functions that triggers run, by name."""
    return tuple(function_ddl(f"{name}()", "trigger", settings, bodies[name]) for name in bodies)


_LOOKING = {**JOURNAL_FUNCTIONS, **LOT_FUNCTIONS, **HOLD_FUNCTIONS}
CREATE_FUNCTIONS = (
    function_ddl("credit_ledger_unbalanced(problem text)", "void", PLAINLY, _UNBALANCED),
    *trigger_functions(_REFUSALS, PLAINLY),
    *trigger_functions(_LOOKING, BY_INDEX),
)
"""What the triggers run. Each statement can be executed again, over the function that is there."""

APPEND_ONLY = {
    "credit_entries": "UPDATE OR DELETE OR TRUNCATE",
    "credit_postings": "UPDATE OR DELETE OR TRUNCATE",
    "credit_lots": "DELETE OR TRUNCATE",
    "credit_holds": "DELETE OR TRUNCATE",
    "credit_debts": "DELETE OR TRUNCATE",
    "credit_entry_metadata": "UPDATE OR TRUNCATE",
}

# name: operation, table, the names of its rows, function
_NEW, _BOTH = "NEW TABLE AS {}", "OLD TABLE AS before NEW TABLE AS after"
AT_ONCE = {
    "users_balanced": ("UPDATE", "users", _BOTH, "credit_users_balanced"),
    **{
        f"{table}_balanced": ("INSERT", table, _NEW.format("added"), f"{table}_balanced")
        for table in ("credit_entries", "credit_postings")
    },
    "credit_lots_made": ("INSERT", "credit_lots", _NEW.format("after"), "credit_lots_made"),
    "credit_lots_balanced": ("UPDATE", "credit_lots", _BOTH, "credit_lots_balanced"),
    **{
        f"credit_holds_{name}": (
            *(operation, "credit_holds"),
            *(_NEW.format("after"), "credit_holds_balanced"),
        )
        for name, operation in (("made", "INSERT"), ("balanced", "UPDATE"))
    },
    "credit_debts_made": ("INSERT", "credit_debts", _NEW.format("after"), "credit_debts_made"),
    "credit_debts_balanced": ("UPDATE", "credit_debts", _BOTH, "credit_debts_balanced"),
    "credit_metadata_added": (
        *("INSERT", "credit_entry_metadata"),
        *(_NEW.format("added"), "credit_metadata_added"),
    ),
    "credit_metadata_erased": (
        *("DELETE", "credit_entry_metadata"),
        *("OLD TABLE AS gone", "credit_metadata_erased"),
    ),
}

_HAS_BOOKS = (
    "old.credits_version > 0 OR new.credits_version > 0"
    " OR old.credits_balance <> 0 OR new.credits_balance <> 0"
)
_BOUGHT = (
    *("transaction_id", "user_id", "stripe_session_id", "amount_paid_cents", "currency"),
    *("credits_added", "predates_ledger", "created_at"),
)
_LEARNT_ONCE = ("payment_intent_id", "invoice_id", "livemode")
_BOUGHT_CHANGES = " OR ".join(
    (
        (
            f"({', '.join(f'new.{each}' for each in _BOUGHT)})"
            f" <> ({', '.join(f'old.{each}' for each in _BOUGHT)})"
        ),
        *(f"new.{each} IS DISTINCT FROM coalesce(old.{each}, new.{each})" for each in _LEARNT_ONCE),
    )
)
_LOTS_FIXED = ("user_id", "seq", "source", "priority", "granted", "expires_at", "transaction_id")
# Users who have entries are kept, which a foreign key from every entry would do otherwise. No entry
# can be added meanwhile: its statement has to raise the user's version, and so waits for the row.
# The first trigger about lots does not run where only what remains changes.
# name: operation, table, condition, function
_ROW_BY_ROW = {
    "users_kept": ("DELETE", "users", "old.credits_version > 0", "credit_users_kept"),
    "users_renumbered": (
        *("UPDATE OF user_id", "users"),
        *(f"new.user_id <> old.user_id AND ({_HAS_BOOKS})", "credit_users_kept"),
    ),
    "credit_lots_fixed": (
        *(f"UPDATE OF {', '.join(_LOTS_FIXED)}", "credit_lots"),
        (
            "(new.user_id, new.seq, new.source, new.priority, new.granted)"
            " <> (old.user_id, old.seq, old.source, old.priority, old.granted)"
            " OR new.expires_at IS DISTINCT FROM old.expires_at"
            " OR new.transaction_id IS DISTINCT FROM old.transaction_id"
        ),
        "credit_lots_fixed",
    ),
    "credit_lots_moved_on": (
        *("UPDATE", "credit_lots"),
        (
            "new.last_seq <= old.last_seq"
            " AND (new.last_seq, new.remaining) <> (old.last_seq, old.remaining)"
        ),
        "credit_lots_fixed",
    ),
    "transactions_fixed": (
        f"UPDATE OF {', '.join((*_BOUGHT, *_LEARNT_ONCE))}",
        *("transactions", _BOUGHT_CHANGES, "transactions_fixed"),
    ),
    "transactions_of_now": ("INSERT", "transactions", "new.predates_ledger", "transactions_fixed"),
}

_AT_COMMIT = {
    "users_booked_new": ("INSERT", "new.credits_balance <> 0 OR new.credits_version <> 0"),
    "users_booked": (
        "UPDATE OF credits_balance",
        "new.credits_balance <> old.credits_balance AND new.credits_version = old.credits_version",
    ),
}

_TRIGGERS = (
    *(
        f"CREATE TRIGGER {table}_append_only BEFORE {operations} ON {table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION credit_ledger_append_only()"
        for table, operations in APPEND_ONLY.items()
    ),
    *(
        f"CREATE TRIGGER {name} AFTER {operation} ON {table} REFERENCING {rows}"
        f" FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
        for name, (operation, table, rows, function) in AT_ONCE.items()
    ),
    (
        "CREATE TRIGGER users_emptied BEFORE TRUNCATE ON users"
        " FOR EACH STATEMENT EXECUTE FUNCTION credit_users_kept()"
    ),
    *(
        f"CREATE TRIGGER {name} BEFORE {operation} ON {table} FOR EACH ROW WHEN ({condition})"
        f" EXECUTE FUNCTION {function}()"
        for name, (operation, table, condition, function) in _ROW_BY_ROW.items()
    ),
    *(
        f"CREATE CONSTRAINT TRIGGER {name} AFTER {operation} ON users"
        f" DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ({condition})"
        " EXECUTE FUNCTION credit_users_booked()"
        for name, (operation, condition) in _AT_COMMIT.items()
    ),
)

CREATE_TRIGGERS = tuple(statement.strip() for statement in (*CREATE_FUNCTIONS, *_TRIGGERS))
"""Every function and trigger, in the order in which they can be made."""

DROP_TRIGGERS = (
    *(f"DROP TRIGGER {table}_append_only ON {table}" for table in APPEND_ONLY),
    *(f"DROP TRIGGER {name} ON {table}" for name, (_, table, *_) in AT_ONCE.items()),
    *(f"DROP TRIGGER {name} ON {table}" for name, (_, table, *_) in _ROW_BY_ROW.items()),
    *(f"DROP TRIGGER {name} ON users" for name in ("users_emptied", *_AT_COMMIT)),
    *(
        f"-- squawk-ignore ban-drop-function\nDROP FUNCTION {name}"
        for name in (*_LOOKING, *_REFUSALS, "credit_ledger_unbalanced")
    ),
)
"""The way back."""
