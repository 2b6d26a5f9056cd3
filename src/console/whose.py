"""Whose tables a page of the console looks at, where groups of users have schemas (decision 0066).

A page about one user sees that user's group; who signs in and what they did is everybody's. Where
groups have no schemas, no route is looked up: `in_each_group` and `read_everybodys` read once.
"""

import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from src.common.approvals.queries import user_of_approval
from src.common.async_database import read_from_async_database
from src.common.async_replicas import AsyncReader
from src.common.exceptions import Invalid, NotFound
from src.common.notices.ids import parse_notice_id
from src.common.postgres.lagging_reads import Answered, MayLag, oldest
from src.common.postgres.routes import routed_to_schema
from src.common.purchases.timeline import payment_timeline
from src.common.purchases.whose import group_of_payment, group_of_unmatched
from src.common.routing import (
    async_all_groups,
    async_ask_everybodys,
    async_routed_to,
    is_sharding,
)
from src.common.routing_to_purchases import async_routed_to_purchase
from src.common.sharding.directory import group_of, user_of_email
from src.common.sharding.groups import any_group

T = TypeVar("T")


def routed_by(parameters: Mapping[str, Any]) -> AbstractAsyncContextManager[None]:
    """Have what opens a session within the block see whom a page's address is about.

    Raises:
        NotFound: USER_NOT_FOUND, TRANSACTION_NOT_FOUND, APPROVAL_NOT_FOUND.
    """
    for name, route in _ROUTES.items():
        about = _id(parameters.get(name))
        if about is not None:
            return route(about)
    return nullcontext()


@asynccontextmanager
async def routed_to_approval(approval_id: uuid.UUID) -> AsyncGenerator[None]:
    """Have what opens a session within the block see whom a request for consent is about.

    That is any group where it is about nobody: there it finds nothing.

    Raises:
        NotFound: APPROVAL_NOT_FOUND.
        SettingsError: it is about nobody, and there is no group yet.
    """
    if not is_sharding():
        yield
        return
    user_id = await read_from_async_database(lambda session: user_of_approval(session, approval_id))
    if user_id is None:
        with routed_to_schema(await async_ask_everybodys(any_group)):
            yield
    else:
        async with async_routed_to(user_id):
            yield


_ROUTES: Mapping[str, Callable[[uuid.UUID], AbstractAsyncContextManager[None]]] = {
    "user_id": async_routed_to,
    "transaction_id": async_routed_to_purchase,
    "approval_id": routed_to_approval,
}
"""By what a page's address names: the group that has it."""


@asynccontextmanager
async def routed_to_notice(name: str) -> AsyncGenerator[None]:
    """Have what opens a session within the block see this notice.

    Raises:
        NotFound: NOTICE_NOT_FOUND, it is no notice's id; USER_NOT_FOUND.
    """
    key = parse_notice_id(name)
    if key is None:
        raise NotFound("There is no such notice, or none any more", "NOTICE_NOT_FOUND")
    async with async_routed_to(key[0]):
        yield


@asynccontextmanager
async def routed_to_payment(name: str) -> AsyncGenerator[None]:
    """Have what opens a session within the block see the payment of this name, ours or Stripe's.

    Where the directory does not know the name, it is looked for in each group.

    Raises:
        NotFound: TRANSACTION_NOT_FOUND, no group knows of it.
    """
    if not is_sharding():
        yield
        return
    group = await read_from_async_database(
        lambda session: group_of_payment(session.connection(), name)
    )
    with routed_to_schema(group or await _group_that_knows(name)):
        yield


async def _group_that_knows(name: str) -> str:
    """The group that has the purchase or order; else one that knows as much as all others."""
    known: dict[str, int] = {}
    missing: NotFound | None = None
    for group in await async_all_groups():
        with routed_to_schema(group):
            try:
                found = await read_from_async_database(
                    lambda session: payment_timeline(session, name)
                )
            except NotFound as error:
                missing = error
                continue
        if found.purchase is not None or found.order is not None:
            return group
        known[group] = len(found.steps)
    if not known:
        raise missing or NotFound(f"No payment has the id {name}", "TRANSACTION_NOT_FOUND")
    return max(known, key=lambda group: known[group])


@asynccontextmanager
async def routed_to_unmatched(stripe_object_id: str, user: str = "") -> AsyncGenerator[None]:
    """Have what opens a session within the block see whose this unmatched payment is or becomes.

    That is who bought it, else the `user` of this e-mail or id, else whom the payment names. Nobody
    is seen where it is nobody's.

    Raises:
        Invalid: VALIDATION_ERROR, naming `user`: nobody has this id or address, or a user of
            another group than who bought it.
    """
    if not is_sharding():
        yield
        return
    group = await read_from_async_database(
        lambda session: group_of_unmatched(session.connection(), stripe_object_id)
    )
    schema = group.schema
    if user:
        schema = await read_from_async_database(
            lambda session: _group_of_named(session.connection(), user)
        )
        if schema is None:
            raise _not_for_user("there is nobody with this id or address")
        if group.is_certain and schema != group.schema:
            raise _not_for_user("the payment is another user's")
    with routed_to_schema(schema):
        yield


def _not_for_user(why: str) -> Invalid:
    return Invalid(f"user: {why}", "VALIDATION_ERROR", field="user")


def _group_of_named(connection: Connection, user: str) -> str | None:
    """The group of the user of this e-mail or id."""
    user_id = _id(user) or user_of_email(connection, user)
    return None if user_id is None else group_of(connection, user_id)


async def read_everybodys(
    reader: AsyncReader,
    reading: MayLag[..., T],
    *args: Any,
    merge: Callable[[Sequence[T]], T],
    **kwargs: Any,
) -> Answered[T]:
    """What the reading finds of all users, merged over the groups."""
    if not is_sharding():
        return await reader.read(reading, *args, **kwargs)
    answers: list[Answered[T]] = []
    for group in await async_all_groups():
        with routed_to_schema(group):
            answers.append(await reader.read(reading, *args, **kwargs))
    return Answered(
        merge([each.value for each in answers]), oldest([each.read_from for each in answers])
    )


async def in_each_group(reading: Callable[[Session], T]) -> dict[str | None, T]:
    """What the reading finds in each group of users; of None where it sees all at once."""
    if not is_sharding():
        return {None: await read_from_async_database(reading)}
    found: dict[str | None, T] = {}
    for group in await async_all_groups():
        with routed_to_schema(group):
            found[group] = await read_from_async_database(reading)
    return found


def _id(written: object) -> uuid.UUID | None:
    try:
        return uuid.UUID(str(written))
    except ValueError:
        return None
