"""The server process: starts it, stops it, knows whether it lives.

Whether it lives is asked of the server itself, then of a lock that its processes inherit. Never of
the number in postmaster.pid: it may be a zombie's, or by now another program's.
"""

import errno
import secrets
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.local_postgres.accounts import Account, run_as
from src.local_postgres.connection import HOST, ConnectionParameters
from src.local_postgres.errors import LocalPostgresError
from src.local_postgres.leases import is_locked, server_lock
from src.local_postgres.locations import Layout, write_private

if TYPE_CHECKING:
    import psycopg

START_TIMEOUT_SECONDS = 120
_STOP_TIMEOUT_SECONDS = 60
_POLL_SECONDS = 0.05
_CONNECT_TIMEOUT_SECONDS = 5
_LOG_BYTES_MAX = 10_000_000
_LOG_LINES_SHOWN = 15
_FREE_PORT_MIN = 20_000
_FREE_PORT_COUNT = 12_000  # Linux gives clients ports from 32768 on, macOS from 49152 on
_MAINTENANCE_DATABASE = "postgres"


@dataclass(frozen=True)
class PidFile:
    """What postmaster.pid says, true or not."""

    pid: int
    started: str
    port: int

    @property
    def run(self) -> str:
        """A name for this one run of the server."""
        return f"{self.pid} {self.started}"


@dataclass(frozen=True)
class Answer:
    """The server answered, and it serves our data."""

    version: str
    since: datetime
    clients: int
    """Other client connections than the one that asked."""


@dataclass(frozen=True)
class Silence:
    """No answer from our server, with what the attempt to connect met instead."""

    reason: str

    @property
    def is_hopeless(self) -> bool:
        """Whether waiting does not help: it is up, and refuses our password."""
        return "password authentication failed" in self.reason


def read_pid_file(layout: Layout) -> PidFile | None:
    """Return what postmaster.pid says; None where it is missing or only half there."""
    try:
        lines = (layout.pgdata / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        return PidFile(pid=int(lines[0]), started=lines[2].strip(), port=int(lines[3]))
    except (FileNotFoundError, ValueError, IndexError):
        return None


def ask(layout: Layout, parameters: ConnectionParameters) -> Answer | Silence:
    """Connect, and see that what answers is the server of this data folder."""
    import psycopg  # importing this package has to stay cheap

    try:
        with connect(parameters) as connection:
            row = connection.execute(
                "SELECT current_setting('server_version'), pg_postmaster_start_time(), "
                "current_setting('data_directory'), (SELECT count(*) FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid())"
            ).fetchone()
    except psycopg.Error as error:
        return Silence(str(error).strip())
    if row is None or Path(row[2]).resolve() != layout.pgdata:
        return Silence("a PostgreSQL server with other data answers there")
    return Answer(version=row[0].split()[0], since=row[1].astimezone(UTC), clients=row[3])


def ensure_database(parameters: ConnectionParameters) -> None:
    """Create the application's database, unless it is there."""
    from psycopg import sql

    with connect(parameters) as connection:
        known = connection.execute(
            "SELECT 1 FROM pg_database WHERE datname = %s", [parameters.database]
        ).fetchone()
        if known is None:
            statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(parameters.database))
            connection.execute(statement)


def connect(parameters: ConnectionParameters) -> "psycopg.Connection[tuple[Any, ...]]":
    """Open a connection for maintenance, whatever PG… variables the environment has."""
    import psycopg

    return psycopg.connect(
        host=parameters.host,
        port=parameters.port,
        user=parameters.user,
        password=parameters.password,
        dbname=_MAINTENANCE_DATABASE,
        connect_timeout=_CONNECT_TIMEOUT_SECONDS,
        sslmode="disable",
        gssencmode="disable",
        options="",
        autocommit=True,
    )


def has_living_processes(layout: Layout) -> bool:
    """Whether a process of a server we started still lives, be it one whose parent was killed."""
    return is_locked(layout.server_lock)


def port_is_busy(port: int) -> bool:
    """Whether another program listens on this port of the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:  # what else may be wrong with a port, the server says itself
            return error.errno == errno.EADDRINUSE
    return False


def free_port() -> int:
    """Return a port that nobody uses at this moment, from where none is given to clients.

    A port of the system's own choice would lie among those of outgoing connections, one of which
    may have it at the next start.
    """
    port = _FREE_PORT_MIN + secrets.randbelow(_FREE_PORT_COUNT)
    while port_is_busy(port):
        port = _FREE_PORT_MIN + secrets.randbelow(_FREE_PORT_COUNT)
    return port


def discard_stale_locks(layout: Layout) -> None:
    """Remove what a killed server left in its data folder.

    Only for a server known to be dead. PostgreSQL itself goes by the process number in these
    files, and refuses to start where that is a zombie's or by now another program's.
    """
    (layout.pgdata / "postmaster.pid").unlink(missing_ok=True)
    for path in layout.pgdata.glob(".s.PGSQL.*"):
        path.unlink()


def launch(layout: Layout, bin_dir: Path, account: Account) -> None:
    """Start the server and wait until it accepts connections.

    Nothing of an earlier run may live any more: see `has_living_processes` and `ask`.

    Raises:
        LocalPostgresError: with the last lines of its log, if it does not come up.
    """
    log_size_before = _log_for_appending(layout, account)
    with server_lock(layout, account) as descriptor:
        command: list[Path | str] = [
            *(bin_dir / "pg_ctl", "start", "--wait", "--silent"),
            *("--pgdata", layout.pgdata, "--log", layout.log),
            *("--timeout", str(START_TIMEOUT_SECONDS)),
        ]
        result = run_as(account, command, kept_descriptors=[descriptor])
    if result.returncode != 0:
        said = log_tail(layout, log_size_before) or result.stderr.strip()
        raise LocalPostgresError(
            f"The database server in {layout.folder} did not start. The end of its log, "
            f"{layout.log}:\n{said}"
        )


def shut_down(layout: Layout, bin_dir: Path, account: Account) -> None:
    """Stop the running server, cleanly; its clients are disconnected.

    Returns when its last process has ended: `pg_ctl` goes by postmaster.pid, which is gone a moment
    earlier.

    Raises:
        LocalPostgresError: if it does not stop in time.
    """
    command: list[Path | str] = [
        *(bin_dir / "pg_ctl", "stop", "--wait", "--silent", "--mode=fast"),
        *("--pgdata", layout.pgdata, "--timeout", str(_STOP_TIMEOUT_SECONDS)),
    ]
    deadline = time.monotonic() + _STOP_TIMEOUT_SECONDS
    result = run_as(account, command)
    while has_living_processes(layout):
        if result.returncode != 0 or time.monotonic() > deadline:
            reason = result.stderr.strip() or "its last processes do not end"
            raise LocalPostgresError(
                f"The database server in {layout.folder} did not stop: {reason}. The end of its "
                f"log, {layout.log}:\n{log_tail(layout)}"
            )
        time.sleep(_POLL_SECONDS)


def log_tail(layout: Layout, from_byte: int = 0) -> str:
    """Return the last lines of the server's log that were written after `from_byte`."""
    try:
        with layout.log.open("rb") as log:
            log.seek(from_byte)
            text = log.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-_LOG_LINES_SHOWN:])


def _log_for_appending(layout: Layout, account: Account) -> int:
    """Make the log, a new one when it has grown long, and return its size in bytes."""
    log = layout.log
    if log.exists() and log.stat().st_size > _LOG_BYTES_MAX:
        log.replace(log.with_name(f"{log.name}.1"))
    if not log.exists():
        write_private(log, "", account)
    return log.stat().st_size
