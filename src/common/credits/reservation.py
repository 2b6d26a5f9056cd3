"""Hold before the work, capture what was used, release if it fails.

    async with reserve_async(AsyncSessionLocal, user_id, 100, key=f"render:{job_id}") as held:
        held.used = await render()

The one exception to "the caller owns the database transaction": work takes long, so this owns three
short ones, open, capture and release, and takes a session factory. A process that dies leaves the
hold to its expiry.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from src.common.credits import ledger, requests
from src.common.exceptions import Conflict

HOLD_SECONDS = 900


@dataclass
class Reservation:
    """Credits held for the block; set `used` to what it took, or leave it for all of it."""

    user_id: uuid.UUID
    amount: int
    key: str
    expires_in_seconds: int
    actor: str
    used: int
    """Whole credits to capture at the end, 0 to `amount`."""
    hold_seq: int = 0

    def open(self, session: Session) -> None:
        """Hold the amount; a repeated key finds the same hold again."""
        hold = ledger.open_hold(
            session,
            self.user_id,
            self.amount,
            expires_in_seconds=self.expires_in_seconds,
            key=f"{self.key}:hold",
            actor=self.actor,
        )
        self.hold_seq = hold.seq

    def settle(self, session: Session) -> None:
        """Capture what was used, also where the work outlasted the hold; the rest goes back."""
        if self.used == 0:
            self.release(session)
            return
        ledger.capture(
            session,
            self.user_id,
            self.hold_seq,
            self.used,
            key=f"{self.key}:capture",
            if_expired="retake",
            actor=self.actor,
        )

    def release(self, session: Session) -> None:
        """Give everything back, unless the hold's expiry has."""
        try:
            ledger.release(
                session, self.user_id, self.hold_seq, key=f"{self.key}:release", actor=self.actor
            )
        except Conflict as refusal:
            if refusal.error_type != "HOLD_EXPIRED":
                raise


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

    An exception in the block releases the hold and goes on its way. The keys of the three
    operations begin with `key`.

    Raises:
        InsufficientCredits: before the block, INSUFFICIENT_CREDITS.
    """
    reservation = Reservation(user_id, amount, key, expires_in_seconds, actor, used=amount)
    with session_factory() as session, session.begin():
        reservation.open(session)
    try:
        yield reservation
    except BaseException:
        with session_factory() as session, session.begin():
            reservation.release(session)
        raise
    with session_factory() as session, session.begin():
        reservation.settle(session)


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
    """As `reserve`, for async code; a cancelled block releases its hold before it ends.

    Raises:
        InsufficientCredits: before the block, INSUFFICIENT_CREDITS.
    """
    reservation = Reservation(user_id, amount, key, expires_in_seconds, actor, used=amount)

    async def run(step: Callable[[Session], None]) -> None:
        async with session_factory() as session, session.begin():
            await session.run_sync(step)

    await run(reservation.open)
    try:
        yield reservation
    except BaseException:
        # Shielded: the cancellation that got us here must not stop the release half-way.
        await asyncio.shield(asyncio.ensure_future(run(reservation.release)))
        raise
    await run(reservation.settle)
