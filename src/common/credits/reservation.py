"""Hold before the work, capture what was used, release if it fails.

    async with reserve_async(AsyncSessionLocal, user_id, 100, key=f"render:{job_id}") as held:
        held.used = await render()

The one exception to "the caller owns the database transaction": work takes long, so this owns three
short ones, open, capture and release, and takes a session factory. None of them is cut short by a
cancellation or an interrupt, and `held.state` says afterwards what became of the credits. A process
that dies leaves the hold to its expiry.

Work that failed may be tried again with its key: what was given back is held anew. Of all tries
with one key one is charged.
"""

import itertools
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from enum import StrEnum

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from tenacity import AsyncRetrying, Retrying

from src.common.cancellation import run_to_end
from src.common.credits import ledger, queries, requests
from src.common.credits.arguments import check_text
from src.common.credits.commands import KEY_LENGTH_MAX
from src.common.database_errors import CONNECTION_LOST
from src.common.exceptions import (
    Conflict,
    ExceptionWithErrorType,
    Invalid,
    RetryableDatabaseError,
)
from src.common.models.credit_entry import CreditEntry
from src.common.models.credit_hold import HoldStatus
from src.common.retries import RETRY_POLICY

HOLD_SECONDS = 900

logger = structlog.get_logger(__name__)


class ReservationState(StrEnum):
    """What has become of the credits."""

    NEW = "new"
    """Nothing is held yet, or holding it was refused."""
    OPEN = "open"
    """They are held; where that is so after the block, until the hold expires."""
    CAPTURED = "captured"
    """The work is charged, by this try or by another with its key."""
    RELEASED = "released"
    """They were given back; nothing is held or charged."""
    UNKNOWN = "unknown"
    """A database transaction is under way, or was lost: asking again with the key tells."""


class Reservation:
    """Credits held for the block; set `used` to what it took, or leave it for all of it."""

    def __init__(
        self, user_id: uuid.UUID, amount: int, key: str, expires_in_seconds: int, actor: str
    ) -> None:
        check_text("key", key, KEY_LENGTH_MAX)  # else its looks would be the key
        self.user_id = user_id
        self.amount = amount
        self.key = key
        self.expires_in_seconds = expires_in_seconds
        self.actor = actor
        self.hold_seq = 0
        self._attempt_key = key
        self._used = amount
        self.known_state = ReservationState.NEW
        self.is_under_way = False
        """Whether a database transaction is that may change the state, or one was lost."""

    @property
    def used(self) -> int:
        """Whole credits to capture at the end, 0 to `amount`.

        Raises:
            Invalid: VALIDATION_ERROR, when it is set to anything else; in the block, so that the
                hold is given back.
        """
        return self._used

    @used.setter
    def used(self, credits_used: int) -> None:
        if type(credits_used) is not int or not 0 <= credits_used <= self.amount:
            raise Invalid(
                f"used: must be an integer, 0 to {self.amount}", "VALIDATION_ERROR", field="used"
            )
        self._used = credits_used

    @property
    def state(self) -> ReservationState:
        """What has become of the credits, also after the block, however that ended."""
        return ReservationState.UNKNOWN if self.is_under_way else self.known_state

    @property
    def is_unsettled(self) -> bool:
        """Whether credits are held, or may be."""
        return self.state in {ReservationState.OPEN, ReservationState.UNKNOWN}

    @property
    def is_paid(self) -> bool:
        """Whether what was used is charged, or nothing was used."""
        is_free = self.used == 0 and self.state is ReservationState.RELEASED
        return is_free or self.state is ReservationState.CAPTURED

    def open(self, session: Session) -> ReservationState:
        """Hold the amount; a repeated key finds its hold again, unless that was given back."""
        for attempt in itertools.count(1):
            self._attempt_key = f"{self.key}:{attempt}"
            opened = ledger.open_hold(
                session,
                self.user_id,
                self.amount,
                expires_in_seconds=self.expires_in_seconds,
                key=f"{self._attempt_key}:hold",
                actor=self.actor,
            )
            self.hold_seq = opened.seq
            if not opened.replayed:
                break
            hold = queries.get_hold(session, self.user_id, opened.seq).hold
            # A late capture leaves an expired hold expired, and paid for.
            if hold.status is HoldStatus.OPEN or hold.captured > 0:
                break
        return ReservationState.OPEN

    def settle(self, session: Session) -> ReservationState:
        """Capture what was used, also where the work outlasted the hold; the rest goes back.

        All tries of a key capture under one key, so that one of them is charged.
        """
        if self.used == 0:
            return self.release(session)
        try:
            ledger.capture(
                session,
                self.user_id,
                self.hold_seq,
                self.used,
                key=f"{self.key}:capture",
                if_expired="retake",
                actor=self.actor,
            )
        except Conflict as refusal:
            if refusal.error_type != "IDEMPOTENCY_KEY_REUSED":
                raise
            self.release(session)
        return ReservationState.CAPTURED

    def release(self, session: Session) -> ReservationState:
        """Give back what is still held."""
        if self.known_state is ReservationState.NEW and not self._find_hold(session):
            return ReservationState.RELEASED
        try:
            ledger.release(
                session,
                self.user_id,
                self.hold_seq,
                key=f"{self._attempt_key}:release",
                actor=self.actor,
            )
        except Conflict as refusal:
            if refusal.error_type not in {"HOLD_EXPIRED", "HOLD_CLOSED"}:
                raise
            if queries.get_hold(session, self.user_id, self.hold_seq).hold.captured > 0:
                return ReservationState.CAPTURED
        return ReservationState.RELEASED

    def _find_hold(self, session: Session) -> bool:
        """Whether opening was committed, which nobody waited for; a COMMIT under way has locked."""
        ledger.lock_users(session, [self.user_id])
        seq = session.scalar(
            select(CreditEntry.seq).where(
                CreditEntry.user_id == self.user_id,
                CreditEntry.idempotency_key == f"{self._attempt_key}:hold",
            )
        )
        self.hold_seq = seq or 0
        return seq is not None


