"""Delivers what is due to every endpoint; none waits for another."""

import asyncio
import math
import time
import uuid
from collections.abc import Collection
from functools import partial

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from src.common.exceptions import DatabaseBusy
from src.common.notices.delivery import exchange
from src.common.notices.delivery.exchange import Condition
from src.common.notices.delivery.schedule import PAUSE_MAX_SECONDS
from src.common.notices.delivery.to_endpoint import DeliveryToEndpoint, InDatabase
from src.common.settings import Settings

logger = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
"""How often endpoints are looked for that nothing is sent to."""


async def deliver_due(
    in_database: InDatabase, settings: Settings, *, begins_for_seconds: float = math.inf
) -> int:
    """Send notices until none is due; how many attempts there were.

    After `begins_for_seconds` no further one is begun; each that was is waited for.

    An endpoint at which something of ours fails is left alone for a while; the others go on. Where
    this is cancelled, what was sent is noted and the rest is handed back.

    Raises:
        Exception: what is wrong with the database.
    """
    running: dict[asyncio.Task[None], DeliveryToEndpoint] = {}
    sent = 0
    until = time.monotonic() + begins_for_seconds
    try:
        while True:
            for target in await _to_begin(in_database, running.values(), until):
                delivery = DeliveryToEndpoint(
                    target,
                    in_database,
                    is_local=settings.is_local,
                    timeout_seconds=settings.notices_timeout_seconds,
                )
                running[asyncio.create_task(delivery.run())] = delivery
            if running:
                await asyncio.wait(running, timeout=LOOK_SECONDS)
            for task in [task for task in running if task.done()]:
                delivery = running.pop(task)
                sent += delivery.sent
                if (failure := _failure_of(task)) is not None:
                    await in_database(partial(_leave_alone, delivery.endpoint_id, failure))
            if not running:
                return sent
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _to_begin(
    in_database: InDatabase, running: Collection[DeliveryToEndpoint], until: float
) -> list[exchange.Target]:
    """Endpoints that are due and not being told; once the time is over none, and those end."""
    if time.monotonic() >= until:
        for delivery in running:
            delivery.end()
        return []
    busy = {delivery.endpoint_id for delivery in running}
    due = await in_database(exchange.targets)
    return [target for target in due if target.endpoint_id not in busy]


def _failure_of(task: asyncio.Task[None]) -> Exception | None:
    """What went wrong with one endpoint that is none of the others'."""
    try:
        task.result()
    except (DatabaseBusy, SQLAlchemyError):
        raise
    except Exception as error:  # an edge: this endpoint's
        logger.exception("Delivery to an endpoint failed")
        return error
    return None


def _leave_alone(endpoint_id: uuid.UUID, failure: Exception, session: Session) -> None:
    condition = Condition(
        failures=1,
        delivered=0,
        failed=1,
        pause_seconds=PAUSE_MAX_SECONDS,
        error=f"DEFECT: {type(failure).__name__}, see the worker's log",
    )
    exchange.note_condition(session, endpoint_id, condition, exchange.read_clock(session))
