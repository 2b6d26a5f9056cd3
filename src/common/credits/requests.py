"""How callers word each command: one function an operation, for sessions and the engine alike.

`ledger.py`, `async_ledger.py` and `engine.py` offer them under the same names and with the same
parameters; what each can raise is said here. An argument of a wrong type or value, a key that
begins with `~` and an actor that is the ledger itself are a VALIDATION_ERROR that names it.
"""

import datetime as dt
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast

from src.common.credits.domain.arguments import invalid
from src.common.credits.domain.commands import (
    Adjust,
    Capture,
    Command,
    Grant,
    OpenHold,
    Release,
    Renew,
    Spend,
)
from src.common.exceptions import Invalid
from src.common.models.credit_lot import LotSource

APPLICATION = "system:application"
"""Who acts where the caller does not say."""
_COMMANDS = frozenset({Grant, Spend, Adjust, OpenHold, Capture, Release, Renew})


def of_caller(command: object, name: str = "command") -> Command:
    """The command, if it is one that callers may give.

    Raises:
        Invalid: VALIDATION_ERROR, it is something else, or one the ledger gives itself.
    """
    if type(command) not in _COMMANDS:
        raise invalid(name, f"a {type(command).__name__} is no command that callers give")
    return cast("Command", command)


def of_callers(commands: object) -> list[Command]:
    """The commands, if callers may give all of them.

    Raises:
        Invalid: VALIDATION_ERROR.
    """
    try:
        given = list(cast("Iterable[object]", commands))
    except TypeError:
        raise invalid("commands", f"must be several, not a {type(commands).__name__}") from None
    return [of_caller(each, "commands") for each in given]


def check_manual_limit(amount: int, limit: int) -> None:
    """Refuse to give more than the operator has allowed at once (`CREDITS_MANUAL_LIMIT`).

    Raises:
        Invalid: VALIDATION_ERROR, with the `limit`.
    """
    if amount > limit:
        raise Invalid(
            f"amount: must be at most {limit} (CREDITS_MANUAL_LIMIT)",
            "VALIDATION_ERROR",
            field="amount",
            limit=limit,
        )


def grant(
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
) -> Grant:
    """Give credits, as a lot of their own; they repay debts first.

    `amount` is in whole credits, positive. `priority` None means the source's default; the lower
    is burned first. `source` is promo, subscription or adjustment: what was paid for is credited
    by its payment.

    Raises:
        NotFound: USER_NOT_FOUND.
        Invalid: VALIDATION_ERROR, BALANCE_LIMIT_EXCEEDED.
        Conflict: IDEMPOTENCY_KEY_REUSED.
    """
    return Grant(
        user_id=user_id,
        key=key,
        actor=actor,
        reference=reference,
        metadata=metadata,
        amount=amount,
        source=source,
        priority=priority,
        expires_at=expires_at,
    )


def spend(
    user_id: uuid.UUID,
    amount: int,
    *,
    key: str,
    reference: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    actor: str = APPLICATION,
) -> Spend:
    """Use credits, lot by lot in burn order; all of `amount` or nothing.

    Raises:
        InsufficientCredits: INSUFFICIENT_CREDITS, with `required` and `available`.
        NotFound: USER_NOT_FOUND.
        Forbidden: USER_INACTIVE.
        Conflict: IDEMPOTENCY_KEY_REUSED.
    """
    return Spend(
        user_id=user_id, key=key, actor=actor, reference=reference, metadata=metadata, amount=amount
    )


def adjust(
    user_id: uuid.UUID,
    amount: int,
    *,
    key: str,
    reason: str,
    actor: str = APPLICATION,
) -> Adjust:
    """Correct a balance, up (+) or down (-, never below 0), and say why.

    Raises:
        InsufficientCredits: INSUFFICIENT_CREDITS.
        NotFound: USER_NOT_FOUND.
        Invalid: VALIDATION_ERROR, BALANCE_LIMIT_EXCEEDED.
        Conflict: IDEMPOTENCY_KEY_REUSED.
    """
    return Adjust(user_id=user_id, key=key, actor=actor, amount=amount, reason=reason)


def open_hold(
    user_id: uuid.UUID,
    amount: int,
    *,
    expires_in_seconds: int,
    key: str,
    reference: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    actor: str = APPLICATION,
) -> OpenHold:
    """Set credits aside for work in progress; the result's `seq` names the hold.

    Raises:
        InsufficientCredits: INSUFFICIENT_CREDITS.
        NotFound: USER_NOT_FOUND.
        Forbidden: USER_INACTIVE.
        Conflict: TOO_MANY_HOLDS, IDEMPOTENCY_KEY_REUSED.
    """
    return OpenHold(
        user_id=user_id,
        key=key,
        actor=actor,
        reference=reference,
        metadata=metadata,
        amount=amount,
        expires_in_seconds=expires_in_seconds,
    )


def capture(
    user_id: uuid.UUID,
    hold_seq: int,
    amount: int,
    *,
    key: str,
    final: bool = True,
    if_expired: Literal["refuse", "retake"] = "refuse",
    reference: str | None = None,
    actor: str = APPLICATION,
) -> Capture:
    """Keep `amount` of a hold; a final capture returns the rest to the lots it came from.

    Raises:
        NotFound: USER_NOT_FOUND, HOLD_NOT_FOUND.
        Conflict: HOLD_CLOSED, HOLD_EXPIRED, IDEMPOTENCY_KEY_REUSED.
        Invalid: CAPTURE_EXCEEDS_HOLD.
        InsufficientCredits: INSUFFICIENT_CREDITS, retaking after expiry.
    """
    return Capture(
        user_id=user_id,
        key=key,
        actor=actor,
        hold_seq=hold_seq,
        amount=amount,
        final=final,
        if_expired=if_expired,
        reference=reference,
    )


def release(user_id: uuid.UUID, hold_seq: int, *, key: str, actor: str = APPLICATION) -> Release:
    """Give up a hold: what was not captured goes back to its lots.

    Raises:
        NotFound: USER_NOT_FOUND, HOLD_NOT_FOUND.
        Conflict: HOLD_CLOSED, HOLD_EXPIRED, IDEMPOTENCY_KEY_REUSED.
    """
    return Release(user_id=user_id, key=key, actor=actor, hold_seq=hold_seq)


def renew(
    user_id: uuid.UUID,
    hold_seq: int,
    *,
    expires_in_seconds: int,
    key: str,
    actor: str = APPLICATION,
) -> Renew:
    """Let an open hold expire `expires_in_seconds` from now.

    Raises:
        NotFound: USER_NOT_FOUND, HOLD_NOT_FOUND.
        Conflict: HOLD_CLOSED, HOLD_EXPIRED, IDEMPOTENCY_KEY_REUSED.
    """
    return Renew(
        user_id=user_id,
        key=key,
        actor=actor,
        hold_seq=hold_seq,
        expires_in_seconds=expires_in_seconds,
    )
