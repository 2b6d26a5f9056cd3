"""Commands of `flashslides`, each a process of its own, one after the other."""

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.checkouts import HERE, Checkout
from benchmarks.contestants.base import Clocks, ContestantFailed, Database, Load, Outcome
from benchmarks.seed import user_ids

USER = "<user>"
"""In the place of an argument: the first user's id."""
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class CommandContestant:
    """One command, as an operator types it; its CPU is the client's."""

    name: str
    arguments: Sequence[str]
    checkout: Checkout = HERE
    database: Database = Database.LEDGER
    is_for_all: bool = False
    """Whether it does something for each user, which then is an operation; else the command is."""

    def run(self, load: Load, clocks: Clocks) -> Outcome:
        """Repeat it for as long as the load says, at least once; the first is not counted."""
        [user_id] = user_ids(1)
        arguments = [str(user_id) if each == USER else each for each in self.arguments]
        latencies_ms: list[float] = []
        cpu_seconds = peak_mib = 0.0
        run_command(self.checkout, ["credits", "show", str(user_id)])  # writes what is compiled
        if not self.is_for_all:
            run_command(self.checkout, arguments)
        clocks.start()
        started = now = time.perf_counter()
        while now < started + load.seconds or not latencies_ms:
            ran = run_command(self.checkout, arguments)
            cpu_seconds += ran.cpu_seconds
            peak_mib = max(peak_mib, ran.peak_mib)
            before, now = now, time.perf_counter()
            latencies_ms.append((now - before) * 1e3)
        clocks.stop()
        done = len(latencies_ms)
        if self.is_for_all:
            done *= load.user_count
            latencies_ms = [each / load.user_count for each in latencies_ms] * load.user_count
        return Outcome(
            done, latencies_ms, now - started, cpu_seconds, unwritten=done, peak_mib=peak_mib
        )


@dataclass(frozen=True)
class Ran:
    """What a process used."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    """The most memory it had (`VmHWM`)."""


def run_command(
    checkout: Checkout, arguments: Sequence[str], more: Mapping[str, str] | None = None
) -> Ran:
    """Run `flashslides …` of a checkout once, in an environment with `more` variables.

    Raises:
        ContestantFailed: it ended with anything but 0.
    """
    command = [str(checkout.python), "-m", "src.cli", *arguments]
    environment = checkout.environment(os.environ | (more or {}))
    with tempfile.TemporaryDirectory(prefix="flashslides-") as folder:  # without a .env
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        watched = _Peak(process.pid)
        assert process.stderr is not None  # noqa: S101  it is a pipe
        said = process.stderr.read()
        process.stderr.close()
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        peak_mib = watched.end()
    if process.returncode:
        raise ContestantFailed(f"{command} ended with {process.returncode}:\n{said[-2_000:]}")
    return Ran(seconds, used.ru_utime + used.ru_stime, peak_mib)


class _Peak:
    """Looks at a process until it ends: `ru_maxrss` has its parent's memory in it."""

    def __init__(self, pid: int) -> None:
        self._path = Path(f"/proc/{pid}/status")
        self._mib = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def end(self) -> float:
        """The most it had."""
        self._ended.set()
        self._thread.join()
        return self._mib

    def _watch(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            with suppress(OSError):
                lines = self._path.read_text(encoding="ascii").splitlines()
                self._mib = max(
                    [int(each.split()[1]) / 1024 for each in lines if each.startswith("VmHWM:")],
                    default=self._mib,
                )
