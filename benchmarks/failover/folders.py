"""A run's folder, and how a run ends: nothing is left behind, and the exit code says what came."""

import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from benchmarks.books import BooksDisagree
from benchmarks.failover.processes import HarnessFailed, end_all_children
from benchmarks.failover.programs import NotInstalled, account
from benchmarks.failover.trials import NOT_INSTALLED


@contextmanager
def folder_of_run(name: str) -> Generator[Path]:
    """A folder that the ordinary account may use; at the end it and all processes are gone."""
    parent = Path(tempfile.mkdtemp(prefix=f"flashslides-{name}-"))
    parent.chmod(0o755)
    account().own(parent)
    signal.signal(signal.SIGTERM, _leave)
    try:
        yield parent
    except Exception:
        _keep_logs(parent)
        raise
    finally:
        end_all_children()
        shutil.rmtree(parent, ignore_errors=True)


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def outcome(name: str, run: Callable[[], list[str]]) -> int:
    """Run it, print what failed; the exit code."""
    try:
        failures = run()
    except NotInstalled as error:
        print(f"{name}: NOT RUN: {error}")
        return NOT_INSTALLED
    except (HarnessFailed, BooksDisagree) as error:
        failures = [str(error)]
    for each in failures:
        print(f"{name}: FAILED: {each}")
    return 1 if failures else 0


def _keep_logs(parent: Path) -> None:
    """Show the end of what every process said: the folder goes."""
    for log in sorted(parent.rglob("*.log")):
        lines = log.read_text(errors="replace").splitlines()[-8:]
        print(f"--- {log.relative_to(parent)}", *lines, sep="\n")
