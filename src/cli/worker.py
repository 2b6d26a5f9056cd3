"""`flashslides worker`: books what has fallen due, until it is stopped."""

import signal
import threading
from types import FrameType
from typing import Annotated

import structlog
import typer

from src.cli.reach import database_in_reach
from src.common.credits import ledger
from src.common.credits.due import BATCH_USERS
from src.common.database import dispose_db, run_in_database_transaction
from src.common.exceptions import DatabaseBusy
from src.common.settings import get_settings

logger = structlog.get_logger(__name__)


def worker(
    *,
    interval_seconds: Annotated[
        float, typer.Option(min=0.1, max=3_600, help="How long to rest when nothing is due.")
    ] = 5.0,
    once: Annotated[bool, typer.Option("--once", help="Book what is due now, then end.")] = False,
) -> None:
    """Book expired lots and holds. Any number may run, and be killed, at any time.

    No balance depends on it: every operation and every answer counts what is due by itself.
    """
    stopping = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    with database_in_reach(get_settings()):
        try:
            while not stopping.is_set():
                if not _book_batch() and (once or stopping.wait(interval_seconds)):
                    break
        finally:
            dispose_db()


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
