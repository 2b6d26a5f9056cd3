"""PostgreSQL's own load generator: what the database does with one transaction an operation."""

import os
import re
import resource
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contestants.base import Clocks, ContestantFailed, Database, Load, Outcome
from src.local_postgres import ConnectionParameters

_PATIENCE_SECONDS = 60
_PROCESSED = re.compile(r"^number of transactions actually processed: (\d+)", re.MULTILINE)
_RATE = re.compile(r"^tps = ([0-9.]+) \(without initial connection time\)", re.MULTILINE)
_LOG_FIELD_MICROSECONDS = 2
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
        """Run pgbench once; again for longer if it ended before its first transaction did."""
        seconds = max(1, round(load.seconds))
        return (
            self._run(load, clocks, seconds)
            or self._run(load, clocks, seconds * _LONGER)
            or Outcome(0, [], seconds, 0)
        )

    def _run(self, load: Load, clocks: Clocks, seconds: int) -> Outcome | None:
        with tempfile.TemporaryDirectory(prefix="flashslides-pgbench-") as folder:
            cpu_before = _cpu_seconds()
            clocks.start()
            report = self._execute(load, Path(folder), f"--time={seconds}")
            clocks.stop()
            cpu_used = _cpu_seconds() - cpu_before
            latencies = _latencies(Path(folder))
        processed, rate = _PROCESSED.search(report), _RATE.search(report)
        if processed is None:
            raise ContestantFailed(f"pgbench's report was not understood:\n{report}")
        acknowledged = int(processed[1])
        if acknowledged == 0 or rate is None:
            return None
        return Outcome(acknowledged, latencies, acknowledged / float(rate[1]), cpu_used)

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


def _latencies(folder: Path) -> list[float]:
    """Return the milliseconds of each transaction, from pgbench's log."""
    return [
        int(line.split()[_LOG_FIELD_MICROSECONDS]) / 1000
        for log in folder.glob("log.*")
        for line in log.read_text(encoding="ascii").splitlines()
    ]


def _cpu_seconds() -> float:
    """Return what our ended children used; the server is not our child."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
