"""Routes what works for a purchase to the tables of whoever bought it (decision 0066).

Where `SHARDING` is `none` nothing here does or asks anything.
"""

import uuid
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

from src.common.exceptions import NotFound
from src.common.postgres.routes import routed_to_schema
from src.common.purchases.whose import group_of_payment, group_of_purchase
from src.common.routing import ask_everybodys, async_ask_everybodys, is_sharding


@contextmanager
def routed_to_purchase(transaction_id: uuid.UUID) -> Generator[None]:
    """Have what opens a session within the block see this purchase.

    Raises:
        NotFound: TRANSACTION_NOT_FOUND.
    """
    if not is_sharding():
        yield
        return
    group = ask_everybodys(partial(group_of_purchase, transaction_id=transaction_id))
    with routed_to_schema(_found(group)):
        yield


@asynccontextmanager
async def async_routed_to_purchase(transaction_id: uuid.UUID) -> AsyncGenerator[None]:
    """As `routed_to_purchase`, without blocking the event loop.

    Raises:
        NotFound: TRANSACTION_NOT_FOUND.
    """
    if not is_sharding():
        yield
        return
    group = await async_ask_everybodys(partial(group_of_purchase, transaction_id=transaction_id))
    with routed_to_schema(_found(group)):
        yield


@asynccontextmanager
async def async_routed_to_payment(object_id: str) -> AsyncGenerator[None]:
    """Have what opens a session within the block see who is named by this object of Stripe's.

    Nobody's tables are seen where no purchase or order of ours names it.
    """
    if not is_sharding():
        yield
        return
    group = await async_ask_everybodys(partial(group_of_payment, object_id=object_id))
    with routed_to_schema(group):
        yield


def _found(group: str | None) -> str:
    if group is None:
        raise NotFound("No such purchase", "TRANSACTION_NOT_FOUND")
    return group
