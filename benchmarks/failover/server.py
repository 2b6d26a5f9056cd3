"""One PostgreSQL of Debian's in a folder of its own, that can be restarted under its clients."""

import signal
from pathlib import Path

import psycopg

from benchmarks.failover.processes import HarnessFailed, Process, until
from benchmarks.failover.programs import postgres_programs
from src.local_postgres import ConnectionParameters, free_port
from src.local_postgres.accounts import Account, run_as

HOST = "127.0.0.1"
PASSWORD = "of-a-server-that-lives-for-minutes"  # noqa: S105  and on loopback only
_SETTINGS = {"max_connections": "320", "shared_buffers": "256MB", "max_wal_size": "4GB"}


class Server:
    """A server that runs."""

    def __init__(self, folder: Path, runner: Account) -> None:
        self._folder = folder
        self._runner = runner
        self._programs = postgres_programs()
        self._data = folder / "data"
        password = folder / "password"
        password.write_text(PASSWORD)
        runner.own(password)
        made = run_as(
            runner,
            [
                *(self._programs / "initdb", "-D", self._data, "-U", "postgres", "-k"),
                *("-A", "scram-sha-256", f"--pwfile={password}", "--encoding=UTF8"),
            ],
        )
        if made.returncode != 0:
            raise HarnessFailed(f"initdb failed: {made.stderr[-1_000:]}")
        self.connection = ConnectionParameters(
            HOST, free_port(), "postgres", PASSWORD, "flashslides"
        )
        self.start()
        with self.connect("postgres") as admin:
            admin.execute("CREATE DATABASE flashslides")

    def start(self) -> None:
        """Start it, until it answers."""
        options = [f"-c{name}={value}" for name, value in _SETTINGS.items()]
        command: list[str | Path] = [
            *(self._programs / "postgres", "-D", self._data, "-k", self._folder),
            *("-h", HOST, "-p", str(self.connection.port), *options),
        ]
        self._process = Process("server", command, self._folder, self._runner)
        until(self._answers, "the server")

    def restart(self) -> None:
        """End all connections, stop in order, and start again."""
        self._process.signal(signal.SIGINT)
        until(lambda: self._process.has_ended, "the server's end")
        self.start()

    def stop(self) -> None:
        """Stop it in order."""
        self._process.signal(signal.SIGINT)
        until(lambda: self._process.has_ended, "the server's end")

    def connect(self, database: str = "flashslides") -> psycopg.Connection:
        """A connection straight to it; each statement commits."""
        return psycopg.connect(
            host=HOST,
            port=self.connection.port,
            user=self.connection.user,
            password=self.connection.password,
            dbname=database,
            autocommit=True,
            connect_timeout=10,
        )

    def _answers(self) -> bool:
        if self._process.has_ended:
            raise HarnessFailed(f"The server did not start: {self._process.tail()}")
        try:
            self.connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True
