"""`flashslides db start|stop|status|url|env|psql`: the embedded PostgreSQL server by hand."""

import os
import shutil
import signal
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote, urlencode

import typer

from src.cli.output import AsJson, print_json, print_record, say

if TYPE_CHECKING:
    from src.local_postgres import ConnectionParameters, ServerStatus

_PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}
_MASK = "********"


@dataclass(frozen=True)
class _Target:
    """What psql is told, in libpq's words."""

    hosts: str
    """One, or several separated by commas."""
    ports: str
    """Likewise, or one for all hosts."""
    user: str
    password: str = field(repr=False)
    database: str
    session_attrs: str = "any"
    connect_timeout_seconds: int | None = None


def register(app: typer.Typer) -> None:
    """Add the commands to the `db` group. They raise LocalPostgresError; the main app shows it."""
    app.command("start")(start_server)
    app.command("stop")(stop_server)
    app.command("status")(show_status)
    app.command("url")(show_url)
    app.command("env")(show_environment)
    app.command("psql", context_settings=_PASS_THROUGH)(run_psql)


def start_server() -> None:
    """Start the embedded server. It runs until `db stop`."""
    from src.local_postgres import start

    _refuse_where_not_local()
    server = start(on_progress=_report)
    did = "Started" if server.started_here else "It runs already, and keeps running:"
    say(
        f"{did} PostgreSQL {server.version} on {server.connection.host}:{server.connection.port} "
        f"(process {server.pid}, data in {server.folder})"
    )


def stop_server(
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Stop it even while other processes use it.")
    ] = False,
) -> None:
    """Stop the embedded server."""
    from src.local_postgres import stop

    say("Stopped." if stop(force=force) else "It was not running.")


def show_status(*, as_json: AsJson = False) -> None:
    """Show whether the embedded server runs, where, and who uses it."""
    from src.local_postgres import status

    seen = status()
    if as_json:
        print_json(asdict(seen))
        return
    print_record(dict(_rows(seen)), as_json=False)


def show_url(
    *,
    show_password: Annotated[
        bool, typer.Option("--show-password", help="Print the password instead of stars.")
    ] = False,
) -> None:
    """Print the database's URL: of DATABASE_HOST if it is set, otherwise of the embedded server."""
    say(_url(_configured() or _target(_embedded()), show_password=show_password))


def show_environment() -> None:
    """Print the embedded server's DATABASE_* lines for a .env file, INCLUDING THE PASSWORD."""
    connection = _embedded()
    say(f"DATABASE_HOST={connection.host}")
    say(f"DATABASE_PORT={connection.port}")
    say(f"DATABASE_NAME={connection.database}")
    say(f"DATABASE_USER={connection.user}")
    say(f"DATABASE_PASSWORD={connection.password}")


def run_psql(context: typer.Context) -> None:
    """Open psql on the database.

    That is the database of DATABASE_HOST if it is set, and otherwise the embedded one. The embedded
    server is started if it does not run.

    Arguments go to psql. Write `--` before the options -h and --help of psql, because this command
    has these too.
    """
    from src.local_postgres import running_server
    from src.local_postgres.binaries import binaries_for_new_data

    configured = _configured()
    if configured is not None:
        program = shutil.which("psql") or _psql_of(binaries_for_new_data().bin_dir)
        raise typer.Exit(_run(program, context.args, dict(os.environ), configured))
    _refuse_where_not_local()
    # Variables like PGSSLMODE are meant for another server.
    environment = {name: value for name, value in os.environ.items() if name[:2] != "PG"}
    with running_server(on_progress=_report) as server:
        program = _psql_of(server.bin_dir)
        exit_code = _run(program, context.args, environment, _target(server.connection))
    raise typer.Exit(exit_code)


def _psql_of(bin_dir: Path) -> str:
    """The psql that came with a server, else the one on PATH."""
    from src.local_postgres import LocalPostgresError

    program = shutil.which("psql", path=str(bin_dir)) or shutil.which("psql")
    if program is None:
        raise LocalPostgresError(
            f"There is no psql on PATH or in {bin_dir}. Install PostgreSQL's client programs, or "
            f"connect to the address `flashslides db url` prints with another program."
        )
    return program


