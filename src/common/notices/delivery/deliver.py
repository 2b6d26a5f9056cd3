"""Delivers what is due to every endpoint; none waits for another."""

import asyncio
from typing import TYPE_CHECKING

import structlog

from src.common.exceptions import DatabaseBusy
from src.common.notices.delivery import exchange
from src.common.notices.delivery.to_endpoint import DeliveryToEndpoint, InDatabase
from src.common.postgres.errors import is_refused
from src.common.settings import Settings

if TYPE_CHECKING:
    import uuid

logger = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
"""How often endpoints are looked for that nothing is sent to."""


async def deliver_due(in_database: InDatabase, settings: Settings) -> int:
    """Send notices until none is due; how many attempts there were.

    Where this is cancelled, what was sent is noted and the rest is handed back.

    Raises:
        Exception: what is wrong with the database, at once; with one endpoint, once the others have
            nothing left.
    """
    running: dict[asyncio.Task[None], DeliveryToEndpoint] = {}
    failures: dict[uuid.UUID, Exception] = {}
    sent = 0
    try:
        while True:
            busy = {delivery.endpoint_id for delivery in running.values()} | failures.keys()
            for target in await in_database(exchange.targets):
                if target.endpoint_id not in busy:
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
                    failures[delivery.endpoint_id] = failure
            if not running:
                break
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    if failures:
        raise next(iter(failures.values()))
    return sent


def _failure_of(task: asyncio.Task[None]) -> Exception | None:
    """What went wrong with one endpoint that is none of the others'."""
    try:
        task.result()
    except DatabaseBusy:
        raise
    except Exception as error:
        if is_refused(error):
            raise
        logger.warning("Delivery to an endpoint failed", error_type=type(error).__name__)
        return error
    return None
