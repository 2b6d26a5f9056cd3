"""Reads that may lag, for sync callers: from the replica where they may, else from the primary.

    found = Reader(Source.REPLICA).read(queries.history, user_id, limit=20)

A reading is named, and marked with `may_lag`; nobody else gets a session on the replica. An answer
says who gave it and as of when. Whatever keeps the replica from answering, the primary answers.
"""

import os
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any, ParamSpec, TypeVar

import structlog
from prometheus_client import Counter
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

from src.common.database import read_from_database
from src.common.exceptions import NotFound
from src.common.postgres.disposal import dispose
from src.common.postgres.engines import build_engine, replica_settings
from src.common.postgres.lagging_reads import (
    Answered,
    MayLag,
    PassedBy,
    PrimaryBecause,
    ReadAfter,
    ReadFrom,
    ReplicaSession,
    Source,
    check_replay,
    may_lag,
    read_once,
    why_passed_by,
)
from src.common.postgres.replica_circuit import circuit_of
from src.common.postgres.replica_lag import read_replay
from src.common.postgres.silent_servers import limit_silence, patience_of
from src.common.settings import Settings, get_settings

P = ParamSpec("P")
T = TypeVar("T")

READS = Counter(
    "flashslides_replica_reads",
    "Reads a replica was asked for, by who answered and, where the primary did, why",
    ["answered_by", "because"],
)

logger = structlog.get_logger(__name__)


class _State:
    lock = Lock()
    engine: Engine | None = None
    settings: Settings | None = None


def get_replica_engine() -> Engine:
    """The process's one sync engine for the replica, while the settings stay the same."""
    with _State.lock:
        settings = get_settings()
        is_known = _State.settings is settings or _State.settings == settings  # fields take long
        if _State.engine is None or not is_known:
            if _State.engine is not None:
                dispose(_State.engine)
            _State.engine = build_engine(replica_settings(settings), takes_standbys=True)
            _State.settings = settings
        return _State.engine


def _renew_lock() -> None:
    """In a forked child: another thread of the parent's may have held it."""
    _State.lock = Lock()


os.register_at_fork(after_in_child=_renew_lock)


def dispose_replicas() -> None:
    """Close the connections to the replica. The next use opens new ones."""
    with _State.lock:
        if _State.engine is not None:
            dispose(_State.engine)


class _ReplicaSessionMaker(sessionmaker[Session]):
    """A session maker that takes the process's engine for the replica."""

    def __reduce__(self) -> str:
        """By name, for another process: an engine stays in its own."""
        return "ReplicaSessionLocal"

    def __call__(self, **local_kw: Any) -> Session:
        return super().__call__(**{"bind": get_replica_engine()} | local_kw)


ReplicaSessionLocal = _ReplicaSessionMaker(class_=ReplicaSession)
"""Makes sessions for what reads everybody's books in many database transactions, and for no other:
`look_at_replica` comes first."""


@dataclass(frozen=True)
class Reader:
    """Whom to ask: the primary, or the replica where it has what the reader has seen."""

    source: Source = Source.PRIMARY
    after: ReadAfter | None = None

    def read(self, reading: MayLag[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Answered[T]:
        """What the reading finds, in a database transaction of its own.

        A replica's answer is of one snapshot.

        Raises:
            RetryableDatabaseError: A passing condition of the primary; or it took too long.
            Exception: What the reading raises.
        """
        work = work_of(reading, *args, **kwargs)
        passed_by: PassedBy | None = None
        if self.source is Source.REPLICA:
            try:
                return counted(self._ask_replica(work))
            except PassedBy as reason:
                passed_by = reason
        return counted(Answered(read_from_database(work), from_primary(passed_by)))

    def _ask_replica(self, work: Callable[[Session], T]) -> Answered[T]:
        settings = get_settings()
        with ExitStack() as opened:
            with reaching(settings):
                connection = opened.enter_context(get_replica_engine().connect())
                limit_silence(connection, settings.database_replica_timeout_seconds)
                replay = read_replay(connection)
            limit_silence(connection, patience_of(settings))
            try:
                told = check_replay(replay, settings.database_replica_lag_max_seconds)
            except PassedBy as reason:
                if reason.because is PrimaryBecause.NO_STANDBY:
                    connection.invalidate()  # promoted since: another host may be a standby
                raise
            with answering():
                return Answered(read_once(connection, self.after, work), told)


def look_at_replica() -> ReadFrom:
    """Who is to answer what takes many database transactions from now on, and as of when."""
    return Reader(Source.REPLICA).read(_nothing).read_from


@may_lag
def _nothing(_session: Session) -> None:
    """Whether the replica may be asked is looked at with every reading."""


def work_of(reading: MayLag[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Callable[[Session], T]:
    """The reading with its arguments.

    Raises:
        TypeError: it is not marked with `may_lag`.
    """
    if not isinstance(reading, MayLag):  # pyright: ignore[reportUnnecessaryIsInstance]  callers may be untyped
        raise TypeError(f"{reading!r} is no reading that may lag")
    return lambda session: reading(session, *args, **kwargs)


@contextmanager
def reaching(settings: Settings) -> Generator[None]:
    """Within the block the replica is asked how far behind it is, where it may be asked.

    Raises:
        PassedBy: there is none, or it does not answer.
    """
    if settings.replica_address is None:
        raise PassedBy(PrimaryBecause.NOT_CONFIGURED)
    circuit = circuit_of(settings.replica_address)
    if not circuit.may_ask():
        raise PassedBy(PrimaryBecause.AWAY)
    try:
        yield
    except PoolTimeoutError:
        raise PassedBy(PrimaryBecause.BUSY) from None
    except (PassedBy, SQLAlchemyError) as error:
        circuit.note_silence()
        reason = getattr(error, "reason", type(error).__name__)
        logger.warning("The replica does not answer", reason=reason)
        raise PassedBy(PrimaryBecause.AWAY) from error
    circuit.note_answer()


@contextmanager
def answering() -> Generator[None]:
    """Within the block the replica reads.

    Raises:
        PassedBy: it did not end that, or lacks something.
    """
    try:
        yield
    except (NotFound, SQLAlchemyError) as error:
        because = why_passed_by(error)
        if because is None:
            raise
        raise PassedBy(because) from error


def from_primary(passed_by: PassedBy | None) -> ReadFrom:
    """What the primary's answer says of itself, where a replica was asked for or none was."""
    if passed_by is None:
        return ReadFrom(source=Source.PRIMARY)
    return ReadFrom(
        source=Source.PRIMARY, because=passed_by.because, lag_seconds=passed_by.lag_seconds
    )


def counted(answered: Answered[T]) -> Answered[T]:
    """The same, once it is counted: where a replica was asked for."""
    told = answered.read_from
    if told.source is Source.REPLICA or told.because is not None:
        READS.labels(answered_by=str(told.source), because=str(told.because or "")).inc()
    return answered
