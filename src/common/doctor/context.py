"""What the checks look at: settings, one database connection, Stripe's answers; each asked once.

Whatever is out of reach is an error to whoever asks for it, the same one each time, so that no
check waits for what an earlier one waited for in vain.
"""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Engine, TextClause, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from src.common.database import SessionLocal
from src.common.database_settings import Sharding
from src.common.exceptions import ExceptionWithErrorType
from src.common.postgres.conditions import explain_database_error
from src.common.postgres.engines import build_engine, replica_settings
from src.common.postgres.errors import NOT_REACHABLE, concerns_other_rows
from src.common.postgres.group_readings import seeing_group
from src.common.postgres.lagging_reads import (
    PassedBy,
    PrimaryBecause,
    ReadFrom,
    ReplicaSession,
    Source,
    check_replay,
)
from src.common.postgres.migrations import current_revisions, is_behind
from src.common.postgres.replica_lag import Replay, read_replay
from src.common.postgres.sides import ON_BOTH_SIDES, USERS_TABLES, Side, side_here
from src.common.replicas import from_primary
from src.common.settings import Settings, get_settings
from src.common.sharding.groups import ready_groups

if TYPE_CHECKING:
    from src.common.doctor.checks import Check
    from src.common.doctor.stripe_answers import StripeAnswers

STATEMENT_TIMEOUT_MS = 2_000
LOCK_TIMEOUT_MS = 200
CONNECT_TIMEOUT_SECONDS = 5
STRIPE_TIMEOUT_SECONDS = 5.0

T = TypeVar("T")


def _limit() -> TextClause:
    """How a check's database transaction is limited."""
    looking = {
        "transaction_read_only": "on",
        "statement_timeout": STATEMENT_TIMEOUT_MS,
        "lock_timeout": LOCK_TIMEOUT_MS,
        # No table is read whole: it may be large. That such a plan looks dear starts no compiler.
        "enable_seqscan": "off",
        "jit": "off",
    }
    settings = (f"set_config('{name}', '{value}', true)" for name, value in looking.items())
    return text(f"SELECT {', '.join(settings)}")


def _bounded(settings: Settings) -> Settings:
    """As these settings, but for one connection that gives up soon."""
    patience = min(settings.database_connect_timeout_seconds, CONNECT_TIMEOUT_SECONDS)
    return settings.model_copy(
        update={
            "database_connect_timeout_seconds": patience,
            "database_statement_timeout_ms": STATEMENT_TIMEOUT_MS,
            "database_lock_timeout_ms": LOCK_TIMEOUT_MS,
            "database_pool_size": 1,
            "database_max_overflow": 0,
        }
    )


