"""Databases on Citus, where `CITUS_DSN` names a superuser's database on a coordinator."""

import os
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from src.common.sharding.citus import Node
from src.local_postgres import ConnectionParameters

DSN = os.environ.get("CITUS_DSN")
on_citus = pytest.mark.skipif(DSN is None, reason="CITUS_DSN names no database")
on_one_server = pytest.mark.skipif(DSN is not None, reason="CITUS_DSN names a database")
"""Of what is otherwise on Citus: connections keep no route, and triggers look at COMMIT."""


@dataclass(frozen=True)
class CitusServer:
    """A coordinator and its workers, each of which has every database by itself."""

    connection: ConnectionParameters
    workers: tuple[Node, ...]

    @staticmethod
    def named(dsn: str) -> "CitusServer":
        """The cluster of this database."""
        given = conninfo_to_dict(dsn)
        with psycopg.connect(dsn) as connection:
            found = connection.execute(
                "SELECT nodename, nodeport FROM pg_dist_node WHERE shouldhaveshards ORDER BY 2"
            )
            workers = tuple(Node(*row) for row in found)
        parameters = ConnectionParameters(
            host=str(given["host"]),
            port=int(str(given.get("port", 5432))),
            user=str(given["user"]),
            password=str(given.get("password", "none")),
            database=str(given["dbname"]),
        )
        return CitusServer(parameters, workers)

    @contextmanager
    def alone(self, lock: int) -> Generator[None]:
        """Have others of this lock wait until the block ends."""
        with self._connected(self._nodes()[0]) as admin:
            admin.execute("SELECT pg_advisory_lock(%s)", [lock])
            yield

    def empty(self, name: str) -> ConnectionParameters:
        """A new database of nothing but Citus."""
        self._on_each("CREATE DATABASE {}", name)
        for node in self._nodes():
            with self._connected(node, name) as connection:
                connection.execute("CREATE EXTENSION citus")
        with self._connected(self._nodes()[0], name) as coordinator:
            own = (self.connection.host, self.connection.port)
            coordinator.execute("SELECT citus_set_coordinator_host(%s, %s)", own)
            for worker in self.workers:
                coordinator.execute("SELECT citus_add_node(%s, %s)", worker)
        return replace(self.connection, database=name)

    def freeze(self, name: str) -> None:
        """Keep everybody out of a database, Citus's own processes too, so that it can be cloned."""
        self._on_each("ALTER DATABASE {} ALLOW_CONNECTIONS false", name)
        for admin in self._admins():
            admin.execute(
                "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = %s",
                [name],
            )

    def clone(self, template: str, name: str) -> None:
        """A new database as this one, on each node."""
        self._on_each("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY", name, template)

    def drop(self, name: str) -> None:
        """Drop a database, whoever is still connected."""
        self._on_each("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    def has(self, name: str) -> bool:
        """Whether there is such a database."""
        with self._connected(self._nodes()[0]) as admin:
            found = admin.execute("SELECT FROM pg_database WHERE datname = %s", [name])
            return found.fetchone() is not None

    def rename(self, name: str, other: str) -> None:
        """Give a database another name."""
        self._on_each("ALTER DATABASE {} RENAME TO {}", name, other)

    def _on_each(self, statement: LiteralString, *names: str) -> None:
        for admin in self._admins():
            admin.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def _admins(self) -> Generator[psycopg.Connection]:
        with ExitStack() as stack:
            for node in self._nodes():
                yield stack.enter_context(self._connected(node))

    def _nodes(self) -> list[Node]:
        return [Node(self.connection.host, self.connection.port), *self.workers]

    def _connected(self, node: Node, database: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(
            host=node.host,
            port=node.port,
            user=self.connection.user,
            password=self.connection.password,
            dbname=database,
            autocommit=True,
        )
