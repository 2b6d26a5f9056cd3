"""What `flashslides worker` does: book what is due, verify books, settle what Stripe sent."""

import asyncio
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from enum import Enum, auto
from functools import partial
from queue import SimpleQueue
from types import FrameType

import structlog
import typer

from src.cli import work
from src.cli.choices import WORKER_INTERVAL_SECONDS
from src.cli.reach import explain, migrated_database
from src.cli.shutdown import Shutdown
from src.cli.stripe_permissions import tell_of_missing_permissions
from src.common import tracing, worker_failures, worker_heartbeats
from src.common.credits.unbookable import count_unbookable_users
from src.common.database import dispose_db, read_from_database, run_in_database_transaction
from src.common.exceptions import DatabaseBusy, ExceptionWithErrorType
from src.common.postgres.errors import is_refused
from src.common.postgres.kept_errors import KeptError, keep
from src.common.postgres.routes import routed_to_schema
from src.common.routing import all_routes
from src.common.settings import get_settings
from src.common.stripe.gateway_errors import StripeGatewayError
from src.common.stripe.processing import RETRIES_SECONDS

logger = structlog.get_logger(__name__)

INTERVAL_SECONDS = WORKER_INTERVAL_SECONDS
REST_MAX_SECONDS = 60.0
"""How long a kind of work rests that fails again and again."""
STOP_TIMEOUT_SECONDS = 4.0
"""How long database transactions are waited for; one that is cut off has done nothing."""
STOP_TIMEOUT_IN_SERVER_SECONDS = 10.0
"""How long beside a server, which has its own to wait for."""


def worker(interval_seconds: float, *, once: bool) -> None:
    """Do the worker's work as `src.cli.services` was told to."""
    settings = get_settings()
    with tracing.traced(), migrated_database(settings):
        telling = tell_of_missing_permissions(settings)
        workers = Workers(interval_seconds, once=once)
        signal.signal(signal.SIGTERM, workers.notice)
        signal.signal(signal.SIGINT, workers.notice)
        workers.start()
        workers.wait()
        unfinished = workers.stop(STOP_TIMEOUT_SECONDS)
        failed = workers.has_failed or (once and not unfinished and _count_unbookable() > 0)
    if once:
        telling.join(STOP_TIMEOUT_SECONDS)
    if unfinished:  # Python would wait for their threads, and those for others
        sys.stderr.flush()  # noqa: TID251  writes nothing
        os._exit(failed)
    if failed:
        raise typer.Exit(1)


def _count_unbookable() -> int:
    """How many users of all groups cannot be booked."""
    users = 0
    for route in all_routes():
        with routed_to_schema(route):
            users += read_from_database(count_unbookable_users)
    return users


@contextmanager
def working() -> Generator[None]:
    """Do the worker's work in threads of this process until the block is left."""
    workers = Workers(INTERVAL_SECONDS)
    workers.start()
    try:
        yield
    finally:
        workers.stop(STOP_TIMEOUT_IN_SERVER_SECONDS)
        dispose_db()


