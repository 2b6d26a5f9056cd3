"""Verifies batches of users in several processes."""

import gc
import signal
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context

from src.common.credits.verification.reading import Users
from src.common.credits.verification.recompute import verify_batch
from src.common.credits.verification.report import Report
from src.common.postgres.session_makers import BeginsSessions

_WAITING_MAX = 2
"""Batches ahead, by process: so none waits for the next, and few are in vain after an error."""


def verify_in_processes(
    sessions: BeginsSessions,
    batches: Iterable[Users],
    jobs: int,
    otherwise: BeginsSessions | None = None,
) -> Generator[Report]:
    """What each batch shows, in their order; this process is one of the `jobs`.

    It need not wait for the others to start. `sessions` is one that pickle can name, as it can
    `SessionLocal`.

    Raises:
        DatabaseBusy: a passing condition of the database.
    """
    with ProcessPoolExecutor(jobs - 1, mp_context=get_context("spawn"), initializer=_begin) as pool:
        reports: deque[Future[Report]] = deque()
        try:
            for batch in batches:
                others = sum(not report.done() for report in reports)
                if others < _WAITING_MAX * (jobs - 1):
                    reports.append(pool.submit(verify_batch, sessions, batch, otherwise))
                else:
                    reports.append(Future())
                    reports[-1].set_result(verify_batch(sessions, batch, otherwise))
                while reports and reports[0].done():
                    yield reports.popleft().result()
            while reports:
                yield reports.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _begin() -> None:
    # Ctrl-C reaches every process of a terminal: the parent says so, once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What was imported is no garbage: collections need not go through it.
    gc.freeze()
