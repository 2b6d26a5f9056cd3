"""The triggers that guard the chain of entries (decision 0061), as DDL.

An entry's hash may be added to it, once, and nothing else may change. As soon as all entries have
one, none comes without. Whether a hash is right is for `verify` to say: PostgreSQL would have to
make it again.
"""

from src.common.models.credit_entry import CreditEntry
from src.common.models.ledger_triggers_ddl import PLAINLY, function_ddl

_HASH = "entry_hash"
_FIXED = [name for name in CreditEntry.__table__.columns.keys() if name != _HASH]  # noqa: SIM118  columns are no mapping


def _columns(row: str) -> str:
    return f"({', '.join(f'{row}.{name}' for name in _FIXED)})"


CREATE_CHAIN_FUNCTION = function_ddl(
    "credit_entries_chained()",
    "trigger",
    # As its owner: a role that may write entries goes on before it is granted the new table.
    f"SECURITY DEFINER {PLAINLY}",
    """
BEGIN
  IF EXISTS (SELECT FROM @here.credit_ledgers WHERE chained_at IS NOT NULL) THEN
    PERFORM @here.credit_ledger_unbalanced(format(
      'entry %s of user %s comes without its hash, and all others have one',
      new.seq, new.user_id));
  END IF;
  RETURN new;
END""",
)
_REFUSED = "EXECUTE FUNCTION credit_ledger_append_only()"
CREATE_CHAIN = (
    CREATE_CHAIN_FUNCTION,
    "DROP TRIGGER credit_entries_append_only ON credit_entries",
    (
        f"CREATE TRIGGER credit_entries_append_only BEFORE UPDATE OF {', '.join(_FIXED)} OR DELETE"
        f" OR TRUNCATE ON credit_entries FOR EACH STATEMENT {_REFUSED}"
    ),
    (
        "CREATE TRIGGER credit_entries_hashed_once BEFORE UPDATE ON credit_entries FOR EACH ROW"
        f" WHEN (old.{_HASH} IS NOT NULL OR new.{_HASH} IS NULL"
        f" OR {_columns('new')} IS DISTINCT FROM {_columns('old')}) {_REFUSED}"
    ),
    (
        "CREATE TRIGGER credit_entries_chained BEFORE INSERT ON credit_entries FOR EACH ROW"
        f" WHEN (new.{_HASH} IS NULL) EXECUTE FUNCTION credit_entries_chained()"
    ),
    (
        "CREATE TRIGGER credit_ledgers_append_only BEFORE UPDATE OF ledger_number, ledger_id"
        f" OR DELETE OR TRUNCATE ON credit_ledgers FOR EACH STATEMENT {_REFUSED}"
    ),
    (
        "CREATE TRIGGER credit_ledgers_chained_once BEFORE UPDATE ON credit_ledgers FOR EACH ROW"
        " WHEN (old.chained_at IS NOT NULL OR new.ledger_number <> old.ledger_number"
        f" OR new.ledger_id <> old.ledger_id) {_REFUSED}"
    ),
)
"""In the order in which they can be executed, where `ledger_triggers.CREATE_TRIGGERS` were."""
