"""Hold before the work, capture what was used, release if it fails.

    async with reserve_async(AsyncSessionLocal, user_id, 100, key=f"render:{job_id}") as held:
        held.used = await render()

The one exception to "the caller owns the database transaction": work takes long, so this owns three
short ones, open, capture and release, and takes a session factory. A process that dies leaves the
hold to its expiry.

Work that failed may be tried again with its key: what was given back is held anew. Of all tries
with one key one is charged.
"""

import asyncio
import itertools
import uuid
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from src.common.credits import ledger, queries, requests
from src.common.exceptions import Conflict, Invalid
from src.common.models.credit_hold import HoldStatus

HOLD_SECONDS = 900


class Reservation:
    """Credits held for the block; set `used` to what it took, or leave it for all of it."""

    def __init__(
        self, user_id: uuid.UUID, amount: int, key: str, expires_in_seconds: int, actor: str
    ) -> None:
        self.user_id = user_id
        self.amount = amount
        self.key = key
        self.expires_in_seconds = expires_in_seconds
        self.actor = actor
        self.hold_seq = 0
        self._attempt_key = key
        self._used = amount

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

    def open(self, session: Session) -> None:
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
                return
            hold = queries.get_hold(session, self.user_id, opened.seq).hold
            # A late capture leaves an expired hold expired, and paid for.
            if hold.status is HoldStatus.OPEN or hold.captured > 0:
                return

    def settle(self, session: Session) -> None:
        """Capture what was used, also where the work outlasted the hold; the rest goes back.

        All tries of a key capture under one key, so that one of them is charged.
        """
        if self.used == 0:
            self.release(session)
            return
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

    def release(self, session: Session) -> None:
        """Give back what is still held."""
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
    reservation = Reservation(user_id, amount, key, expires_in_seconds, actor)
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
    reservation = Reservation(user_id, amount, key, expires_in_seconds, actor)

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
