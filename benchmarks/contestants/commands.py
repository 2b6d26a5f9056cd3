"""Commands of `flashslides`, each a process of its own, one after the other."""

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.checkouts import HERE, Checkout
from benchmarks.contestants.base import Clocks, ContestantFailed, Database, Load, Outcome
from benchmarks.seed import user_ids

USER = "<user>"
"""In the place of an argument: the first user's id."""


@dataclass(frozen=True)
class CommandContestant:
    """One command, as an operator types it; its CPU is the client's."""

    name: str
    arguments: Sequence[str]
    checkout: Checkout = HERE
    database: Database = Database.LEDGER

    def run(self, load: Load, clocks: Clocks) -> Outcome:
        """Repeat it for as long as the load says, at least once; the first is not counted."""
        [user_id] = user_ids(1)
        arguments = [str(user_id) if each == USER else each for each in self.arguments]
        command = [str(self.checkout.python), "-m", "src.cli", *arguments]
        environment = self.checkout.environment(os.environ)
        latencies_ms: list[float] = []
        cpu_seconds = 0.0
        with tempfile.TemporaryDirectory(prefix="flashslides-") as folder:  # without a .env
            self._run(command, environment, folder)  # writes what Python compiles
            clocks.start()
            started = now = time.perf_counter()
            while now < started + load.seconds or not latencies_ms:
                cpu_seconds += self._run(command, environment, folder)
                before, now = now, time.perf_counter()
                latencies_ms.append((now - before) * 1e3)
            clocks.stop()
        done = len(latencies_ms)
        return Outcome(done, latencies_ms, now - started, cpu_seconds, unwritten=done)

    def _run(self, command: Sequence[str], environment: dict[str, str], folder: str) -> float:
        """Run it once; its CPU in seconds."""
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise ContestantFailed(f"{self.name}: {command} ended with {process.returncode}")
        return used.ru_utime + used.ru_stime
