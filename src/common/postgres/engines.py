"""Builds the engines, sync and async: URL, pool, time-outs, caches, one error for passing ones.

The document's values are the defaults (pool 20 + 10, pre-ping on the sync pool). `DATABASE_POOLER`
decides what a transaction pooler forbids: prepared statements and start-up options. A process that
was forked opens connections of its own.
"""

import os
import weakref
from collections.abc import Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import URL, Connection, Engine, create_engine, event, text

from src.common.database_settings import DatabasePooler, Sharding
from src.common.exceptions import SettingsError
from src.common.postgres.confirmed_commits import note_duplicate
from src.common.postgres.errors import (
    NOT_REACHABLE,
    RetryableDatabaseError,
    translate_transient_error,
)
from src.common.postgres.hosts import HostOrder, connect_in_turn, libpq_parameters
from src.common.postgres.routes import current_route, install_routes, route_of
from src.common.postgres.session_settings import session_settings, session_settings_statement
from src.common.postgres.silent_servers import answer_lost_pings, install_patience, patience_of
from src.common.postgres.standbys import refuse_standbys
from src.common.settings import Settings
from src.common.tracing import trace_engine

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import ConnectionPoolEntry, Pool

    from src.local_postgres import ConnectionParameters

PLAIN_BEGIN = "BEGIN"
LOOK_UPS_LOCK_TIMEOUT_MS = 200
"""How long a database transaction that many wait for waits for somebody's lock."""
_LANES_PLANNER = {
    # Left to itself, PostgreSQL plans statements over arrays again each time, since a plan for an
    # array of known length looks cheaper; planning costs as much as a small batch does, and finds a
    # scan of all users where the index is better.
    "plan_cache_mode": "force_generic_plan",
    # A bitmap scan never notes which entries of an index are dead: one busy user's closed lots
    # would be visited by every batch until the next vacuum.
    "enable_bitmapscan": "off",
}
"""How the batch engine's statements are planned: once, each row looked up."""

logger = structlog.get_logger(__name__)

_engines: "weakref.WeakSet[Engine]" = weakref.WeakSet()
_inherited_pools: "list[Pool]" = []
"""Of the parent process. Kept: were their connections collected, asyncpg would unsettle the
parent's event loop."""

SYNC_DRIVER = "postgresql+psycopg"
ASYNC_DRIVER = "postgresql+asyncpg"


def database_url(settings: Settings, drivername: str = SYNC_DRIVER) -> URL:
    """The URL the settings describe; a URL object, so that any password survives and none shows.

    Where `DATABASE_HOST` is not set this is the embedded server's, if one was ever made here.
    """
    if settings.database_addresses:
        return _configured_url(settings, drivername)
    local = _local_connection() if settings.is_local else None
    if local is None:
        return URL.create(drivername, database=settings.database_name)
    return URL.create(
        drivername,
        username=local.user,
        password=local.password,
        host=local.host,
        port=local.port,
        database=local.database,
    )


def _configured_url(settings: Settings, drivername: str) -> URL:
    password = settings.database_password
    url = URL.create(
        drivername,
        username=settings.database_user,
        password=password.get_secret_value() if password else None,
        database=settings.database_name,
    )
    first, *others = settings.database_addresses
    if not others:
        return url.set(host=first.host, port=first.port)
    hosts = ",".join(each.host for each in settings.database_addresses)
    ports = ",".join(str(each.port) for each in settings.database_addresses)
    return url.update_query_dict({"host": hosts, "port": ports})


def build_engine(settings: Settings, *, takes_standbys: bool = False) -> Engine:
    """The sync engine (psycopg 3), with the document's pool. Nothing is connected yet.

    A standby's connections are refused, unless it `takes_standbys`: for reads that may lag.
    """
    pooler = settings.database_pooler
    connect_args = libpq_parameters(settings)
    if pooler is DatabasePooler.NONE:
        connect_args["options"] = " ".join(
            f"-c {name}={value}" for name, value in session_settings(settings).items()
        )
    if pooler is DatabasePooler.TRANSACTION:
        connect_args["prepare_threshold"] = None
    engine = create_engine(
        database_url(settings, SYNC_DRIVER),
        poolclass=_pool_class(settings, is_async=False),
        pool_size=settings.database_pool_size,
        max_overflow=settings.database_max_overflow,
        pool_pre_ping=settings.database_pool_pre_ping,
        pool_timeout=settings.database_pool_timeout_seconds,
        connect_args=connect_args,
        hide_parameters=True,  # statements' parameters are personal data; logs hold none
    )
    _prepare(engine, settings)
    if not takes_standbys:
        refuse_standbys(engine)
    install_patience(engine, patience_of(settings))
    return engine


