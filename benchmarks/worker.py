"""A client process of its own: reads a job, says "ready", waits for "go", says what it did.

    python -m benchmarks.worker      (started by benchmarks/processes.py)

One line of JSON in, a file of JSON out; its database is the one the environment's settings name.
"""

import asyncio
import gc
import json
import resource
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import psycopg
import uvloop

from benchmarks.calls.base import AsyncCalls, Refused, ThreadCalls
from benchmarks.seed import user_ids
from benchmarks.workload import RESERVE, Operation, Workload, share_of
from src.common.postgres.engines import database_url
from src.common.settings import get_settings

_WARM_UP_OPERATIONS = 2


@dataclass(frozen=True)
class Job:
    """What one worker is to do."""

    calls: str
    """`module:class` of its calls."""
    callers: int
    seconds: float
    user_count: int
    first_number: int
    numbers_drawn: int
    processes: int
    """How many workers share the users' credits."""
    report: str
    """The file that takes what it did."""


@dataclass
class Tally:
    """What the callers of one worker did together."""

    acknowledged: int = 0
    replayed: int = 0
    latencies_us: list[int] = field(default_factory=list[int])
    failures: Counter[str] = field(default_factory=Counter[str])
    elapsed_seconds: float = 0
    cpu_seconds: float = 0

    def as_json(self) -> str:
        """All of it, for the runner."""
        return json.dumps(vars(self))  # `asdict` counts a counter's items


class WrongReplay(Exception):
    """A repeated request was done again, or a new one was taken for a repeated one."""


