"""Child processes of the harness: started as an ordinary account, found again, none left behind."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from src.local_postgres.accounts import Account, is_root

PATIENCE_SECONDS = 120.0
"""A guard against hanging: on a busy machine everything takes its time."""
_POLL_SECONDS = 0.1
_LOG_SHOWN_CHARACTERS = 3_000


class HarnessFailed(Exception):
    """The harness itself did not get so far; the message says where."""


class Process:
    """A program of the harness; its output goes into a file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        folder: Path,
        runner: Account | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`runner` is who runs it where this is root; without one it is whoever runs this."""
        self.name = name
        self.log = folder / f"{name}.log"
        switches = runner if runner is not None and is_root() else None
        with self.log.open("ab") as written:
            self._child = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
                cwd=folder,
                env=os.environ if environment is None else environment,
                start_new_session=True,
                user=switches.uid if switches else None,
                group=switches.gid if switches else None,
                extra_groups=switches.groups if switches else None,
            )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._child.pid

    @property
    def has_ended(self) -> bool:
        """Whether it is gone."""
        return self._child.poll() is not None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        self._child.send_signal(number)

    def stop(self, patience_seconds: float = PATIENCE_SECONDS) -> int:
        """End it in order; its exit code."""
        self._child.terminate()
        try:
            return self._child.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            self._child.kill()
            return self._child.wait()

    def kill(self) -> None:
        """End it at once."""
        self._child.kill()
        self._child.wait()

    def tail(self) -> str:
        """The end of what it said."""
        return self.log.read_text(errors="replace")[-_LOG_SHOWN_CHARACTERS:]


def until(is_so: Callable[[], bool], what: str, patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for something.

    Raises:
        HarnessFailed: in vain.
    """
    deadline = time.monotonic() + patience_seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise HarnessFailed(f"Waited {patience_seconds:g} s in vain for {what}")
        time.sleep(_POLL_SECONDS)


def family(pid: int) -> list[int]:
    """A process and all that descend from it, as far as they are still linked to it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has just ended
                stat = (entry / "stat").read_text()
                parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    """Send all of them a signal; some may be gone."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def end_all_children() -> None:
    """Kill whatever descends from this process."""
    while len(left := family(os.getpid())) > 1:
        signal_all(left[1:], signal.SIGCONT)
        signal_all(left[1:], signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(_POLL_SECONDS)
