"""The ledger for applications: one function an operation, inside the caller's database transaction.

    with SessionLocal.begin() as db:
        ledger.spend(db, user_id, 30, key=f"slides:{job_id}", actor="system:renderer")

Every function locks the user's row, decides, writes, and never commits: if the caller rolls back,
nothing happened. A repeated key gives the first result again, marked `replayed`. Async callers find
the same functions in `src.common.credits.async_ledger`.
"""

import datetime as dt
import uuid
from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy.orm import Session

from src.common.credits.commands import (
    Adjust,
    Capture,
    Command,
    Grant,
    OpenHold,
    Release,
    Renew,
    Result,
    Spend,
)
from src.common.credits.due import expire_due
from src.common.credits.operations import execute, execute_each
from src.common.credits.queries import balance, explain, history, preview
from src.common.credits.storage import lock_users
from src.common.models.credit_lot import LotSource

__all__ = [
    "adjust",
    "balance",
    "capture",
    "execute",
    "execute_each",
    "expire_due",
    "explain",
    "grant",
    "history",
    "lock_users",
    "open_hold",
    "preview",
    "release",
    "renew",
    "spend",
]

APPLICATION = "system:application"
"""Who acts where the caller does not say."""


def grant(
    session: Session,
    user_id: uuid.UUID,
    amount: int,
    *,
    key: str,
    source: LotSource = LotSource.PROMO,
    priority: int | None = None,
    expires_at: dt.datetime | None = None,
    reference: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    actor: str = APPLICATION,
) -> Result:
    """Give credits, as a lot of their own; they repay debts first.

    `amount` is in whole credits, positive. `priority` None means the source's default; the lower
    is burned first.

    Raises:
        NotFound: USER_NOT_FOUND.
        Invalid: VALIDATION_ERROR, BALANCE_LIMIT_EXCEEDED.
        Conflict: IDEMPOTENCY_KEY_REUSED.
    """
    return _one(
        session,
        Grant(
            user_id=user_id,
            key=key,
            actor=actor,
            reference=reference,
            metadata=metadata,
            amount=amount,
            source=source,
            priority=priority,
            expires_at=expires_at,
        ),
    )


def spend(
    session: Session,
    user_id: uuid.UUID,
    amount: int,
    *,
    key: str,
    reference: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    actor: str = APPLICATION,
) -> Result:
    """Use credits, lot by lot in burn order; all of `amount` or nothing.

    Raises:
        InsufficientCredits: INSUFFICIENT_CREDITS, with `required` and `available`.
        NotFound: USER_NOT_FOUND.
        Forbidden: USER_INACTIVE.
        Conflict: IDEMPOTENCY_KEY_REUSED.
    """
    command = Spend(
        user_id=user_id, key=key, actor=actor, reference=reference, metadata=metadata, amount=amount
    )
    return _one(session, command)


def adjust(
    session: Session,
    user_id: uuid.UUID,
    amount: int,
    *,
    key: str,
    reason: str,
    actor: str = APPLICATION,
) -> Result:
    """Correct a balance, up (+) or down (-, never below 0), and say why.

    Raises:
        InsufficientCredits: INSUFFICIENT_CREDITS.
        NotFound: USER_NOT_FOUND.
        Invalid: VALIDATION_ERROR, BALANCE_LIMIT_EXCEEDED.
        Conflict: IDEMPOTENCY_KEY_REUSED.
    """
    command = Adjust(user_id=user_id, key=key, actor=actor, amount=amount, reason=reason)
    return _one(session, command)


def open_hold(
    session: Session,
    user_id: uuid.UUID,
    amount: int,
    *,
    expires_in_seconds: int,
    key: str,
    reference: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    actor: str = APPLICATION,
) -> Result:
    """Set credits aside for work in progress; the result's `seq` names the hold.

    Raises:
        InsufficientCredits: INSUFFICIENT_CREDITS.
        NotFound: USER_NOT_FOUND.
        Forbidden: USER_INACTIVE.
        Conflict: TOO_MANY_HOLDS, IDEMPOTENCY_KEY_REUSED.
    """
    return _one(
        session,
        OpenHold(
            user_id=user_id,
            key=key,
            actor=actor,
            reference=reference,
            metadata=metadata,
            amount=amount,
            expires_in_seconds=expires_in_seconds,
        ),
    )


def capture(
    session: Session,
    user_id: uuid.UUID,
    hold_seq: int,
    amount: int,
    *,
    key: str,
    final: bool = True,
    if_expired: Literal["refuse", "retake"] = "refuse",
    actor: str = APPLICATION,
) -> Result:
    """Keep `amount` of a hold; a final capture returns the rest to the lots it came from.

    Raises:
        NotFound: USER_NOT_FOUND, HOLD_NOT_FOUND.
        Conflict: HOLD_CLOSED, HOLD_EXPIRED, IDEMPOTENCY_KEY_REUSED.
        Invalid: CAPTURE_EXCEEDS_HOLD.
        InsufficientCredits: INSUFFICIENT_CREDITS, retaking after expiry.
    """
    return _one(
        session,
        Capture(
            user_id=user_id,
            key=key,
            actor=actor,
            hold_seq=hold_seq,
            amount=amount,
            final=final,
            if_expired=if_expired,
        ),
    )


def release(
    session: Session, user_id: uuid.UUID, hold_seq: int, *, key: str, actor: str = APPLICATION
) -> Result:
    """Give up a hold: what was not captured goes back to its lots.

    Raises:
        NotFound: USER_NOT_FOUND, HOLD_NOT_FOUND.
        Conflict: HOLD_CLOSED, HOLD_EXPIRED, IDEMPOTENCY_KEY_REUSED.
    """
    return _one(session, Release(user_id=user_id, key=key, actor=actor, hold_seq=hold_seq))


def renew(
    session: Session,
    user_id: uuid.UUID,
    hold_seq: int,
    *,
    expires_in_seconds: int,
    key: str,
    actor: str = APPLICATION,
) -> Result:
    """Let an open hold expire `expires_in_seconds` from now.

    Raises:
        NotFound: USER_NOT_FOUND, HOLD_NOT_FOUND.
        Conflict: HOLD_CLOSED, HOLD_EXPIRED, IDEMPOTENCY_KEY_REUSED.
    """
    return _one(
        session,
        Renew(
            user_id=user_id,
            key=key,
            actor=actor,
            hold_seq=hold_seq,
            expires_in_seconds=expires_in_seconds,
        ),
    )


def _one(session: Session, command: Command) -> Result:
    return execute(session, [command])[0]