def build_async_engine(
    settings: Settings,
    planner: Mapping[str, str] = MappingProxyType({}),
    *,
    takes_standbys: bool = False,
) -> "AsyncEngine":
    """The async engine (asyncpg), with the document's pool. Nothing is connected yet.

    `planner` are PostgreSQL's own settings of its planner; a transaction pooler takes none.
    Standbys are refused as of `build_engine`.
    """
    # Which commands do without:
    from sqlalchemy.ext.asyncio import create_async_engine

    from src.common.postgres.async_confirmed_commits import AsyncConfirmingConnection

    pooler = settings.database_pooler
    server_settings = {"application_name": settings.database_application_name}
    if pooler is DatabasePooler.NONE:
        server_settings |= session_settings(settings)
        server_settings |= planner
    connect_args: dict[str, Any] = {
        "async_creator_fn": partial(
            connect_in_turn, HostOrder(), settings.database_tcp_user_timeout_ms
        ),
        "target_session_attrs": settings.session_attrs,
        "server_settings": server_settings,
        "timeout": settings.database_connect_timeout_seconds,
        "command_timeout": patience_of(settings),
        "connection_class": AsyncConfirmingConnection,
    }
    if pooler is DatabasePooler.TRANSACTION:
        # SQLAlchemy's own cache too: it would keep result types that a migration has changed.
        connect_args |= {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
    engine = create_async_engine(
        database_url(settings, ASYNC_DRIVER),
        poolclass=_pool_class(settings, is_async=True),
        pool_size=settings.database_async_pool_size,
        max_overflow=settings.database_async_max_overflow,
        pool_pre_ping=settings.database_async_pool_pre_ping,
        pool_timeout=settings.database_pool_timeout_seconds,
        connect_args=connect_args,
        hide_parameters=True,
    )
    _prepare(engine.sync_engine, settings)
    if not takes_standbys:
        refuse_standbys(engine.sync_engine)
    event.listen(engine.sync_engine, "do_connect", _connect_with_asyncpg)
    answer_lost_pings(engine.sync_engine)
    return engine


def _pool_class(settings: Settings, *, is_async: bool) -> "type[Pool] | None":
    """None for SQLAlchemy's own: without groups, or where no connection keeps to one."""
    if settings.sharding is Sharding.NONE or settings.database_pooler is not DatabasePooler.NONE:
        return None
    from src.common.postgres.routed_pools import AsyncRoutedPool, RoutedPool

    return AsyncRoutedPool if is_async else RoutedPool


def build_lanes_engine(settings: Settings) -> "AsyncEngine":
    """The batch engine's own few connections: as the async engine's, none beyond the pool."""
    return build_async_engine(_lanes_settings(settings), _LANES_PLANNER)


def replica_settings(settings: Settings) -> Settings:
    """As these, with the replica in the place of the primary.

    Its connections are not looked at before use: whoever takes one asks it first how far behind it
    is. And nobody waits for it long; least of all for a free connection, since a full pool must be
    told from a server that is away. Of several hosts a primary is passed: it may be one of them
    since a failover.
    """
    patience = settings.database_replica_timeout_seconds
    are_several = len(settings.replica_addresses) > 1
    return settings.model_copy(
        update={
            "database_host": settings.database_replica_host,
            "database_port": settings.database_replica_port,
            "database_target_session_attrs": "standby" if are_several else "any",
            "database_connect_timeout_seconds": patience,
            "database_pool_timeout_seconds": patience / 4,
            "database_pool_pre_ping": False,
            "database_async_pool_pre_ping": False,
        }
    )


def begin_statement(settings: Settings, route: str | None = None) -> str:
    """What begins the batch engine's database transactions, which SQLAlchemy does not manage.

    `route` is the group whose tables they see, where each has its own.
    """
    if settings.database_pooler is DatabasePooler.NONE:
        return PLAIN_BEGIN  # the connection has its time-outs since it was opened
    return f"BEGIN; {session_settings_statement(_lanes_settings(settings), route)}"


def begin_look_ups(settings: Settings) -> str:
    """What begins a database transaction of statements that look up many rows of many tables.

    On any connection: they are planned as the batch engine's are, whatever others' need. Nor is any
    table read whole, since a plan may be made while it is still empty, and is kept.
    """
    chosen = _LANES_PLANNER | {"enable_seqscan": "off", "lock_timeout": LOOK_UPS_LOCK_TIMEOUT_MS}
    steps = [f"SET LOCAL {name} = {value}" for name, value in chosen.items()]
    if settings.database_pooler is not DatabasePooler.NONE:
        steps.insert(0, session_settings_statement(settings, current_route()))
    return "; ".join([PLAIN_BEGIN, *steps])


def _lanes_settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "database_async_pool_size": settings.credits_engine_connections,
            "database_async_max_overflow": 0,
            "database_lock_timeout_ms": settings.credits_engine_lock_timeout_ms,
        }
    )


