"""One reservation: its state, and its steps open, settle and release.

Each step is inside a database transaction of the caller's; `reservation.py` owns those.
"""

import itertools
import uuid
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.credits import ledger, queries
from src.common.credits.domain.arguments import check_text
from src.common.credits.domain.commands import KEY_LENGTH_MAX
from src.common.exceptions import Conflict
from src.common.models.credit_entry import CreditEntry
from src.common.models.credit_hold import HoldStatus


class ReservationState(StrEnum):
    """What has become of the credits."""

    NEW = "new"
    """Nothing is held yet, or holding it was refused."""
    OPEN = "open"
    """They are held. Where that is so after the block, they return when the hold expires."""
    CAPTURED = "captured"
    """The work is charged, by this try or by another with its key."""
    RELEASED = "released"
    """They were given back; nothing is held or charged."""
    UNKNOWN = "unknown"
    """A database transaction is under way, or was lost: asking again with the key tells."""


class Reservation:
    """Credits held for a block of work. Set `used` to what the work took, or all is captured."""

    def __init__(
        self,
        user_id: uuid.UUID,
        amount: int,
        *,
        key: str,
        expires_in_seconds: int,
        actor: str,
        reference: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        check_text("key", key, KEY_LENGTH_MAX)  # else its looks would be the key
        self.user_id = user_id
        self.amount = amount
        self.key = key
        self.expires_in_seconds = expires_in_seconds
        self.actor = actor
        self.reference = reference
        self.metadata = metadata
        self.capture_key = f"{key}:capture"
        """The key of the charge: all tries of one piece of work have the same."""
        self.hold_seq = 0
        self.replayed = False
        """Whether the work was charged before, by another try with the key. Then it must not be
        done again, and nothing more is charged. `used` is what was charged then."""
        self._attempt_key = key
        self._used = amount
        self.known_state = ReservationState.NEW
        self.is_under_way = False
        """Whether a database transaction that changes the state is under way, or was lost."""

    @property
    def used(self) -> int:
        """Whole credits to capture at the end, 0 to `amount`.

        Raises:
            ValueError: it is set to anything else; in the block, so that the hold is given back.
        """
        return self._used

    @used.setter
    def used(self, credits_used: int) -> None:
        if type(credits_used) is not int or not 0 <= credits_used <= self.amount:
            raise ValueError(f"used: must be an integer, 0 to {self.amount}")
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
        """Hold the amount; a repeated key finds its hold again, unless that was given back.

        Or what was captured of it: the work with this key was done, and is paid for.
        """
        for attempt in itertools.count(1):
            self._attempt_key = f"{self.key}:{attempt}"
            opened = ledger.open_hold(
                session,
                self.user_id,
                self.amount,
                expires_in_seconds=self.expires_in_seconds,
                key=f"{self._attempt_key}:hold",
                reference=self.reference,
                metadata=self.metadata,
                actor=self.actor,
            )
            self.hold_seq = opened.seq
            if not opened.replayed:
                break
            hold = queries.get_hold(session, self.user_id, opened.seq).hold
            if hold.status is HoldStatus.OPEN:
                break
            # A late capture leaves an expired hold expired, and paid for.
            if hold.captured > 0:
                self.replayed, self._used = True, hold.captured
                return ReservationState.CAPTURED
        return ReservationState.OPEN

    def settle(self, session: Session) -> ReservationState:
        """Capture what was used, also where the work outlasted the hold; the rest goes back.

        All tries of a key capture under one key, so that one of them is charged.
        """
        if self.replayed:
            return ReservationState.CAPTURED
        if self.used == 0:
            return self.release(session)
        try:
            ledger.capture(
                session,
                self.user_id,
                self.hold_seq,
                self.used,
                key=self.capture_key,
                if_expired="retake",
                reference=self.reference,
                actor=self.actor,
            )
        except Conflict as refusal:
            if refusal.error_type != "IDEMPOTENCY_KEY_REUSED":
                raise
            self.release(session)
            self.replayed = True
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
