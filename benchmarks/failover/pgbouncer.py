"""One PgBouncer before one server, and its console."""

import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psycopg

from benchmarks.failover.processes import HarnessFailed, Process, until
from benchmarks.failover.programs import program
from src.local_postgres import ConnectionParameters, free_port
from src.local_postgres.accounts import Account

HOST = "127.0.0.1"
_CONSOLE = "pgbouncer"
_SETTINGS = {
    "pool_mode": "transaction",
    "auth_type": "scram-sha-256",
    "max_client_conn": "500",
    "default_pool_size": "40",
    # How long after a failed login it tries again: 15 s by default, and everybody waits for it.
    "server_login_retry": "0.2",
}


class PgBouncer:
    """A PgBouncer that runs; `PGBOUNCER` names another program than Debian's."""

    def __init__(
        self,
        folder: Path,
        runner: Account,
        server: ConnectionParameters,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`settings` are PgBouncer's own, beside and before ours."""
        self.port = free_port()
        self._server = server
        self._folder = folder
        self._runner = runner
        self._program = program("pgbouncer")
        users = folder / "pgbouncer.users"
        users.write_text(f'"{server.user}" "{server.password}"\n')
        self._configuration = folder / "pgbouncer.ini"
        lines = {
            "listen_addr": HOST,
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_file": str(users),
            **_SETTINGS,
            **(settings or {}),
        }
        self._configuration.write_text(
            "[databases]\n"
            f"{server.database} = host={server.host} port={server.port}\n"
            "[pgbouncer]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items())
        )
        for each in (users, self._configuration):
            runner.own(each)
        self.start()

    @property
    def connection(self) -> ConnectionParameters:
        """Where its clients connect."""
        server = self._server
        return ConnectionParameters(HOST, self.port, server.user, server.password, server.database)

    def start(self) -> None:
        """Start it, until it listens.

        Raises:
            HarnessFailed: it does not.
        """
        command: list[str | Path] = [self._program, "-q", self._configuration]
        self._process = Process("pgbouncer", command, self._folder, self._runner)
        until(lambda: self._listens() or self._process.has_ended, "PgBouncer")
        if self._process.has_ended:
            raise HarnessFailed(f"PgBouncer did not start: {self._process.tail()}")

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def stop(self) -> None:
        """End it; who is connected is cut off."""
        self._process.signal(signal.SIGTERM)
        self._process.stop()

    def order(self, command: str) -> None:
        """Give a command on its console, such as PAUSE."""
        with self._console() as console:
            console.execute(command.encode())

    def version(self) -> str:
        """What it says it is."""
        said = subprocess.run(
            [self._program, "--version"], capture_output=True, text=True, check=True
        )
        return said.stdout.splitlines()[0]

    def _console(self) -> psycopg.Connection:
        server = self._server
        return psycopg.connect(
            host=HOST,
            port=self.port,
            user=server.user,
            password=server.password,
            dbname=_CONSOLE,
            autocommit=True,
            prepare_threshold=None,
        )

    def _listens(self) -> bool:
        try:
            socket.create_connection((HOST, self.port), timeout=5).close()
        except OSError:
            return False
        return True