def main() -> None:
    """Do the job on stdin."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the runner ends us
    told = sys.stdin.readline()
    if not told:  # the runner has ended before it said what to do
        return
    job = Job(**json.loads(told))
    module, name = job.calls.split(":")
    calls: AsyncCalls | ThreadCalls = getattr(import_module(module), name)()
    workload = _workload(job, calls)
    gc.freeze()  # what is imported stays: a server process would do the same
    if isinstance(calls, AsyncCalls):
        tally = uvloop.run(_run_tasks(job, calls, workload))
    else:
        tally = _run_threads(job, calls, workload)
    print("done", flush=True)
    if isinstance(calls, AsyncCalls):
        uvloop.run(calls.restore())
    tally.acknowledged += calls.unmeasured
    Path(job.report).write_text(tally.as_json(), encoding="ascii")


def _workload(job: Job, calls: AsyncCalls | ThreadCalls) -> Workload:
    ids = user_ids(job.user_count)[job.first_number :][: job.numbers_drawn]
    spendable = [0] * len(ids)
    if calls.tops_up:
        balances = _balances(ids)
        spendable = [share_of(balances[each] - RESERVE, job.processes) for each in ids]
    return Workload(ids, spendable, tops_up=calls.tops_up, replays=calls.replays)


def _balances(ids: list[uuid.UUID]) -> dict[uuid.UUID, int]:
    url = database_url(get_settings(), "postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as connection:
        return dict(
            connection.execute(
                "SELECT user_id, credits_balance FROM users WHERE user_id = ANY (%s)", [ids]
            ).fetchall()
        )


def _wait_for_go() -> None:
    """Say that everything is warm, and wait until the other workers are."""
    print("ready", flush=True)
    if not sys.stdin.readline():
        sys.exit()  # the runner has ended


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class _Caller:
    """One closed-loop caller, and what it did."""

    def __init__(self, number: int, workload: Workload) -> None:
        self.number = number
        self.tally = Tally()
        self._workload = workload
        self._last: Operation | None = None

    def next(self) -> tuple[Operation, bool]:
        """Return what it asks next."""
        return self._workload.next(self._last)

    def done(self, operation: Operation, *, is_repeated: bool, replayed: bool) -> None:
        """Take note of an answer.

        Raises:
            WrongReplay: it is not the answer to this request.
        """
        if replayed is not is_repeated:
            raise WrongReplay(f"{operation}: repeated {is_repeated}, answered as such {replayed}")
        self.tally.acknowledged += 1
        self.tally.replayed += replayed
        self._last = operation

    def refused(self, refusal: Refused) -> None:
        """Take note of a refusal; what was refused is not asked again."""
        self.tally.failures[str(refusal)] += 1
        self._last = None


def _together(callers: list[_Caller], elapsed_seconds: float, cpu_seconds: float) -> Tally:
    total = Tally(elapsed_seconds=elapsed_seconds, cpu_seconds=cpu_seconds)
    for caller in callers:
        total.acknowledged += caller.tally.acknowledged
        total.replayed += caller.tally.replayed
        total.latencies_us += caller.tally.latencies_us
        total.failures += caller.tally.failures
    return total


async def _run_tasks(job: Job, calls: AsyncCalls, workload: Workload) -> Tally:
    callers = [_Caller(number, workload) for number in range(job.callers)]
    await calls.open(job.callers)
    try:
        await _in_tasks(callers, lambda caller: _warm_up(caller, calls))
        await asyncio.to_thread(_wait_for_go)
        cpu_before, started = _cpu_seconds(), time.perf_counter()
        deadline = started + job.seconds
        await _in_tasks(callers, lambda caller: _ask_until(caller, calls, deadline))
        elapsed, used = time.perf_counter() - started, _cpu_seconds() - cpu_before
    finally:
        await calls.close()
    return _together(callers, elapsed, used)


async def _in_tasks(
    callers: list[_Caller], work: Callable[[_Caller], Coroutine[None, None, None]]
) -> None:
    async with asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(work(caller))


async def _warm_up(caller: _Caller, calls: AsyncCalls) -> None:
    for _ in range(_WARM_UP_OPERATIONS):
        await _ask(caller, calls)


async def _ask_until(caller: _Caller, calls: AsyncCalls, deadline: float) -> None:
    clock = time.perf_counter
    note = caller.tally.latencies_us.append
    now = clock()
    while now < deadline:
        done = await _ask(caller, calls)
        before, now = now, clock()
        if done:
            note(int((now - before) * 1e6))


async def _ask(caller: _Caller, calls: AsyncCalls) -> bool:
    operation, is_repeated = caller.next()
    try:
        replayed = await calls.call(caller.number, operation)
    except Refused as refusal:
        caller.refused(refusal)
        return False
    caller.done(operation, is_repeated=is_repeated, replayed=replayed)
    return True


def _run_threads(job: Job, calls: ThreadCalls, workload: Workload) -> Tally:
    callers = [_Caller(number, workload) for number in range(job.callers)]
    calls.open(job.callers)
    try:
        _in_threads(callers, lambda caller: _warm_up_blocking(caller, calls))
        _wait_for_go()
        cpu_before, started = _cpu_seconds(), time.perf_counter()
        deadline = started + job.seconds
        _in_threads(callers, lambda caller: _ask_until_blocking(caller, calls, deadline))
        elapsed, used = time.perf_counter() - started, _cpu_seconds() - cpu_before
    finally:
        calls.close()
    return _together(callers, elapsed, used)


def _in_threads(callers: list[_Caller], work: Callable[[_Caller], None]) -> None:
    """Run `work` for every caller in a thread of its own; what one raised is raised here."""
    with ThreadPoolExecutor(len(callers)) as pool:
        for future in [pool.submit(work, caller) for caller in callers]:
            future.result()


def _warm_up_blocking(caller: _Caller, calls: ThreadCalls) -> None:
    for _ in range(_WARM_UP_OPERATIONS):
        _ask_blocking(caller, calls)


def _ask_until_blocking(caller: _Caller, calls: ThreadCalls, deadline: float) -> None:
    now = time.perf_counter()
    while now < deadline:
        done = _ask_blocking(caller, calls)
        before, now = now, time.perf_counter()
        if done:
            caller.tally.latencies_us.append(int((now - before) * 1e6))


def _ask_blocking(caller: _Caller, calls: ThreadCalls) -> bool:
    operation, is_repeated = caller.next()
    try:
        replayed = calls.call(caller.number, operation)
    except Refused as refusal:
        caller.refused(refusal)
        return False
    caller.done(operation, is_repeated=is_repeated, replayed=replayed)
    return True


if __name__ == "__main__":
    main()
