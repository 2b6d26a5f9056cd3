"""PostgreSQL's settings of our sessions: time-outs, what it tells us, whose tables are seen."""

from src.common.database_settings import Sharding
from src.common.postgres.routes import search_path
from src.common.settings import Settings

SPOKEN = {"client_min_messages": "notice"}
"""PostgreSQL's default. Where a role or database asks for errors alone, nobody would hear that a
COMMIT has not reached the standbys (`confirmed_commits.py`)."""
_ON_CITUS = {
    # Shards are hidden from who looks at the catalogue, by a look at each row: over eight groups
    # the drivers' look at one type took 20 seconds.
    "citus.override_table_visibility": "off",
    # Every purchase writes the directory, which is on all nodes. Locks of rows, held on each until
    # the end, have them agree; Citus would lock the whole table as long.
    "citus.all_modifications_commutative": "on",
}
"""To other servers this means nothing."""


def session_settings(settings: Settings) -> dict[str, str]:
    """PostgreSQL's own names of the time-outs, in milliseconds, and what it is to tell us.

    No plan is compiled: that takes a third of a second, and none here gains as much by it.
    """
    idle = settings.database_idle_in_transaction_session_timeout_ms
    return {
        "lock_timeout": str(settings.database_lock_timeout_ms),
        "statement_timeout": str(settings.database_statement_timeout_ms),
        "idle_in_transaction_session_timeout": str(idle),
        "jit": "off",
        **settings_of_all(settings),
    }


def settings_of_all(settings: Settings) -> dict[str, str]:
    """What migrations' sessions are told too, which have no time-outs."""
    return SPOKEN if settings.sharding is Sharding.NONE else SPOKEN | _ON_CITUS


def session_settings_statement(settings: Settings, route: str | None = None) -> str:
    """The same for one database transaction, in one round trip.

    A pooler refuses them as start-up options, and a plain SET would leak to the next client. With
    them goes whose tables are seen, where groups of users have their own.
    """
    chosen = session_settings(settings)
    if settings.sharding is Sharding.SCHEMAS:
        chosen["search_path"] = search_path(route)
    return "SELECT " + ", ".join(
        f"set_config('{name}', '{value}', true)" for name, value in chosen.items()
    )