Step = Callable[[Reservation, Session], ReservationState]
Work = Callable[[Session], list[ReservationState]]
RunAsync = Callable[[Work], Awaitable[list[ReservationState]]]
"""Runs work in a database transaction of its own, and commits it."""

_DATABASE_ERRORS = (ExceptionWithErrorType, SQLAlchemyError)


@contextmanager
def reserve(
    session_factory: Callable[[], Session],
    user_id: uuid.UUID,
    amount: int,
    *,
    key: str,
    expires_in_seconds: int = HOLD_SECONDS,
    actor: str = requests.APPLICATION,
) -> Generator[Reservation]:
    """Hold `amount` credits for the block, then capture `reservation.used` of them.

    An exception in the block, or an interrupt such as Ctrl-C, releases the hold and goes on its
    way. So does a capture that fails. `reservation.state` says which it was. The keys of the three
    operations begin with `key`.

    Raises:
        InsufficientCredits: before the block, INSUFFICIENT_CREDITS.
    """
    reservation = Reservation(user_id, amount, key, expires_in_seconds, actor)

    def do(step: Step) -> None:
        def attempt() -> ReservationState:
            with session_factory() as session, session.begin():
                return step(reservation, session)

        with _noting([reservation]) as states:
            states.append(Retrying(**RETRY_POLICY)(attempt))

    try:
        do(Reservation.open)
        yield reservation
        _insist(do, Reservation.settle)
    except BaseException:
        if reservation.is_unsettled:
            try:
                _insist(do, Reservation.release)
            except _DATABASE_ERRORS as error:
                _log_not_given_back(error)
        raise


@asynccontextmanager
async def reserve_async(
    session_factory: Callable[[], AsyncSession],
    user_id: uuid.UUID,
    amount: int,
    *,
    key: str,
    expires_in_seconds: int = HOLD_SECONDS,
    actor: str = requests.APPLICATION,
) -> AsyncGenerator[Reservation]:
    """As `reserve`, for async code.

    A cancelled block gives its credits back before it ends. Who is cancelled later, while the work
    is being charged, finds it charged: `reservation.state` tells. The cancellation waits for the
    database transaction under way, as long as the database's time-outs allow.

    Raises:
        InsufficientCredits: before the block, INSUFFICIENT_CREDITS.
    """
    reservation = Reservation(user_id, amount, key, expires_in_seconds, actor)

    async def run(work: Work) -> list[ReservationState]:
        async def attempt() -> list[ReservationState]:
            async with session_factory() as session, session.begin():
                return await session.run_sync(work)

        return await AsyncRetrying(**RETRY_POLICY)(attempt)

    try:
        await open_to_end(run, reservation)
        yield reservation
        await settle_to_end(run, [reservation])
    except BaseException:
        await give_back_to_end(run, [reservation])
        raise


async def open_to_end(run: RunAsync, reservation: Reservation) -> None:
    """Hold the credits; where the caller is cancelled meanwhile, they are to be given back.

    Raises:
        InsufficientCredits: INSUFFICIENT_CREDITS.
    """
    await _to_end(run, [reservation], Reservation.open)


async def settle_to_end(run: RunAsync, reservations: Sequence[Reservation]) -> None:
    """Capture what was used of each, of all or of none; where it raises, they may have to go back.

    Raises:
        Conflict: HOLD_CLOSED.
        RetryableDatabaseError: a passing condition; `state` says whether they may be captured.
    """
    await _to_end(run, reservations, Reservation.settle)


async def give_back_to_end(run: RunAsync, reservations: Sequence[Reservation]) -> None:
    """Give back what is held of each; what cannot be given back now is by its expiry."""
    for each in reservations:
        if each.is_unsettled:
            try:
                await _to_end(run, [each], Reservation.release)
            except _DATABASE_ERRORS as error:
                _log_not_given_back(error)


async def _to_end(run: RunAsync, reservations: Sequence[Reservation], step: Step) -> None:
    def step_of_each(session: Session) -> list[ReservationState]:
        return [step(each, session) for each in reservations]

    async def work() -> None:
        with _noting(reservations) as states:
            states.extend(await run(step_of_each))

    await run_to_end(work)


def _insist(do: Callable[[Step], None], step: Step) -> None:
    """Do a step; once more where it is interrupted, since only its key tells how far it came."""
    try:
        do(step)
    except Exception:
        raise
    except BaseException:
        do(step)
        raise


@contextmanager
def _noting(reservations: Sequence[Reservation]) -> Generator[list[ReservationState]]:
    """Note the states that a database transaction leaves, once it is committed.

    Whatever interrupts it, and a lost connection, leave it open whether it was.
    """
    states: list[ReservationState] = []
    for each in reservations:
        each.is_under_way = True
    try:
        yield states
    except Exception as error:
        for each in reservations:
            each.is_under_way = _may_be_committed(error)
        raise
    for each, state in zip(reservations, states, strict=True):
        each.known_state, each.is_under_way = state, False


def _may_be_committed(error: Exception) -> bool:
    return isinstance(error, RetryableDatabaseError) and (
        error.connection_invalidated or error.reason == CONNECTION_LOST
    )


def _log_not_given_back(error: Exception) -> None:
    logger.warning(
        "Could not give credits back; what is held goes back when it expires",
        error_type=getattr(error, "error_type", type(error).__name__),
        reason=getattr(error, "message", ""),
    )
