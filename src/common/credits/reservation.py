"""`reserve`: hold before the work, capture what was used, release if it fails.

    async with reserve_async(AsyncSessionLocal, user_id, 100, key=f"render:{job_id}") as held:
        held.used = await render()

Work may take long, and no database transaction should be open meanwhile. So this takes a session
factory and makes short database transactions of its own: one that opens the hold, one that captures
or releases it. No cancellation and no interrupt cuts them short. `held.state` says afterwards what
became of the credits. A process that dies leaves the hold to its expiry.

Work that failed may be tried again with its key: what was given back is held anew. However many
tries with one key succeed, one is charged. Where an earlier try was charged, nothing is held and
`held.replayed` is set: the block must not do the work again. Where the work outlasts its hold, the
capture spends from the lots of then.
"""

import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from tenacity import AsyncRetrying, Retrying

from src.common.cancellation import run_to_end
from src.common.credits import requests
from src.common.credits.reservation_steps import Reservation, ReservationState
from src.common.exceptions import ExceptionWithErrorType
from src.common.postgres.errors import CONNECTION_LOST, RetryableDatabaseError
from src.common.postgres.retries import RETRY_POLICY

__all__ = [
    "Reservation",
    "ReservationState",
    "do_to_end",
    "give_back_to_end",
    "reserve",
    "reserve_async",
]

HOLD_SECONDS = 900

logger = structlog.get_logger(__name__)

Step = Callable[[Reservation, Session], ReservationState]
"""One of a reservation's steps."""
Work = Callable[[Session], list[ReservationState]]
RunAsync = Callable[[Work], Awaitable[list[ReservationState]]]
"""Runs work in a database transaction of its own, and commits it."""

DATABASE_ERRORS = (ExceptionWithErrorType, SQLAlchemyError)
"""What a database transaction may fail with, a pool without a free connection included."""


@contextmanager
def reserve(
    session_factory: Callable[[], Session],
    user_id: uuid.UUID,
    amount: int,
    *,
    key: str,
    reference: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    expires_in_seconds: int = HOLD_SECONDS,
    actor: str = requests.APPLICATION,
) -> Generator[Reservation]:
    """Hold credits for the block, and afterwards capture `reservation.used` of them.

    An exception in the block, an interrupt or a refused capture releases the hold, and is raised.

    Args:
        session_factory: Makes sessions, as `SessionLocal` does.
        user_id: Who pays.
        amount: Whole credits, 1 or more: what the work costs at most.
        key: Names the work. The keys of the ledger's operations begin with it.
        reference: What it is for, in the history. Every try with the same key needs the same.
        metadata: JSON kept beside the entry.
        expires_in_seconds: How long the work may take, 1 to 2,592,000 (30 days).
        actor: Who asks.

    Yields:
        The reservation. Set its `used` to what the work took; unset, all of `amount` is captured.

    Raises:
        ExceptionWithErrorType: Before the block what `open_hold` raises, such as
            INSUFFICIENT_CREDITS. After it what `capture` raises: HOLD_CLOSED, somebody released the
            hold; INSUFFICIENT_CREDITS, the work outlasted its hold and too little is left.
        RetryableDatabaseError: A passing condition of the database, after several tries.
    """
    reservation = Reservation(
        user_id,
        amount,
        key=key,
        reference=reference,
        metadata=metadata,
        expires_in_seconds=expires_in_seconds,
        actor=actor,
    )

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
            except DATABASE_ERRORS as error:
                _log_not_given_back(error)
        raise


@asynccontextmanager
async def reserve_async(
    session_factory: Callable[[], AsyncSession],
    user_id: uuid.UUID,
    amount: int,
    *,
    key: str,
    reference: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    expires_in_seconds: int = HOLD_SECONDS,
    actor: str = requests.APPLICATION,
) -> AsyncGenerator[Reservation]:
    """As `reserve`, for async code; `session_factory` makes them as `AsyncSessionLocal` does.

    A block that is cancelled gives its credits back before it ends. A cancellation while the work
    is being charged waits for the database transaction under way, as long as the database's
    time-outs allow. Then the work is charged: `reservation.state` says so.

    Raises:
        ExceptionWithErrorType: As `reserve`.
    """
    reservation = Reservation(
        user_id,
        amount,
        key=key,
        reference=reference,
        metadata=metadata,
        expires_in_seconds=expires_in_seconds,
        actor=actor,
    )

    async def run(work: Work) -> list[ReservationState]:
        async def attempt() -> list[ReservationState]:
            async with session_factory() as session, session.begin():
                return await session.run_sync(work)

        return await AsyncRetrying(**RETRY_POLICY)(attempt)

    try:
        await _step_to_end(run, reservation, Reservation.open)
        yield reservation
        await _step_to_end(run, reservation, Reservation.settle)
    except BaseException:
        await give_back_to_end(run, [reservation])
        raise


async def do_to_end(run: RunAsync, reservations: Sequence[Reservation], work: Work) -> None:
    """Do `work` on the reservations, all of it or nothing; it gives what becomes of each.

    Where the caller is cancelled meanwhile, or it raises, credits may have to go back.

    Raises:
        InsufficientCredits: INSUFFICIENT_CREDITS, nothing is held.
        Conflict: HOLD_CLOSED.
        RetryableDatabaseError: a passing condition; `state` says whether they may be captured.
    """

    async def do() -> None:
        with _noting(reservations) as states:
            states.extend(await run(work))

    await run_to_end(do)


async def give_back_to_end(run: RunAsync, reservations: Sequence[Reservation]) -> None:
    """Give back what is held of each; what cannot be given back now is by its expiry."""
    for each in reservations:
        if each.is_unsettled:
            try:
                await _step_to_end(run, each, Reservation.release)
            except DATABASE_ERRORS as error:
                _log_not_given_back(error)


async def _step_to_end(run: RunAsync, reservation: Reservation, step: Step) -> None:
    await do_to_end(run, [reservation], lambda session: [step(reservation, session)])


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
