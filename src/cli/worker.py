"""`flashslides worker`: books what is due, verifies books, settles what Stripe sent."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated

import structlog
import typer

from src.cli import work
from src.cli.reach import database_in_reach
from src.common import worker_failures
from src.common.credits.unbookable import count_unbookable_users
from src.common.database import dispose_db, run_in_database_transaction
from src.common.exceptions import DatabaseBusy
from src.common.kept_errors import KeptError, keep
from src.common.settings import get_settings
from src.common.stripe.gateway import StripeGatewayError

logger = structlog.get_logger(__name__)

INTERVAL_SECONDS = 5.0
STOP_TIMEOUT_SECONDS = 10
"""How long a round is waited for; one that is cut off is taken up by the next."""


def worker(
    *,
    interval_seconds: Annotated[
        float, typer.Option(min=0.1, max=3_600, help="How long to rest when nothing is due.")
    ] = INTERVAL_SECONDS,
    once: Annotated[
        bool,
        typer.Option(
            "--once", help="Do what is due now, then end: exit code 1 where anything failed."
        ),
    ] = False,
) -> None:
    """Book what has expired, verify books, settle Stripe's failed events, compare with Stripe.

    Any number may run, and be killed, at any time. No balance depends on the expiries: every
    operation and every answer counts what is due by itself. What it finds in the books is the
    metric `flashslides_credits_drift_users`; users whom it cannot book are the metric
    `flashslides_credits_unbookable_users`, and named by `flashslides verify`.
    """
    stopping = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    with database_in_reach(get_settings()):
        try:
            succeeded = _work(stopping, interval_seconds, once=once)
            if once and (not succeeded or run_in_database_transaction(count_unbookable_users)):
                raise typer.Exit(1)
        finally:
            dispose_db()


@contextmanager
def working() -> Generator[None]:
    """Do the worker's work in a thread of this process until the block is left.

    What would end the command, for its supervisor to start it again, is logged and tried again.
    """
    stopping = threading.Event()

    def keep_working() -> None:
        while not stopping.is_set():
            try:
                _work(stopping, INTERVAL_SECONDS)
            except Exception:  # an edge: the thread's
                logger.exception("The worker failed; the next round tries again")
                stopping.wait(INTERVAL_SECONDS)
        dispose_db()

    thread = threading.Thread(target=keep_working, name="worker", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(STOP_TIMEOUT_SECONDS)


def _work(stopping: threading.Event, interval_seconds: float, *, once: bool = False) -> bool:
    """Round after round until somebody stops it, or `once` until nothing is due.

    Whether all of it succeeded.
    """
    succeeded = True
    while not stopping.is_set():
        busy = False
        for name, step in work.WORK.items():
            outcome = _do(name, step)
            succeeded = succeeded and outcome is not None
            busy = outcome or busy
        if not busy and (once or stopping.wait(interval_seconds)):
            break
    return succeeded


def _do(name: str, step: work.Step) -> bool | None:
    """One step of one kind of work, whose failure is none of the others'.

    Whether there may be more at once; None where it failed.
    """
    try:
        return step()
    except DatabaseBusy as busy:
        logger.warning("The database is busy; the next round tries again", reason=busy.message)
    except StripeGatewayError as error:
        logger.warning("Stripe does not answer; the next round tries again", reason=error.message)
    except Exception as error:  # an edge: this kind of work's
        logger.exception("Work failed; the next round tries again", work=name)
        _count(name, keep(error))
    return None


def _count(name: str, error: KeptError) -> None:
    try:
        run_in_database_transaction(lambda session: worker_failures.note(session, name, error))
    except Exception as second:  # noqa: BLE001  an edge: the log has the first
        logger.warning("A failure was not counted", work=name, error=type(second).__name__)
