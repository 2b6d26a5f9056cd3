"""Which database the settings mean, whether it may be used, and how migrations connect to it.

The commands and Alembic's `env.py` share this decision, so neither ever falls back to whatever
PostgreSQL happens to answer.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import psycopg
from sqlalchemy import Engine, NullPool, create_engine, event

from src.common.database_settings import DatabasePooler
from src.common.exceptions import SettingsError
from src.common.postgres.engines import database_url
from src.common.postgres.errors import translate_transient_error
from src.common.postgres.hosts import libpq_parameters
from src.common.postgres.poolers import Sharing, find_pooler
from src.common.postgres.session_settings import settings_of_all
from src.common.postgres.silent_servers import install_patience
from src.common.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

    from src.local_postgres import RunningServer


def refuse_embedded_server(settings: Settings) -> None:
    """Stop what would start the embedded server where the settings do not let it.

    Raises:
        SettingsError: ENV is not `local`, so this is no developer's machine; or the server's port
            is none.
    """
    if not settings.is_local:
        raise SettingsError(
            f"DATABASE_HOST: required where ENV is {settings.env}; "
            "the embedded server is for ENV=local"
        )
    from src.local_postgres import LocalPostgresError, configured_port

    try:
        configured_port()
    except LocalPostgresError as error:
        raise SettingsError(str(error)) from None


@contextmanager
def database_in_reach(
    settings: Settings, on_progress: Callable[[str], None] | None = None
) -> "Generator[RunningServer | None]":
    """Keep a database in reach for the block: the embedded one where `DATABASE_HOST` is not set.

    Yields the embedded server, or None where another database is configured.

    Raises:
        SettingsError: ENV is not `local` and no database is configured; or the embedded server's
            port is none.
        LocalPostgresError: the embedded server cannot run.
    """
    if settings.database_host is not None:
        yield None
        return
    refuse_embedded_server(settings)
    from src.local_postgres import running_server

    with running_server(on_progress=on_progress) as server:
        yield server


def build_migration_engine(settings: Settings) -> Engine:
    """An engine for one connection straight to the server, whatever stands before it otherwise.

    It has no time-outs of its own: each migration sets its lock and statement time-outs. Its
    commits are confirmed, as everybody's are: what a migration did, or found to be done, is as
    durable as the server's settings ask.

    Raises:
        SettingsError: there is a pooler, and no setting says how to get past it.
        DatabaseBusy: there is a pooler, and it has no connection left.
    """
    direct = _direct(settings)
    _refuse_pooler(direct)
    engine = create_engine(
        database_url(direct),
        poolclass=NullPool,
        connect_args=libpq_parameters(direct),
        hide_parameters=True,
    )
    event.listen(engine, "handle_error", translate_transient_error, retval=True)
    install_patience(engine, None)
    event.listen(engine, "connect", partial(_tell, settings_of_all(settings)))
    return engine


def _tell(
    chosen: "Mapping[str, str]", raw: "DBAPIConnection", _entry: "ConnectionPoolEntry"
) -> None:
    """By a statement: a pooler in session mode takes no options."""
    assert isinstance(raw, psycopg.Connection)  # noqa: S101  this engine's driver
    raw.autocommit = True
    for name, value in chosen.items():
        raw.execute("SELECT set_config(%s, %s, false)", (name, value))
    raw.autocommit = False


def _refuse_pooler(settings: Settings) -> None:
    """Look at who answers, since nobody may have said that it is a pooler.

    One that gives each client a connection of its own, for as long as the client stays, is in
    nobody's way. Whether the address can be reached at all is said by whoever connects.
    """
    if settings.database_host is None:
        return
    try:
        pooler = find_pooler(settings)
    except psycopg.Error:
        return
    if pooler is not None and pooler.sharing is not Sharing.SESSION:
        where = ", ".join(map(str, settings.database_addresses))
        raise SettingsError(
            f"A pooler answers at {where} ({pooler.name}, {pooler.sharing} mode): migrations take "
            "turns by a lock that belongs to one connection, and it shares connections; set "
            "DATABASE_DIRECT_HOST, and DATABASE_DIRECT_PORT, to the server's own address"
        )


def _direct(settings: Settings) -> Settings:
    if settings.database_host is None:  # the embedded server has no pooler
        return settings
    if settings.database_direct_host is not None:
        return settings.model_copy(
            update={
                "database_host": settings.database_direct_host,
                "database_port": settings.database_direct_port,
                "database_target_session_attrs": None,  # which the pooler's hosts may need
            }
        )
    if settings.database_pooler is not DatabasePooler.NONE:
        raise SettingsError(
            f"DATABASE_POOLER is {settings.database_pooler.value}: migrations take turns by a lock "
            "that belongs to one connection, and a pooler shares connections; set "
            "DATABASE_DIRECT_HOST, and DATABASE_DIRECT_PORT, to the server's own address"
        )
    return settings
