"""What groups on Citus's workers come to, beside one server whose triggers look at COMMIT too.

`CITUS_DSN` names an empty database of a superuser's on a coordinator with workers, which keeps what
is made in it: `CITUS_DSN=… uv run python -m benchmarks.citus`. By turns with a durable server of
its own. It prints spends a second of the batch engine, and how long a balance takes.
"""

import os

from psycopg.conninfo import conninfo_to_dict

from benchmarks.groups import Variables, make, measure, options_of
from benchmarks.output import tell
from benchmarks.server import SERVER_SETTINGS, temporary_server
from src.common.database import dispose_db
from src.local_postgres import ConnectionParameters

ONE_SERVER, CITUS = "one server", "Citus"
BOUND_OF_RATE = 0.9
_COMMIT = {"DATABASE_LEDGER_TRIGGERS": "commit"}


def main() -> None:
    """Make both databases, measure by turns, and print a table."""
    options = options_of(__doc__)
    on_citus = _on_citus(os.environ["CITUS_DSN"])
    with temporary_server(options.folder, SERVER_SETTINGS, tell) as server:
        told = {ONE_SERVER: _on_one_server(server.connection), CITUS: on_citus}
        people = {each: make(told[each], options) for each in told}
        measure(options, told, people).show(options.callers, f"≥ {BOUND_OF_RATE}", "none")
        dispose_db()


def _on_one_server(connection: ConnectionParameters) -> Variables:
    where = _where(connection.host, str(connection.port), connection.user, connection.password)
    return where | {"SHARDING": "none", "DATABASE_NAME": connection.database}


def _on_citus(dsn: str) -> Variables:
    given = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    where = _where(
        given["host"], given.get("port", "5432"), given["user"], given.get("password", "none")
    )
    return where | {
        "SHARDING": "schemas",
        "DATABASE_NAME": given["dbname"],
        "DATABASE_POOLER": "prepared",
    }


def _where(host: str, port: str, user: str, password: str) -> Variables:
    return _COMMIT | {
        "DATABASE_HOST": host,
        "DATABASE_PORT": port,
        "DATABASE_DIRECT_HOST": host,
        "DATABASE_DIRECT_PORT": port,
        "DATABASE_USER": user,
        "DATABASE_PASSWORD": password,
        "DATABASE_POOLER": "none",
    }


if __name__ == "__main__":
    main()
