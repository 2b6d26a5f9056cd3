"""Moves a group to another node of Citus's, while its users go on (decision 0070).

Citus copies the group's tables by logical replication, and keeps its writes waiting for the moment
in which the other node takes over.
"""

import re
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from src.common.exceptions import Conflict, Invalid, NotFound, SettingsError
from src.common.postgres.citus import is_citus
from src.common.postgres.errors import RetryableDatabaseError
from src.common.postgres.migrations import hold_migration_lock, release_migration_lock
from src.common.postgres.reach import build_migration_engine
from src.common.settings import Settings
from src.common.sharding.citus import Node, nodes_of_groups, workers
from src.common.sharding.groups import ready_groups

LOOKED_EVERY_SECONDS = 0.5
_PORT_MAX = 65_535
_NODE = re.compile(r"(?:\[(?P<ipv6>[^\]]+)\]|(?P<name>[^:\s]+)):(?P<port>[0-9]{1,5})")
_SIZE = text("""
    SELECT coalesce(sum(citus_total_relation_size(logicalrelid)), 0)::bigint
    FROM pg_dist_partition JOIN pg_class ON pg_class.oid = logicalrelid
    WHERE relnamespace = CAST(:schema AS regnamespace)
""")
_WAL_LEVELS = text(
    "SELECT nodename, nodeport, result"
    " FROM run_command_on_workers('SHOW wal_level') WHERE result <> 'logical' ORDER BY 1, 2"
)
_MOVE = text("SELECT citus_schema_move(CAST(:schema AS regnamespace), :host, :port)")
_COPIED = text("""
    SELECT coalesce(sum(target_shard_size), 0)::bigint FROM get_rebalance_progress()
    WHERE CAST(table_name AS text) LIKE :tables
""")


@dataclass(frozen=True)
class Move:
    """What a move is about."""

    schema: str
    source: Node
    target: Node
    size_bytes: int
    """Of the group's tables and indexes, before."""

    @property
    def is_needed(self) -> bool:
        """Whether the group is elsewhere."""
        return self.source != self.target


def parse_node(given: str) -> Node:
    """A node as host:port.

    Raises:
        Invalid: VALIDATION_ERROR.
    """
    found = _NODE.fullmatch(given)
    if found is None or not 0 < int(found["port"]) <= _PORT_MAX:
        raise Invalid(f"{given!r} is no node: name it as host:port", "VALIDATION_ERROR")
    return Node(found["ipv6"] or found["name"], int(found["port"]))


def plan_move(connection: Connection, schema: str, target: Node) -> Move:
    """What moving this group to this node would be.

    Raises:
        NotFound: GROUP_NOT_FOUND, NODE_NOT_FOUND.
        SettingsError: there is no Citus, or it cannot move groups while they are in use.
    """
    if not is_citus(connection):
        raise SettingsError(
            f"Moving {schema} to {target} needs Citus: on one PostgreSQL server a group has "
            "nowhere to go. Nothing was changed"
        )
    if schema not in ready_groups(connection):
        raise NotFound(f"There is no group {schema}", "GROUP_NOT_FOUND")
    there = workers(connection)
    if target not in there:
        known = ", ".join(map(str, there))
        raise NotFound(f"Citus has no worker {target}: it has {known}", "NODE_NOT_FOUND")
    for host, port, level in connection.execute(_WAL_LEVELS):
        raise SettingsError(
            f"The node {Node(host, port)} has wal_level={level}: moving a group that is in use "
            "needs wal_level=logical there, and a restart"
        )
    size: int = connection.execute(_SIZE, {"schema": schema}).scalar_one()
    return Move(schema, nodes_of_groups(connection)[schema], target, size)


@contextmanager
def moving(settings: Settings, schema: str, target: Node) -> Generator["Mover"]:
    """What moves this group, alone among all who move, make or migrate groups.

    Raises:
        DatabaseBusy: another process is at it for too long.
        NotFound, SettingsError: as `plan_move`; or there is a pooler in the way.
    """
    engine = build_migration_engine(settings)
    try:
        with engine.connect() as connection, engine.connect() as watching:
            hold_migration_lock(connection)
            move = plan_move(connection, schema, target)
            connection.commit()
            yield Mover(move, connection, watching)
            release_migration_lock(connection)
    finally:
        engine.dispose()


@dataclass(frozen=True)
class Mover:
    """Moves a group on one connection, and looks how far it is on another."""

    move: Move
    connection: Connection
    watching: Connection

    def run(self, on_progress: Callable[[int], None]) -> None:
        """Move it; `on_progress` is told how many bytes have been copied.

        Killed at any point the group stays where it was, or is where it was to go.

        Raises:
            Conflict: GROUP_NOT_MOVED, Citus refuses, and says why. The group is where it was.
        """
        with ThreadPoolExecutor(1) as thread:
            moved = thread.submit(self._move)
            while not _has_ended(moved):
                on_progress(self._copied_bytes())
            moved.result()

    def _move(self) -> None:
        given = {"schema": self.move.schema, **self.move.target._asdict()}
        try:
            self.connection.execute(_MOVE, given)
            self.connection.commit()
        except RetryableDatabaseError:
            raise
        except DBAPIError as error:
            reason = str(error.orig).partition("\n")[0]
            raise Conflict(
                f"Citus has not moved {self.move.schema}: {reason}", "GROUP_NOT_MOVED"
            ) from error

    def _copied_bytes(self) -> int:
        copied: int = self.watching.execute(
            _COPIED, {"tables": f"{self.move.schema}.%"}
        ).scalar_one()
        self.watching.rollback()
        return copied


def _has_ended(moved: Future[None]) -> bool:
    ends_at = time.monotonic() + LOOKED_EVERY_SECONDS
    while not moved.done() and time.monotonic() < ends_at:
        time.sleep(LOOKED_EVERY_SECONDS / 10)
    return moved.done()