class Context:
    """One examination's view of the system. Made for one thread; `close` ends the connection."""

    def __init__(self, api_url: str | None = None, *, from_replica: bool = False) -> None:
        self.api_url = api_url
        """Where an API process answers, whose own figures are asked for; None asks nobody."""
        self.is_reachable = True
        """Whether anybody answered where the database should be, once `session` was asked for."""
        self._session: Session | None = None
        self._engines: list[Engine] = []
        self._from_replica = from_replica
        self._at_replica = False
        self._group: str | None = None
        self._known: dict[str, Any] = {}
        self._failures: dict[str, ExceptionWithErrorType] = {}

    def close(self) -> None:
        """Give the connection back."""
        if self._session is not None:
            self._session.close()
        for engine in self._engines:
            engine.dispose()

    @property
    def settings(self) -> Settings:
        """The settings of this process.

        Raises:
            SettingsError: they are incomplete or unsafe.
        """
        return self._once("settings", get_settings)

    @property
    def session(self) -> Session:
        """A session on the settings' database, connected.

        Raises:
            DatabaseBusy, SettingsError: it is out of reach, or refuses us.
        """
        return self._once("session", self._connect)

    @cached_property
    def revisions(self) -> tuple[str, ...]:
        """The revisions the database says it is at; empty before the first migration."""
        with self.looking():
            return current_revisions(self.session.connection())

    @cached_property
    def is_divided(self) -> bool:
        """Whether groups of users are to have schemas of their own; there may be none yet."""
        if self.settings.sharding is Sharding.NONE or is_behind(next(iter(self.revisions), None)):
            return False
        with self.looking() as session:
            return side_here(session.connection()) is Side.EVERYBODY

    @cached_property
    def groups(self) -> list[str]:
        """The groups of users that have schemas; empty where none has."""
        if not self.is_divided:
            return []
        with self.looking() as session:
            return ready_groups(session.connection())

    @property
    def sees_users(self) -> bool:
        """Whether `looking` sees tables of users now."""
        return self._group is not None or not self.is_divided

    @property
    def sees_everybodys(self) -> bool:
        """Whether `looking` sees first what is about everybody now, and not a group's tables."""
        return self._group is None

    def has_table(self, name: str) -> bool:
        """Whether the schema that `looking` sees first now is to have this table."""
        is_of_users = name in USERS_TABLES and self.sees_users
        is_everybodys = name not in USERS_TABLES - ON_BOTH_SIDES and self.sees_everybodys
        return is_of_users or is_everybodys

    @contextmanager
    def in_group(self, group: str | None) -> Generator[None]:
        """Within the block, have `looking` look at this group of users."""
        self._group = group
        yield
        self._group = None

    @property
    def stripe(self) -> "StripeAnswers":
        """What Stripe answers about itself and our account there.

        Raises:
            StripeGatewayError: it does not, or refuses us.
        """
        return self._once("stripe", self._ask_stripe)

    @contextmanager
    def looking(self) -> Generator[Session]:
        """A database transaction that changes nothing, waits for nobody and soon gives up.

        Raises:
            DatabaseBusy, SettingsError: as `session`; so from now on where the database is lost.
        """
        if self._at_replica:
            with self.looking_at_replica() as session:
                yield session
            return
        session = self.session
        try:
            session.execute(_limit())
            with self._seeing_group(session):
                yield session
        except DBAPIError as error:
            self._note_loss(error)
            raise
        finally:
            session.rollback()

    @contextmanager
    def looking_at_replica(self) -> Generator[Session]:
        """The same at the replica.

        Raises:
            DatabaseBusy, SettingsError: it does not answer, or refuses us.
        """
        with self._reaching_replica() as engine, ReplicaSession(bind=engine) as session:
            session.execute(_limit())
            with self._seeing_group(session):
                yield session

    def read_replay(self) -> Replay:
        """What the replica says about itself.

        Raises:
            DatabaseBusy, SettingsError: as `looking_at_replica`.
        """
        with self._reaching_replica() as engine, engine.connect() as connection:
            return read_replay(connection)

    @cached_property
    def read_from(self) -> ReadFrom:
        """Who answers the checks that may lag."""
        if not self._from_replica:
            return ReadFrom(source=Source.PRIMARY)
        try:
            return check_replay(self.read_replay(), self.settings.database_replica_lag_max_seconds)
        except PassedBy as reason:
            return from_primary(reason)
        except ExceptionWithErrorType:
            return from_primary(PassedBy(PrimaryBecause.AWAY))

    @contextmanager
    def serving(self, check: "Check") -> Generator[None]:
        """Within the block, have `looking` look where this check may."""
        self._at_replica = check.may_lag and self.read_from.source is Source.REPLICA
        yield
        self._at_replica = False

    def _seeing_group(self, session: Session) -> AbstractContextManager[None]:
        if self._group is None:
            return nullcontext()
        return seeing_group(session.connection(), self._group)

    @contextmanager
    def _reaching_replica(self) -> Generator[Engine]:
        settings = _bounded(replica_settings(self.settings))
        try:
            yield self._once("replica", lambda: self._open(settings))
        except DBAPIError as error:
            raise explain_database_error(error, settings, lambda: None) or error from None

    def _open(self, settings: Settings) -> Engine:
        engine = build_engine(settings, takes_standbys=True)
        self._engines.append(engine)
        return engine

    def _note_loss(self, error: DBAPIError) -> None:
        explained = explain_database_error(error, self.settings, lambda: None)
        if explained is not None and concerns_other_rows(error):
            self._failures["session"] = explained

    def _connect(self) -> Session:
        # An engine of its own, so that no look waits longer where the service may: its time-outs
        # may be 0, and a server that falls silent ends no statement by itself.
        engine = build_engine(_bounded(self.settings))
        self._engines.append(engine)
        is_bound = SessionLocal.kw.get("bind") is not None
        self._session = session = SessionLocal() if is_bound else SessionLocal(bind=engine)
        try:
            session.connection()
        except DBAPIError as error:
            self.is_reachable = getattr(error, "reason", None) != NOT_REACHABLE
            explained = explain_database_error(error, self.settings, lambda: None)
            if explained is None:
                raise
            raise explained from None
        finally:
            session.rollback()
        return session

    def _ask_stripe(self) -> "StripeAnswers":
        from src.common.doctor.stripe_answers import ask_stripe  # Stripe's library takes its time

        patience = min(self.settings.stripe_timeout_seconds, STRIPE_TIMEOUT_SECONDS)
        return ask_stripe(self.settings.model_copy(update={"stripe_timeout_seconds": patience}))

    def _once(self, name: str, ask: Callable[[], T]) -> T:
        if name in self._failures:
            raise self._failures[name]
        if name not in self._known:
            try:
                self._known[name] = ask()
            except ExceptionWithErrorType as error:
                self._failures[name] = error
                raise
        found: T = self._known[name]
        return found
