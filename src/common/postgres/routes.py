"""Which group's schema a pool's connection sees: told when it is handed out (decision 0066).

    with routed_to_schema("g0001"), SessionLocal.begin() as db: ...

Where `SHARDING` is `none` nothing here is installed, and no connection is told anything. Nothing
here knows users: `src/common/routing.py` looks up whose schema is which.
"""

import re
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from operator import methodcaller
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.orm import Session

from src.common.database_settings import DatabasePooler, Sharding
from src.common.exceptions import ErrorKind, ExceptionWithErrorType
from src.common.postgres.errors import sqlstate_of
from src.common.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy.engine import ExceptionContext
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.orm import SessionTransaction
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

SHARED_SCHEMA = "public"
"""What is about everybody is here, and every connection sees it."""
_GROUP_NAME = re.compile(r"g[0-9]{4,9}")
_UNDEFINED_TABLE = "42P01"
_ROUTE = "flashslides_route"
SEEN = "flashslides_search_path"
"""Where a pool's entry notes what its connection was last told."""

_route: ContextVar[str | None] = ContextVar("flashslides_route", default=None)


class NotRouted(ExceptionWithErrorType):
    """NOT_ROUTED: a table of users was asked for without saying whose."""

    kind = ErrorKind.INCONSISTENT

    def __init__(self) -> None:
        super().__init__(
            "SHARDING=schemas: this asks for a table of users, and nobody said of which group. "
            "Enter routed_to(user_id), of src.common.routing, before the session's first statement",
            "NOT_ROUTED",
        )


class WrongShard(ExceptionWithErrorType):
    """WRONG_SHARD: the user is of another group than the one that was asked."""

    kind = ErrorKind.INCONSISTENT

    def __init__(self, message: str = "This user is of another group: nothing was done") -> None:
        super().__init__(message, "WRONG_SHARD")


def is_group(schema: str) -> bool:
    """Whether a schema of this name is a group's."""
    return _GROUP_NAME.fullmatch(schema) is not None


def current_route() -> str | None:
    """The schema that a connection handed out now would see, besides what is everybody's."""
    return _route.get()


@contextmanager
def routed_to_schema(schema: str | None) -> Generator[None]:
    """Have the connections that are handed out within the block see this group's tables.

    It holds for this task or thread, and for what is started with a copy of its context. None is
    what is everybody's alone.

    Raises:
        ValueError: no group has such a name.
    """
    if schema is not None and not is_group(schema):
        raise ValueError(f"{schema!r} is no group's name")
    token = _route.set(schema)
    try:
        yield
    finally:
        _route.reset(token)


@contextmanager
def unrouted() -> Generator[None]:
    """Have the connections that are handed out within the block see what is everybody's alone."""
    with routed_to_schema(None):
        yield


def route_of(connection: Connection) -> str | None:
    """Whose tables this connection sees; None where it sees those of no group."""
    route: str | None = connection.info.get(_ROUTE)
    return route


@contextmanager
def noted_route(connection: Connection, route: str | None) -> Generator[None]:
    """Note within the block whose tables this connection sees, told otherwise than by its pool."""
    info = connection.info  # not to be had any more of a connection that is lost within the block
    before = info.get(_ROUTE)
    info[_ROUTE] = route
    try:
        yield
    finally:
        info[_ROUTE] = before


def is_sharded(connection: Connection) -> bool:
    """Whether this connection is of an engine that routes."""
    return _ROUTE in connection.info


def sees_users(connection: Connection) -> bool:
    """Whether this connection sees any user's tables.

    It does not where groups of users have schemas and it is in none of them.
    """
    return not is_sharded(connection) or route_of(connection) is not None


def search_path(route: str | None) -> str:
    """PostgreSQL's setting of this name."""
    return SHARED_SCHEMA if route is None else f"{route}, {SHARED_SCHEMA}"


def install_routes(engine: Engine, settings: Settings) -> None:
    """Have each connection of this engine see what is asked for when it is handed out."""
    if settings.sharding is Sharding.NONE:
        return
    # Behind a pooler each database transaction says so itself, with its time-outs.
    is_kept = settings.database_pooler is DatabasePooler.NONE

    def show(
        raw: "DBAPIConnection", entry: "ConnectionPoolEntry", _proxy: "PoolProxiedConnection"
    ) -> None:
        wanted = current_route()
        entry.info[_ROUTE] = wanted
        if is_kept and entry.info.get(SEEN, ...) != wanted:
            entry.info.pop(SEEN, None)  # until the server has said yes
            _set_search_path(raw, search_path(wanted))
            entry.info[SEEN] = wanted

    event.listen(engine, "checkout", show)
    event.listen(engine, "handle_error", _say_that_nobody_was_routed, retval=True)
    if not event.contains(Session, "after_begin", refuse_change_of_route):
        event.listen(Session, "after_begin", refuse_change_of_route)


def _set_search_path(raw: Any, path: str) -> None:
    """By a statement of its own, outside any database transaction.

    Raises:
        InvalidatePoolError: the connection broke while it was idle, as the others may have; the
            pool opens another.
    """
    statement = f"SET search_path = {path}"
    try:
        if isinstance(raw, psycopg.Connection):
            raw.autocommit = True
            raw.execute(statement.encode())
            raw.autocommit = False
        else:
            raw.run_async(methodcaller("execute", statement))
    except _broken(raw) as error:
        raise InvalidatePoolError from error


def _broken(raw: Any) -> tuple[type[Exception], ...]:
    """What its driver raises of a connection that is lost."""
    if isinstance(raw, psycopg.Connection):
        return (psycopg.Error,)
    import asyncpg  # only where it is in use already: commands use psycopg

    return (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


def _say_that_nobody_was_routed(context: "ExceptionContext") -> NotRouted | None:
    """In place of `relation "users" does not exist`, which is true and helps nobody."""
    error, connection = context.sqlalchemy_exception, context.connection
    if not isinstance(error, DBAPIError) or connection is None:
        return None
    is_missing = sqlstate_of(error) == _UNDEFINED_TABLE
    return NotRouted() if is_missing and route_of(connection) is None else None


def refuse_change_of_route(
    session: Session, _transaction: "SessionTransaction", connection: Connection
) -> None:
    """What a session has loaded is of one group: it would be taken for rows of the other."""
    now = route_of(connection)
    if now is not None and session.info.setdefault(_ROUTE, now) != now:
        raise WrongShard(
            f"This session has worked for {session.info[_ROUTE]}, and cannot go on for {now}: "
            "take a new one"
        )
