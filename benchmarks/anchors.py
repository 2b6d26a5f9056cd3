"""How long a checkpoint over all users takes, in how much memory, and what it costs who spends.

Run it by `uv run python -m benchmarks.anchors`. It exits with 1 if a figure is beyond its bound.

The first checkpoint, which all leaves come with, and later ones, after many users have spent, are
closed as the worker does it, in a process of its own and into a file. Then the batch engine spends,
alone and while one checkpoint is closed after the other, in turns: the ratio of the medians is
shown.
"""

import argparse
import asyncio
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

from benchmarks.console import NoClocks
from benchmarks.contestants.base import Load, Spread
from benchmarks.contestants.processes import run_workers
from benchmarks.output import show, tell
from benchmarks.seed import add_users
from benchmarks.server import SERVER_SETTINGS, connect, refuse_volatile, temporary_server
from src.cli.anchor_work import paced
from src.common.anchors.file_sink import FileSink
from src.common.anchors.notes import new_signing_key
from src.common.anchors.run import Round, run_round
from src.common.database import SessionLocal, dispose_db
from src.common.postgres.migrations import upgrade_to_head

SECONDS_MAX = 60
MEMORY_MAX_MB = 300
RATIO_MIN = 0.9
CALLERS = 32
MB = 2**20


@dataclass(frozen=True, kw_only=True)
class Closed:
    """One checkpoint."""

    seconds: float
    peak: int
    """The most memory that its process had, in octets."""
    leaves: int
    """How many came with it."""


def main() -> None:
    """Build the ledger, close, spend, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--spend-seconds", type=float, default=15)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    refuse_volatile(options.folder)
    with (
        temporary_server(options.folder, SERVER_SETTINGS, tell) as server,
        tempfile.TemporaryDirectory(dir=options.folder) as folder,
    ):
        upgrade_to_head()
        with connect(server.connection) as admin:
            add_users(admin, first=0, count=options.users, history=0)
            admin.execute("VACUUM ANALYZE")
        is_within = _measure(options, Path(folder) / "anchors.jsonl")
        dispose_db()
    sys.exit(0 if is_within else 1)


def _measure(options: argparse.Namespace, file: Path) -> bool:
    load = Load(
        Spread.UNIFORM,
        user_count=options.users,
        callers=CALLERS,
        seconds=options.spend_seconds,
    )
    show(
        f"| checkpoint | leaves | seconds (≤ {SECONDS_MAX}) | peak memory, MB (≤ {MEMORY_MAX_MB}) |"
        " within |"
    )
    show("|---|---|---|---|---|")
    is_within = _show("the first", _in_a_process(file))
    _spend(load)
    is_within = _show("after spends", _in_a_process(file)) and is_within
    ratio = _ratio(load, options.repeats, file)
    show(f"\nspends a second beside a checkpoint: {ratio:.2f} of without (≥ {RATIO_MIN})")
    return is_within and ratio >= RATIO_MIN


def _show(name: str, closed: Closed) -> bool:
    fits = closed.seconds <= SECONDS_MAX and closed.peak <= MEMORY_MAX_MB * MB
    row = f"| {name} | {closed.leaves:,} | {closed.seconds:.1f} | {closed.peak / MB:.0f} |"
    show(f"{row} {'yes' if fits else 'NO'} |")
    return fits


def _ratio(load: Load, repeats: int, file: Path) -> float:
    rates: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(repeats):
        rates[False].append(_spend(load))
        with _closing(file):
            rates[True].append(_spend(load))
    without, beside = (statistics.median(rates[each]) for each in (False, True))
    show(f"\nspends a second: {without:.0f} without a checkpoint, {beside:.0f} beside one")
    return beside / without


def _spend(load: Load) -> float:
    outcome = run_workers(
        "spends", "benchmarks.calls.engine:EngineCalls", load, NoClocks(), 1, os.environ
    )
    return len(outcome.latencies_ms) / outcome.elapsed_seconds


def _in_a_process(file: Path) -> Closed:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_close, (file,))


def _close(file: Path) -> Closed:
    began = time.perf_counter()
    steps = run_round(SessionLocal, [FileSink(file)], new_signing_key("benchmark"), closes=True)
    result = asyncio.run(paced(steps))
    assert result.checkpoint is not None  # noqa: S101  a file can always be asked
    return Closed(
        seconds=time.perf_counter() - began,
        peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        leaves=result.checkpoint.leaves,
    )


@contextmanager
def _closing(file: Path) -> Generator[None]:
    """Have one checkpoint after the other closed meanwhile; the last is ended where it is."""
    context = multiprocessing.get_context("spawn")
    has_begun, ends = context.Event(), context.Event()
    process = context.Process(target=_close_again_and_again, args=(file, has_begun, ends))
    process.start()
    has_begun.wait()
    try:
        yield
    finally:
        ends.set()
        process.join()


def _close_again_and_again(file: Path, has_begun: Event, ends: Event) -> None:
    key = new_signing_key("benchmark")

    def steps() -> Generator[int, None, Round]:
        while True:
            for done in run_round(SessionLocal, [FileSink(file)], key, closes=True):
                has_begun.set()
                if ends.is_set():
                    return Round(checkpoint=None, standings=[])
                yield done

    asyncio.run(paced(steps()))


if __name__ == "__main__":
    main()
