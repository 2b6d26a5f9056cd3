"""What the figures were measured on: without it nobody can read them."""

import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from benchmarks.server import file_system_of

_FLUSHES = 100
_BLOCK = bytes(8192)
_LIBRARIES = ("sqlalchemy", "asyncpg", "uvloop")
_ROOT = Path(__file__).resolve().parents[1]


def describe(folder: Path, postgresql: str) -> dict[str, str]:
    """Return the machine, the disk below `folder`, and the versions, as names and values."""
    described = {
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores usable",
        "memory": f"{_memory_gib():.0f} GiB",
        "system": platform.platform(),
        "file system": file_system_of(folder),
        "flush of 8 kB": f"{_median_flush_us(folder):.0f} µs (median of {_FLUSHES} fdatasync)",
        "load before": f"{os.getloadavg()[0]:.1f} (1 minute)",
        "PostgreSQL": postgresql,
        "Python": platform.python_version(),
        "commit": _commit(),
    }
    return described | {name: version(name) for name in _LIBRARIES}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _median_flush_us(folder: Path) -> float:
    with tempfile.TemporaryFile(dir=folder) as file:
        return statistics.median(_timed(lambda: _flush(file.fileno())) for _ in range(_FLUSHES))


def _flush(descriptor: int) -> None:
    os.pwrite(descriptor, _BLOCK, 0)
    os.fdatasync(descriptor)


def _timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e6


def _commit() -> str:
    """Return the checkout's commit, and whether files differ from it."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    command = [git, "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"
