"""The triggers that keep the ledger append-only and refuse books that do not balance.

The second guard (rule 9, decision 0020). The books are written in one statement
(`writing.py`), and at its end triggers that see all its rows check them against what the tables now
hold: set by set, so that a row of a batch costs little (decision 0012). With the same looks they
check that an entry has its user, a posting its entry and its lot, in place of foreign keys
(decision 0019). What the document's own code may leave undone until it commits, a balance without
its entry, is checked at commit.
Entries and postings refuse UPDATE, DELETE and TRUNCATE, owners included; so does a user who has
entries refuse to go. All raise P0001 `LEDGER_UNBALANCED: …`, never an
integrity error, which the document's own handler would take for a duplicate.

`create_all` runs these statements, and so do the newest migrations about triggers. To change a
function, move its text of now into the migration that made it, and write one that replaces it.
"""

from sqlalchemy import Connection, MetaData, event, text

from src.common.models.credit_ledger import CREATE_LEDGER
from src.common.models.ledger_triggers_chain import CREATE_CHAIN
from src.common.models.ledger_triggers_ddl import CREATE_FUNCTIONS, CREATE_TRIGGERS, DROP_TRIGGERS

__all__ = ["CREATE_FUNCTIONS", "CREATE_TRIGGERS", "DROP_TRIGGERS", "create_after_create_all"]


def create_after_create_all(metadata: MetaData) -> None:
    """Have `metadata.create_all` make the triggers too, so that it makes the migrations' schema."""
    event.listen(metadata, "after_create", _create)


def _create(_metadata: MetaData, connection: Connection, **_others: object) -> None:
    standing = connection.exec_driver_sql(
        "SELECT count(*) FROM pg_trigger WHERE tgname = 'users_kept'"
        " AND tgrelid = to_regclass('users')"
    ).scalar_one()
    if not standing:
        for statement in (*CREATE_TRIGGERS, *CREATE_CHAIN, CREATE_LEDGER):
            connection.execute(text(statement))
