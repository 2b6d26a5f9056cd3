"""The server's figures: whose open database transaction counts."""

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from src.common.postgres.server_figures import STATES, server_figures


@pytest.mark.parametrize(
    ("application", "oldest"), [("pg_dump", 60), ("pg_dumpall", 60), ("psql", 3_600)]
)
def test_a_backup_s_database_transaction_is_not_the_oldest(
    db: Session, application: str, oldest: float
) -> None:
    """It is open for as long as it takes; anybody else's counts. Its connection is counted."""
    db.execute(
        text(
            "CREATE TEMP VIEW pg_stat_activity AS"  # noqa: S608  our own words
            " SELECT 'client backend' AS backend_type, 0 AS pid, 'active' AS state, *"
            f" FROM (VALUES ('{application}', clock_timestamp() - interval '1 hour'),"
            " ('', clock_timestamp() - interval '1 minute')) AS made (application_name, xact_start)"
        )
    )
    db.execute(text("SET LOCAL search_path = pg_temp, public, pg_catalog"))
    found = server_figures(db)
    assert oldest <= found.oldest_transaction_seconds < oldest + 59
    assert found.connections["active"] == 2


def test_connections_are_told_by_name_and_by_state(db: Session) -> None:
    """Both sum to the same; every state has a number, and what is hidden is `other`."""
    db.execute(
        text(
            "CREATE TEMP VIEW pg_stat_activity AS"
            " SELECT 'client backend' AS backend_type, 0 AS pid, made.*,"
            " clock_timestamp() AS xact_start"
            " FROM (VALUES ('api', 'idle'), ('api', 'idle'), ('api', 'active'),"
            " ('psql', 'idle in transaction (aborted)'), (NULL, NULL))"
            " AS made (application_name, state)"
        )
    )
    db.execute(text("SET LOCAL search_path = pg_temp, public, pg_catalog"))
    found = server_figures(db)
    assert found.connections_of == {
        ("api", "idle"): 2,
        ("api", "active"): 1,
        ("psql", "idle in transaction"): 1,
        ("", "other"): 1,
    }
    assert found.connections == {"active": 1, "idle": 2, "idle in transaction": 1, "other": 1}
    assert tuple(found.connections) == STATES
