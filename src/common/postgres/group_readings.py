"""Reads one group of users after the other within one database transaction: of one snapshot."""

from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy import Connection

from src.common.postgres.routes import noted_route, search_path


@contextmanager
def seeing_group(connection: Connection, group: str) -> Generator[None]:
    """Have this database transaction see a group's tables within the block, which only reads.

    It ends by a rollback to a savepoint. That gives the tables' locks back: those of hundreds of
    groups are more than a server has room for.
    """
    with connection.begin_nested() as savepoint:
        connection.exec_driver_sql(f"SET LOCAL search_path = {search_path(group)}")
        with noted_route(connection, group):
            yield
        savepoint.rollback()
