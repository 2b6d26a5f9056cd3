"""`flashslides worker`: books what is due, verifies books, settles what Stripe sent."""

import asyncio
import datetime as dt
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated

import structlog
import typer

from src.cli.reach import database_in_reach, in_database
from src.common.credits import ledger
from src.common.credits.drift import verify_next_slice
from src.common.credits.due import BATCH_USERS
from src.common.database import dispose_db, run_in_database_transaction
from src.common.exceptions import DatabaseBusy
from src.common.purchases import reconciliations
from src.common.settings import Settings, get_settings
from src.common.stripe import inbox
from src.common.stripe.gateway import StripeGatewayError, open_gateway
from src.common.stripe.processing import BATCH_EVENTS, Processor
from src.common.stripe.reconcile import reconcile

logger = structlog.get_logger(__name__)

INTERVAL_SECONDS = 5.0
STOP_TIMEOUT_SECONDS = 10
"""How long a round is waited for; one that is cut off is taken up by the next."""
RECONCILED = dt.timedelta(days=3)
"""How far back the worker compares, each time."""


def worker(
    *,
    interval_seconds: Annotated[
        float, typer.Option(min=0.1, max=3_600, help="How long to rest when nothing is due.")
    ] = INTERVAL_SECONDS,
    once: Annotated[bool, typer.Option("--once", help="Book what is due now, then end.")] = False,
) -> None:
    """Book what has expired, verify books, settle Stripe's failed events, compare with Stripe.

    Any number may run, and be killed, at any time. No balance depends on the expiries: every
    operation and every answer counts what is due by itself. What it finds in the books is the
    metric `flashslides_credits_drift_users`.
    """
    stopping = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    with database_in_reach(get_settings()):
        try:
            _work(stopping, interval_seconds, once=once)
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


def _work(stopping: threading.Event, interval_seconds: float, *, once: bool = False) -> None:
    """Round after round until somebody stops it, or `once` until nothing is due."""
    while not stopping.is_set():
        busy = _book_batch()
        _verify_slice()
        busy = _serve_stripe() or busy
        if not busy and (once or stopping.wait(interval_seconds)):
            break


def _book_batch() -> bool:
    """Book one batch; whether there may be more at once."""
    try:
        booked = run_in_database_transaction(ledger.expire_due)
    except DatabaseBusy as busy:
        logger.warning("The database is busy; the next round tries again", reason=busy.message)
        return False
    if booked:
        logger.info("Booked what was due", users=booked)
    return booked == BATCH_USERS


def _verify_slice() -> None:
    """Verify the next users' books, where it is time."""
    settings = get_settings()
    if not settings.credits_verify_interval_seconds:
        return
    try:
        report = run_in_database_transaction(
            lambda session: verify_next_slice(
                session,
                slice_users=settings.credits_verify_slice_users,
                interval_seconds=settings.credits_verify_interval_seconds,
            )
        )
    except DatabaseBusy as busy:
        logger.warning("The database is busy; the next round tries again", reason=busy.message)
        return
    if report is not None and report.differences:
        logger.error(
            "Books differ: run `flashslides verify`",
            users=report.differing_users,
            first_user_id=str(report.first[0].user_id),
            first_kind=report.first[0].kind,
        )


def _serve_stripe() -> bool:
    """Try a batch of events again, and reconcile where it is time; whether there may be more."""
    try:
        return asyncio.run(_stripe_round(get_settings()))
    except DatabaseBusy as busy:
        logger.warning("The database is busy; the next round tries again", reason=busy.message)
    except StripeGatewayError as error:
        logger.warning("Stripe does not answer; the next round tries again", reason=error.message)
    return False


async def _stripe_round(settings: Settings) -> bool:
    async with open_gateway(settings) as gateway:
        processor = Processor(in_database, gateway, settings)
        tried = await processor.settle_due()
        dropped = await in_database(inbox.drop_old_bodies)
        if tried or dropped:
            logger.info("Served the inbox", tried=tried, bodies_dropped=dropped)
        interval = settings.stripe_reconcile_interval_seconds
        if gateway is not None and interval:
            due = await in_database(lambda session: reconciliations.is_due(session, interval))
            if due:
                await _reconcile(processor)
        return tried == BATCH_EVENTS


async def _reconcile(processor: Processor) -> None:
    """The last days, from a midnight on, so that a run that was cut off is found again."""
    today = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    run = await reconcile(processor, since=today - RECONCILED, repairs=True, resumes=True)
    logger.info("Compared with Stripe", compared=run.compared, left=run.drift)