def warn_if_pools_exceed_server(connection: Connection, settings: Settings) -> None:
    """Say so at start-up when the pools of all processes may open more than the server allows.

    Through a pooler the sum is the pooler's to limit, so nothing is said.
    """
    if settings.database_pooler is not DatabasePooler.NONE:
        return
    allowed = connections_allowed(connection)
    wanted = settings.web_concurrency * connections_wanted(settings)
    if wanted > allowed:
        logger.warning(
            "The pools may open more connections than the server allows; lower "
            "DATABASE_POOL_SIZE, DATABASE_MAX_OVERFLOW and their DATABASE_ASYNC_ twins, or "
            "WEB_CONCURRENCY, or raise max_connections, or put a pooler in front",
            connections_wanted=wanted,
            connections_allowed=allowed,
            processes=settings.web_concurrency,
        )


def connections_wanted(settings: Settings) -> int:
    """The most connections that the pools of one server process may open."""
    return (
        settings.database_pool_size
        + settings.database_max_overflow
        + settings.database_async_pool_size
        + settings.database_async_max_overflow
        + settings.credits_engine_connections
    )


CONNECTIONS_ALLOWED = (
    "current_setting('max_connections')::int"
    " - current_setting('superuser_reserved_connections')::int"
    " - coalesce(current_setting('reserved_connections', true), '0')::int"
)
"""SQL: how many connections the server has for roles that are no superusers."""


def connections_allowed(connection: Connection) -> int:
    """How many connections the server has for roles that are no superusers."""
    allowed: int = connection.execute(text(f"SELECT {CONNECTIONS_ALLOWED}")).scalar_one()
    return allowed


def _prepare(engine: Engine, settings: Settings) -> None:
    """Attach what holds for every connection of this engine, whichever driver."""
    _engines.add(engine)
    trace_engine(engine)
    event.listen(engine, "handle_error", note_duplicate)
    event.listen(engine, "handle_error", translate_transient_error, retval=True)
    install_routes(engine, settings)
    if settings.database_pooler is not DatabasePooler.NONE:
        statement_of = cache(partial(session_settings_statement, settings))

        def set_for_transaction(connection: Connection) -> None:
            connection.exec_driver_sql(statement_of(route_of(connection)))

        event.listen(engine, "begin", set_for_transaction)
    if settings.database_host is None:

        def find_server(
            dialect: "Dialect",
            _entry: "ConnectionPoolEntry",
            _arguments: tuple[Any, ...],
            parameters: dict[str, Any],
        ) -> None:
            parameters |= _embedded_server(dialect, settings)

        event.listen(engine, "do_connect", find_server)


def _embedded_server(dialect: "Dialect", settings: Settings) -> dict[str, Any]:
    """Look the embedded server up when a connection is opened, not when the engine was imported.

    So an engine imported before `flashslides serve` made the server works after it.
    """
    if not settings.is_local:
        raise SettingsError(f"DATABASE_HOST is not set, and ENV={settings.env} needs it.")
    local = _local_connection()
    if local is None:
        raise SettingsError(
            "DATABASE_HOST is not set and there is no embedded server yet. "
            "Run `flashslides db start`, or set the DATABASE_* variables."
        )
    return {
        "host": local.host,
        "port": local.port,
        "user": local.user,
        "password": local.password,
        "database" if dialect.driver == "asyncpg" else "dbname": local.database,
    }


def _local_connection() -> "ConnectionParameters | None":
    from src.local_postgres import LocalPostgresError, read_connection

    try:
        return read_connection()
    except LocalPostgresError as error:
        raise SettingsError(str(error)) from error


def _connect_with_asyncpg(
    dialect: "Dialect",
    _entry: "ConnectionPoolEntry",
    arguments: tuple[Any, ...],
    parameters: dict[str, Any],
) -> "DBAPIConnection":
    """Open the connection; asyncpg reports a server out of reach as the plain OSError it got.

    SQLAlchemy passes that by its `handle_error`, so it is translated here.
    """
    try:
        connection: DBAPIConnection = dialect.connect(*arguments, **parameters)
    except OSError as error:
        raise RetryableDatabaseError(None, None, NOT_REACHABLE) from error
    connection.driver_connection.patience = parameters["command_timeout"]
    return connection


def _leave_to_parent() -> None:
    """In a forked child: the open connections are the parent's, neither used nor closed here."""
    for engine in list(_engines):
        _inherited_pools.append(engine.pool)
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_leave_to_parent)
