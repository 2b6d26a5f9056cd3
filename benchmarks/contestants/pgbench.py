"""PostgreSQL's own load generator: what the database does with one transaction an operation."""

import os
import re
import resource
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from benchmarks.contestants.base import Clocks, ContestantFailed, Database, Load, Outcome
from src.local_postgres import ConnectionParameters

_PATIENCE_SECONDS = 60
_PROCESSED = re.compile(r"^number of transactions actually processed: (\d+)", re.MULTILINE)
_LOG_FIELDS = 2, 4, 5
"""Of a transaction: its microseconds, and the second and microsecond at which it ended."""
_WARM_UP_SECONDS = 1.0
_WARM_UP_SECONDS_PER_CLIENT = 0.01
"""Every backend reads the catalogue and plans its statements first: 256 of them take seconds."""
_SAID_MAX = 1_000
_LONGER = 5


@dataclass(frozen=True)
class Pgbench:
    """PostgreSQL's own client, one thread, prepared statements."""

    name: str
    database: Database
    script: str
    program: Path
    connection: ConnectionParameters
    """To that database."""

    def run(self, load: Load, clocks: Clocks) -> Outcome:
        """Run pgbench once; again for longer if nothing ended within the window."""
        seconds = max(1, round(load.seconds))
        first = self._run(load, clocks, seconds)
        if first.latencies_ms:
            return first
        again = self._run(load, clocks, seconds * _LONGER)
        return replace(again, acknowledged=first.acknowledged + again.acknowledged)

    def _run(self, load: Load, clocks: Clocks, seconds: int) -> Outcome:
        warm_up = _WARM_UP_SECONDS + load.callers * _WARM_UP_SECONDS_PER_CLIENT
        with tempfile.TemporaryDirectory(prefix="flashslides-pgbench-") as folder:
            cpu_before = _cpu_seconds()
            clocks.start()
            report = self._execute(load, Path(folder), f"--time={round(warm_up) + seconds}")
            clocks.stop()
            cpu_used = _cpu_seconds() - cpu_before
            done = _done(Path(folder))
        processed = _PROCESSED.search(report)
        if processed is None:
            raise ContestantFailed(f"pgbench's report was not understood:\n{report}")
        opened = done[0].started + warm_up if done else 0.0
        window = [each for each in done if each.ended >= opened]
        return Outcome(
            acknowledged=int(processed[1]),
            latencies_ms=[each.milliseconds for each in window],
            elapsed_seconds=window[-1].ended - opened if window else seconds,
            client_cpu_seconds=cpu_used,
            operations_in_clocks=int(processed[1]),
        )

    def repeat(self, load: Load, operations: int) -> None:
        """Let each client do so many operations, however long they take; nothing is measured."""
        with tempfile.TemporaryDirectory(prefix="flashslides-pgbench-") as folder:
            self._execute(load, Path(folder), f"--transactions={operations}")

    def _execute(self, load: Load, folder: Path, until: str) -> str:
        (folder / "script.sql").write_text(self.script, encoding="utf-8")
        command: list[str | Path] = [
            self.program,
            *("--no-vacuum", "--protocol=prepared", "--jobs=1", "--log"),
            f"--log-prefix={folder / 'log'}",
            f"--file={folder / 'script.sql'}",
            f"--client={load.callers}",
            f"--define=first_number={load.first_number}",
            f"--define=numbers_drawn={load.numbers_drawn}",
            until,
        ]
        try:
            result = subprocess.run(
                command,
                env=_environment(self.connection),
                capture_output=True,
                text=True,
                check=True,
                timeout=load.seconds * _LONGER + _PATIENCE_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise ContestantFailed("pgbench did not end in time") from error
        except subprocess.CalledProcessError as error:
            said = error.stderr.strip()[:_SAID_MAX]
            raise ContestantFailed(f"pgbench failed: {said}") from error
        return result.stdout


def _environment(connection: ConnectionParameters) -> dict[str, str]:
    """Return how libpq connects; without time-outs: 256 clients may wait long for one row."""
    return {name: value for name, value in os.environ.items() if name[:2] != "PG"} | {
        "PGHOST": connection.host,
        "PGPORT": str(connection.port),
        "PGUSER": connection.user,
        "PGPASSWORD": connection.password,
        "PGDATABASE": connection.database,
        "LC_ALL": "C",
    }


class _Done(NamedTuple):
    """A transaction in pgbench's log."""

    ended: float
    """Seconds since 1970."""
    milliseconds: float

    @property
    def started(self) -> float:
        """When it began."""
        return self.ended - self.milliseconds / 1000


def _done(folder: Path) -> list[_Done]:
    """Return the transactions in the order in which they ended."""
    found: list[_Done] = []
    for log in folder.glob("log.*"):
        for line in log.read_text(encoding="ascii").splitlines():
            fields = line.split()
            took, second, microsecond = (int(fields[place]) for place in _LOG_FIELDS)
            found.append(_Done(second + microsecond / 1e6, took / 1000))
    return sorted(found)


def _cpu_seconds() -> float:
    """Return what our ended children used; the server is not our child."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
