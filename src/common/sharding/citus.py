"""Groups on Citus: each schema is on one node, and what they look up is on all (decision 0070)."""

from typing import NamedTuple

from sqlalchemy import Connection, text

from src.common.database_settings import DatabasePooler, LedgerTriggers
from src.common.exceptions import SettingsError
from src.common.postgres.citus import is_citus
from src.common.settings import Settings

LOOKED_UP_BY_GROUPS = (
    "user_groups",
    "users_directory",
    "payments_directory",
    "notice_endpoints",
    "notice_endpoint_states",
)
"""What foreign keys, triggers and claims of groups look at in `public`; what is referred to comes
first."""

_WORKERS = text(
    "SELECT nodename, nodeport FROM pg_dist_node"
    " WHERE isactive AND shouldhaveshards AND noderole = 'primary' ORDER BY 1, 2"
)
_NODES_OF_GROUPS = text("""
    SELECT relnamespace::regnamespace::text AS schema, nodename, nodeport
    FROM pg_class
    JOIN pg_dist_shard ON logicalrelid = pg_class.oid
    JOIN pg_dist_placement USING (shardid)
    JOIN pg_dist_node USING (groupid)
    WHERE relname = 'users' AND noderole = 'primary'
""")
_NOT_ON_ALL_NODES = text(
    "SELECT name FROM unnest(CAST(:names AS text[])) WITH ORDINALITY AS wanted (name, place)"
    " WHERE NOT EXISTS (SELECT FROM pg_dist_partition"
    " WHERE logicalrelid = CAST('public.' || name AS regclass) AND partmethod = 'n'"
    " AND repmodel = 't') ORDER BY place"
)
_PUT_ON_ALL_NODES = text("SELECT create_reference_table(CAST('public.' || :name AS regclass))")
_ALLOWED = (
    # Ours look at rows of their group, and at what is on every node.
    "SET citus.enable_unsafe_triggers = on",
    "SET citus.enable_schema_based_sharding = on",
)


class Node(NamedTuple):
    """A server of Citus's, as the coordinator calls it."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def workers(connection: Connection) -> list[Node]:
    """The nodes that take groups."""
    return [Node(*row) for row in connection.execute(_WORKERS)]


def nodes_of_groups(connection: Connection) -> dict[str, Node]:
    """Where each group is; nowhere else than everything where there is no Citus."""
    if not is_citus(connection):
        return {}
    return {schema: Node(*node) for schema, *node in connection.execute(_NODES_OF_GROUPS)}


def refuse_what_citus_cannot(connection: Connection, settings: Settings) -> None:
    """Stop what would fail there at its first spend.

    Raises:
        SettingsError: the ledger's triggers look at statements, which Citus cuts into several; or
            plans are made for any parameters, of which Citus has none.
    """
    wanted = {
        "DATABASE_LEDGER_TRIGGERS=commit": settings.database_ledger_triggers
        is LedgerTriggers.COMMIT,
        "DATABASE_POOLER=prepared": settings.database_pooler is not DatabasePooler.NONE,
    }
    missing = [each for each, is_so in wanted.items() if not is_so]
    if missing and is_citus(connection):
        raise SettingsError(f"SHARDING=schemas on Citus: set {' and '.join(missing)}")


def ready_for_groups(connection: Connection) -> None:
    """On Citus, have the schemas that this connection makes put on workers; elsewhere nothing.

    What groups look up is put on all nodes first, in one database transaction a table. Done again,
    it goes on where it stopped.

    Raises:
        SettingsError: no node takes groups.
    """
    if not is_citus(connection):
        return
    if not workers(connection):
        raise SettingsError("Citus has no node that takes groups: citus_add_node() adds one")
    for statement in _ALLOWED:
        connection.exec_driver_sql(statement)
    names = connection.scalars(_NOT_ON_ALL_NODES, {"names": list(LOOKED_UP_BY_GROUPS)}).all()
    connection.commit()
    for name in names:
        connection.execute(_PUT_ON_ALL_NODES, {"name": name})
        connection.commit()