class Workers:
    """Does all kinds of work, each in a thread of its own; `once` in turn, until nothing is due."""

    def __init__(self, interval_seconds: float, *, once: bool = False) -> None:
        self.has_failed = False
        """Whether anything failed that was to be done once, or a thread ended by itself."""
        self._interval_seconds = interval_seconds
        self._shutdown = Shutdown()
        self._told: SimpleQueue[None] = SimpleQueue()
        self._telling = threading.Lock()
        self._begun: dict[str, float] = {}
        """When the current step of each kind of work began, of those that are at one."""
        self._quiet_until = 0.0
        """When a condition of the database is worth another line."""
        kinds: dict[str, Callable[[], None]] = (
            {"work": self._do_all_in_turn}
            if once
            else {name: partial(self._keep_doing, name) for name in work.WORK}
        )
        kinds["signs of life"] = self._keep_beating
        self._threads = [
            threading.Thread(target=self._run, args=[does], name=f"worker: {name}", daemon=True)
            for name, does in kinds.items()
        ]

    def notice(self, _signal: int, _frame: FrameType | None) -> None:
        """Note that a signal came: all that its handler may do, whatever it has interrupted."""
        self._told.put(None)

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def wait(self) -> None:
        """Wait for a signal, or for a thread's end."""
        self._told.get()

    def stop(self, timeout_seconds: float) -> list[str]:
        """End all threads; the names of those that did not end in time."""
        self._shutdown.ask()
        deadline = time.monotonic() + timeout_seconds
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))
        unfinished = [thread.name for thread in self._threads if thread.is_alive()]
        if unfinished:
            logger.warning("Cut off; the next worker does it", threads=unfinished)
        return unfinished

    def _run(self, does: Callable[[], None]) -> None:
        try:
            does()
        except asyncio.CancelledError:
            if not self._shutdown.is_asked:
                self.has_failed = True
                raise
        except BaseException:
            self.has_failed = True
            raise
        finally:
            self._told.put(None)

    def _keep_doing(self, name: str) -> None:
        """One kind of work, for ever; what fails again and again rests longer each time."""
        interval, failures = self._interval_seconds, 0
        while not self._shutdown.is_asked:
            outcome = self._do(name)
            failures = failures + 1 if outcome is _Outcome.FAILED else 0
            if outcome is _Outcome.FAILED:
                rest = min(interval * 2 ** min(failures - 1, 10), max(interval, REST_MAX_SECONDS))
            elif name in work.RETRYING and outcome is _Outcome.DONE:
                rest = min(interval, RETRIES_SECONDS)
            else:
                rest = interval
            if outcome is not _Outcome.MORE:
                self._shutdown.wait(rest)

    def _do_all_in_turn(self) -> None:
        is_busy = True
        while is_busy and not self._shutdown.is_asked:
            outcomes = [self._do(name) for name in work.WORK if not self._shutdown.is_asked]
            self.has_failed |= not {_Outcome.BUSY, _Outcome.FAILED}.isdisjoint(outcomes)
            is_busy = _Outcome.MORE in outcomes

    def _keep_beating(self) -> None:
        """Leave signs of life until the end, whatever holds up the other threads."""
        worker_id = uuid.uuid4()
        while not self._shutdown.is_asked:
            self._beat(worker_id)
            self._shutdown.wait(worker_heartbeats.INTERVAL_SECONDS)
        self._beat(worker_id, has_ended=True)

    def _beat(self, worker_id: uuid.UUID, *, has_ended: bool = False) -> None:
        steps = [
            (began, name) for name, began in self._begun.copy().items() if name not in work.LASTING
        ]
        began, name = min(steps, default=(0.0, None))
        sign = partial(
            worker_heartbeats.beat,
            worker_id=worker_id,
            work=name,
            work_seconds=time.monotonic() - began,
            has_ended=has_ended,
        )
        try:
            run_in_database_transaction(sign)
        except Exception as error:  # noqa: BLE001  an edge: the next sign is soon
            logger.debug("No sign of life could be left", error=type(error).__name__)

    def _do(self, name: str) -> "_Outcome":
        """One step of one kind of work, whose failure is none of the others'."""
        self._begun[name] = time.monotonic()
        try:
            return self._try(name)
        finally:
            del self._begun[name]

    def _try(self, name: str) -> "_Outcome":
        try:
            with tracing.span(f"work {name}"):
                step = work.WORK[name]()
                has_more = self._shutdown.run(step) if isinstance(step, Coroutine) else step
        except DatabaseBusy as busy:
            self._tell_of_database(explain(busy, get_settings()) or busy)
            return _Outcome.BUSY
        except StripeGatewayError as error:
            logger.warning("Stripe fails or refuses; it is tried again", reason=error.message)
            return _Outcome.FAILED
        except Exception as error:  # an edge: this kind of work's
            explained = explain(error, get_settings())
            if explained is not None and is_refused(error):  # nor would it count
                self._tell_of_database(explained)
                return _Outcome.FAILED
            if explained is not None:
                logger.warning(
                    "Work failed; it is tried again", work=name, reason=explained.message
                )
            else:
                logger.exception("Work failed; it is tried again", work=name)
            _count(name, keep(error))
            return _Outcome.FAILED
        return _Outcome.MORE if has_more else _Outcome.DONE

    def _tell_of_database(self, error: ExceptionWithErrorType) -> None:
        """One line a round, whichever kind of work meets it first."""
        with self._telling:
            now = time.monotonic()
            if now < self._quiet_until:
                return
            self._quiet_until = now + self._interval_seconds
        logger.warning("The database does not serve; it is tried again", reason=error.message)


class _Outcome(Enum):
    """What a step came to."""

    MORE = auto()
    """There may be more at once."""
    DONE = auto()
    BUSY = auto()
    """The database has no time for it."""
    FAILED = auto()


def _count(name: str, error: KeptError) -> None:
    try:
        run_in_database_transaction(lambda session: worker_failures.note(session, name, error))
    except Exception as second:  # noqa: BLE001  an edge: the log has the first
        logger.warning("A failure was not counted", work=name, error=type(second).__name__)
