"""Contestants in Python: worker processes that start together, in this environment or another."""

import json
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from benchmarks.checkouts import HERE, Checkout
from benchmarks.contestants.base import Clocks, ContestantFailed, Database, Load, Outcome
from benchmarks.worker import Job

_PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class PythonContestant:
    """A way to move credits that Python processes of their own drive."""

    name: str
    calls: str
    """`module:class`, what `benchmarks/worker.py` drives."""
    database: Database = Database.LEDGER
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    checkout: Checkout = HERE

    def run(self, load: Load, clocks: Clocks) -> Outcome:
        """Start the workers, let them begin together, and add up what they did."""
        environment = {**os.environ, "DATABASE_NAME": self.database, **self.environment}
        return run_workers(
            self.name, self.calls, load, clocks, load.processes, environment, self.checkout
        )


def run_workers(
    name: str,
    calls: str,
    load: Load,
    clocks: Clocks,
    processes: int,
    environment: Mapping[str, str],
    checkout: Checkout = HERE,
) -> Outcome:
    """Have `processes` workers do the load together.

    Raises:
        ContestantFailed: if one of them does.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flashslides-")))
        jobs = _jobs(calls, load, processes, folder)
        workers = [stack.enter_context(_worker(name, job, environment, checkout)) for job in jobs]
        for worker in workers:
            worker.read("ready")
        clocks.start()
        for worker in workers:
            worker.write("go\n")
        for worker in workers:
            worker.read("done")
        clocks.stop()
        for worker in workers:
            worker.wait()
        return _outcome([json.loads(Path(job.report).read_bytes()) for job in jobs])


def _jobs(calls: str, load: Load, processes: int, folder: Path) -> list[Job]:
    shares = [load.callers // processes + (n < load.callers % processes) for n in range(processes)]
    return [
        Job(
            calls=calls,
            callers=share,
            seconds=load.seconds,
            user_count=load.user_count,
            first_number=load.first_number,
            numbers_drawn=load.numbers_drawn,
            processes=processes,
            report=str(folder / f"{number}.json"),
        )
        for number, share in enumerate(shares)
    ]


class _Worker:
    """One worker, spoken to by lines."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self._name = name
        self._process = process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for its end, which closes its connections; kill it if it has not come to one."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def wait(self) -> None:
        """Wait until it has put away what it used, and reported.

        Raises:
            ContestantFailed: if it could not.
        """
        if self._process.wait() != 0:
            raise self._failed()

    def read(self, expected: str) -> None:
        """Wait until it says so.

        Raises:
            ContestantFailed: if it has ended, or says something else.
        """
        line = _pipe(self._process.stdout).readline().strip()
        if line != expected:
            raise self._failed()

    def _failed(self) -> ContestantFailed:
        code = self._process.wait()
        return ContestantFailed(f"{self._name} failed: its process ended with {code}, see above.")

    def write(self, line: str) -> None:
        """Send it a line."""
        pipe = _pipe(self._process.stdin)
        pipe.write(line)
        pipe.flush()


def _worker(name: str, job: Job, environment: Mapping[str, str], checkout: Checkout) -> _Worker:
    process = subprocess.Popen(
        [str(checkout.python), "-m", "benchmarks.worker"],
        cwd=checkout.root,
        env=checkout.environment(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    worker = _Worker(name, process)
    worker.write(json.dumps(asdict(job)) + "\n")
    return worker


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None  # noqa: S101  all are pipes
    return pipe


def _outcome(reports: Sequence[dict[str, Any]]) -> Outcome:
    failures = Counter[str]()
    for report in reports:
        failures.update(report["failures"])
    return Outcome(
        acknowledged=sum(report["acknowledged"] for report in reports),
        latencies_ms=[us / 1000 for report in reports for us in report["latencies_us"]],
        elapsed_seconds=max(report["elapsed_seconds"] for report in reports),
        client_cpu_seconds=sum(report["cpu_seconds"] for report in reports),
        unwritten=sum(report["replayed"] for report in reports),
        failures=dict(failures),
    )