def _run(
    program: str,
    arguments: list[str],
    environment: dict[str, str],
    target: _Target,
) -> int:
    """Run psql to its end; its exit code."""
    # The environment, not the arguments: those are for everybody to read in the process list.
    environment |= {
        "PGHOST": target.hosts,
        "PGPORT": target.ports,
        "PGUSER": target.user,
        "PGPASSWORD": target.password,
        "PGDATABASE": target.database,
        "PGTARGETSESSIONATTRS": target.session_attrs,
    }
    if target.connect_timeout_seconds is not None:
        environment["PGCONNECT_TIMEOUT"] = str(target.connect_timeout_seconds)
    # Ctrl-C cancels a statement in psql and must not end us, who hold the server for it.
    before = signal.signal(signal.SIGINT, _leave_it_to_psql)
    try:
        return subprocess.run(  # noqa: S603  # psql's own arguments, no shell
            [program, *arguments], env=environment, check=False
        ).returncode
    finally:
        signal.signal(signal.SIGINT, before)


def _refuse_where_not_local() -> None:
    from src.common.postgres.reach import refuse_embedded_server
    from src.common.settings import get_settings

    refuse_embedded_server(get_settings())


def _report(message: str) -> None:
    say(f"{message} ...", err=True)


def _leave_it_to_psql(_number: int, _frame: object) -> None:
    """Do nothing; unlike SIG_IGN, a handler is not inherited by psql."""


def _rows(seen: "ServerStatus") -> list[tuple[str, str]]:
    users = ", ".join(map(str, seen.holders)) or "nobody"
    end = "runs until `flashslides db stop`" if seen.keep_running else "stops with its last user"
    rows = [("server", "running" if seen.running else "stopped")]
    if seen.running:
        rows += [
            ("process", str(seen.pid or "does not answer")),
            ("since", f"{seen.since:%Y-%m-%d %H:%M:%S %Z}" if seen.since else "unknown"),
        ]
        rows += [("used by process", users), ("", end)]
    return [
        *rows,
        ("version", seen.version or "no data yet"),
        ("port", str(seen.port or "chosen at the first start")),
        ("data folder", str(seen.folder)),
        ("log", str(seen.log)),
    ]


def _embedded() -> "ConnectionParameters":
    from src.local_postgres import LocalPostgresError, read_connection, status

    connection = read_connection()
    if connection is None:
        raise LocalPostgresError(
            f"There is no embedded database in {status().folder} yet. Make one with "
            f"`flashslides db start`."
        )
    return connection


def _target(connection: "ConnectionParameters") -> _Target:
    return _Target(
        hosts=connection.host,
        ports=str(connection.port),
        user=connection.user,
        password=connection.password,
        database=connection.database,
    )


def _configured() -> _Target | None:
    """Return the database that DATABASE_HOST names, None without it."""
    from src.common.settings import get_settings

    settings = get_settings()
    if settings.database_host is None:
        return None
    password = settings.database_password
    return _Target(
        hosts=settings.database_host,
        ports=settings.database_port,
        user=settings.database_user,
        password=password.get_secret_value() if password else "",
        database=settings.database_name,
        session_attrs=settings.session_attrs,
        connect_timeout_seconds=settings.database_connect_timeout_seconds,
    )


def _url(target: _Target, *, show_password: bool) -> str:
    user = quote(target.user, safe="")
    if target.password:
        user += ":" + (quote(target.password, safe="") if show_password else _MASK)
    database = quote(target.database, safe="")
    place = {"host": target.hosts, "port": target.ports}
    if "," in target.hosts:
        place["target_session_attrs"] = target.session_attrs
    elif not target.hosts.startswith("/"):  # not the folder of a Unix socket
        host = f"[{target.hosts}]" if ":" in target.hosts else target.hosts
        return f"postgresql://{user}@{host}:{target.ports}/{database}"
    return f"postgresql://{user}@/{database}?{urlencode(place, safe='/,:')}"
