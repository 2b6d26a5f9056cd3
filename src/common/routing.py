"""Routes what works for a user to the tables of that user's group (decision 0066).

    with routed_to(user_id), SessionLocal.begin() as db:
        spend(db, user_id, 30, key="slides:1", actor="key:renderer")

Where `SHARDING` is `none` every function here does nothing and asks nothing. A session takes its
connection at its first statement: enter the route before that.
"""

import uuid
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import partial
from threading import Lock
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from src.common.async_database import (
    read_from_async_database,
    run_in_async_database_transaction,
)
from src.common.database import read_from_database, run_in_database_transaction
from src.common.database_settings import Sharding
from src.common.exceptions import NotFound
from src.common.postgres.routes import routed_to_schema, unrouted
from src.common.settings import Settings, get_settings
from src.common.sharding import directory, groups
from src.common.sharding.known_routes import KnownRoutes
from src.common.sharding.refusals import refuse_undivided

__all__ = [
    "all_groups",
    "all_routes",
    "ask_everybodys",
    "async_all_groups",
    "async_ask_everybodys",
    "async_routed_to",
    "async_routed_to_sign_up",
    "is_sharding",
    "known_routes",
    "routed_to",
    "routed_to_sign_up",
]

T = TypeVar("T")


class _State:
    lock = Lock()
    settings: Settings | None = None
    known = KnownRoutes()
    newcomers = groups.Newcomers()
    is_divided = False
    """Whether the database was found to keep its users in groups."""


def is_sharding() -> bool:
    """Whether each group of users has a schema of its own."""
    return get_settings().sharding is Sharding.SCHEMAS


def known_routes() -> KnownRoutes:
    """What this process knows of the database that the settings name."""
    with _State.lock:
        settings = get_settings()
        if _State.settings is not settings:
            if _State.settings != settings:  # fields take long
                _State.known, _State.newcomers = KnownRoutes(), groups.Newcomers()
                _State.is_divided = False
            _State.settings = settings
        return _State.known


@contextmanager
def routed_to(user_id: uuid.UUID) -> Generator[None]:
    """Have what opens a session within the block see this user's tables.

    Raises:
        NotFound: USER_NOT_FOUND, nobody is known by this id.
    """
    with routed_to_schema(_found(_group_of(user_id))) if is_sharding() else nullcontext():
        yield


@asynccontextmanager
async def async_routed_to(user_id: uuid.UUID) -> AsyncGenerator[None]:
    """As `routed_to`, without blocking the event loop.

    Raises:
        NotFound: USER_NOT_FOUND.
    """
    route = routed_to_schema(_found(await _async_group_of(user_id))) if is_sharding() else None
    with route or nullcontext():
        yield


@contextmanager
def routed_to_sign_up(user_id: uuid.UUID | None = None) -> Generator[None]:
    """Have a newcomer made within the block be of the open group with the fewest users.

    A user who is there already keeps the group. Two first sights of one user may choose two groups:
    the second is refused with WRONG_SHARD, and enters this anew.

    Raises:
        SettingsError: no group is open.
    """
    if not is_sharding():
        yield
        return
    group = None if user_id is None else _group_of(user_id)
    with routed_to_schema(group or _chosen()):
        yield


@asynccontextmanager
async def async_routed_to_sign_up(user_id: uuid.UUID | None = None) -> AsyncGenerator[None]:
    """As `routed_to_sign_up`, without blocking the event loop.

    Raises:
        SettingsError: no group is open.
    """
    if not is_sharding():
        yield
        return
    group = None if user_id is None else await _async_group_of(user_id)
    with routed_to_schema(group or await _async_chosen()):
        yield


def all_groups() -> list[str]:
    """Every group's schema; none where `SHARDING` is `none`."""
    return ask_everybodys(groups.ready_groups) if is_sharding() else []


async def async_all_groups() -> list[str]:
    """As `all_groups`, without blocking the event loop."""
    return await async_ask_everybodys(groups.ready_groups) if is_sharding() else []


def all_routes() -> list[str | None]:
    """What to do for all users one group after the other.

    `for route in all_routes(): with routed_to_schema(route): …`. Where `SHARDING` is `none` that is
    once, with None.
    """
    return [*all_groups()] if is_sharding() else [None]


def _found(group: str | None) -> str:
    if group is None:
        raise NotFound("User not found", "USER_NOT_FOUND")
    return group


def _group_of(user_id: uuid.UUID) -> str | None:
    known = known_routes()
    group = known.get(user_id)
    if group is None:
        group = ask_everybodys(lambda connection: directory.group_of(connection, user_id))
        known.note({user_id: group} if group else {})
    return group


async def _async_group_of(user_id: uuid.UUID) -> str | None:
    known = known_routes()
    group = known.get(user_id)
    if group is None:
        group = await async_ask_everybodys(
            lambda connection: directory.group_of(connection, user_id)
        )
        known.note({user_id: group} if group else {})
    return group


def ask_everybodys(question: Callable[[Connection], T]) -> T:
    """What is found in the tables that are about everybody, whatever the route of the caller.

    Raises:
        RetryableDatabaseError: as `read_from_database`.
        SettingsError: the database does not keep its users in groups.
    """
    with unrouted():
        return read_from_database(partial(_answered, question))


async def async_ask_everybodys(question: Callable[[Connection], T]) -> T:
    """As `ask_everybodys`, without blocking the event loop."""
    with unrouted():
        return await read_from_async_database(partial(_answered, question))


def _answered(question: Callable[[Connection], T], session: Session) -> T:
    known_routes()
    connection = session.connection()
    if not _State.is_divided:
        refuse_undivided(connection, get_settings())
        _State.is_divided = True
    return question(connection)


def _chosen() -> str:
    """The group for a newcomer; the users may be counted on the way, which is kept."""
    with unrouted():
        return run_in_database_transaction(partial(_answered, _choose))


async def _async_chosen() -> str:
    with unrouted():
        return await run_in_async_database_transaction(partial(_answered, _choose))


def _choose(connection: Connection) -> str:
    return groups.choose_group(connection, _State.newcomers)
