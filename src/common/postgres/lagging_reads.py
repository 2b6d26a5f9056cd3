"""Readings that may be answered by a replica, and what such an answer says of itself.

Only what `may_lag` marks can be asked of a replica. So nothing that writes or decides gets there:
whoever calls names a reading and never sees the session.
"""

import datetime as dt
import functools
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Concatenate, Generic, ParamSpec, TypeVar

from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from src.common.exceptions import NotFound
from src.common.models.user import User
from src.common.postgres.conditions import is_not_there
from src.common.postgres.errors import (
    QUERY_CANCELED,
    READ_ONLY,
    RetryableDatabaseError,
)
from src.common.postgres.replica_lag import Replay

P = ParamSpec("P")
T = TypeVar("T")

_CONFLICT = "conflict with recovery"


class MayLag(Generic[P, T]):
    """A function that only reads, and whose answer nobody decides by."""

    marked: ClassVar[list["MayLag[Any, Any]"]] = []
    """All there are in this process; a test knows every one."""

    def __init__(self, function: Callable[Concatenate[Session, P], T]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self.marked.append(self)

    def __call__(self, session: Session, /, *args: P.args, **kwargs: P.kwargs) -> T:
        """As the function itself, in the caller's own session."""
        return self._function(session, *args, **kwargs)

    @property
    def name(self) -> str:
        """Its module and name."""
        return f"{self._function.__module__}.{self._function.__qualname__}"


def may_lag(function: Callable[Concatenate[Session, P], T]) -> MayLag[P, T]:
    """Mark a function: a replica may answer it. It neither writes, locks nor decides."""
    return MayLag(function)


@dataclass(frozen=True)
class ReadAfter:
    """The reader has seen this version of a user's books, and will not be shown an older one."""

    user_id: uuid.UUID
    version: int


class Source(StrEnum):
    """Which server may answer."""

    PRIMARY = "primary"
    REPLICA = "replica"
    """The replica, if it can; else the primary."""


class PrimaryBecause(StrEnum):
    """Why the primary answered what a replica was asked for."""

    NOT_CONFIGURED = "not_configured"
    """`DATABASE_REPLICA_HOST` is not set."""
    AWAY = "away"
    """It did not answer in time, or refused us."""
    NO_STANDBY = "no_standby"
    """It is a primary: nobody knows whose."""
    LAGGING = "lagging"
    """It is further behind than it may be, or nobody knows how far."""
    BEHIND_READER = "behind_reader"
    """It lacks what the reader has seen."""
    NOT_FOUND = "not_found"
    """It has no such thing yet."""
    BROKEN_OFF = "broken_off"
    """It ended the reading, so as to go on replaying, or the connection was lost."""
    BUSY = "busy"
    """It had no connection left for us."""


@dataclass(frozen=True, kw_only=True)
class ReadFrom:
    """Who answered, and as of when."""

    source: Source
    because: PrimaryBecause | None = None
    """Why not the replica, which was asked for."""
    as_of: dt.datetime | None = None
    """Of a replica: all that was committed by then is in the answer."""
    lag_seconds: float | None = None
    """Of a replica: how long before it was asked that is, 0 or more; beyond the limit too, and None
    where nobody knows."""


def oldest(told: Sequence[ReadFrom]) -> ReadFrom:
    """What an answer that is made of several says of itself: the one of the longest ago."""
    primary = ReadFrom(source=Source.PRIMARY)
    return min(told, key=lambda each: -(each.lag_seconds or 0), default=primary)


@dataclass(frozen=True)
class Answered(Generic[T]):
    """What was read, and from whom."""

    value: T
    read_from: ReadFrom


class PassedBy(Exception):
    """The replica is not to answer this."""

    def __init__(self, because: PrimaryBecause, lag_seconds: float | None = None) -> None:
        super().__init__(because)
        self.because = because
        self.lag_seconds = lag_seconds


class ReplicaSession(Session):
    """A session on a replica, which one reading has, and nobody else."""


def check_replay(replay: Replay, lag_max_seconds: float) -> ReadFrom:
    """What an answer read from now on says of itself.

    Raises:
        PassedBy: the replica is none, or further behind than it may be.
    """
    if not replay.is_standby:
        raise PassedBy(PrimaryBecause.NO_STANDBY)
    lag = replay.lag_seconds
    if lag is None or lag > lag_max_seconds:
        raise PassedBy(PrimaryBecause.LAGGING, lag)
    return ReadFrom(source=Source.REPLICA, as_of=replay.as_of, lag_seconds=lag)


def read_once(
    connection: Connection, after: ReadAfter | None, reading: Callable[[Session], T]
) -> T:
    """The reading's answer as of one snapshot of the replica.

    Raises:
        PassedBy: the replica lacks what the reader has seen, in that very snapshot.
    """
    snapshot = connection.execution_options(isolation_level="REPEATABLE READ")
    with ReplicaSession(bind=snapshot) as session:
        if after is not None:
            version = select(User.credits_version).where(User.user_id == after.user_id)
            if (session.scalar(version) or 0) < after.version:
                raise PassedBy(PrimaryBecause.BEHIND_READER)
        return reading(session)


def why_passed_by(error: Exception) -> PrimaryBecause | None:
    """Why the primary is to do a reading that failed so at a replica; None if it is not."""
    if isinstance(error, NotFound):
        return PrimaryBecause.NOT_FOUND
    if isinstance(error, RetryableDatabaseError):
        if error.sqlstate == READ_ONLY:  # a reading that writes is a defect
            return None
        if error.sqlstate == QUERY_CANCELED and _CONFLICT not in str(error.orig):
            return None  # it took too long, and would at the primary
        return PrimaryBecause.BROKEN_OFF
    if isinstance(error, DBAPIError) and is_not_there(error):  # a migration it has not replayed
        return PrimaryBecause.NOT_FOUND
    return None
