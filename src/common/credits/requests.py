"""The operations' parameters: one function each, which makes the command that does it.

`ledger.py`, `async_ledger.py` and `engine.py` offer each under the same name and with the same
parameters. There it does the command and returns a `Result`. What it then raises is said here.

Every operation has these parameters:

- `user_id`: a UUID, not its text.
- `amount`: whole credits, an `int` from 1 to 2,147,483,647. Only `adjust` takes a sign.
- `key`: the idempotency key, 1 to 255 characters, the caller's choice. Each key is good for one
  request of one user, for ever. The same request with it again is a replay: nothing is done, and
  the first result comes back with `replayed` set. Another request with it is refused. A refused
  request leaves its key free. Keys that begin with `~` are the ledger's own.
- `actor`: who asks, as `user:`, `key:` or `system:` and an id, never a name. It is part of the
  request. The actors in `commands.OWN_ACTORS` are the ledger's own.
- `reference`: what it was for, 1 to 255 characters, shown in the history. It is part of the
  request.
- `metadata`: a JSON object, at most 16 KiB and 32 levels deep, kept beside the entry. It is not
  part of the request: a replay may bring another one, which is not stored. Erasing the user
  deletes it.

Nothing is converted: a wrong type or value is a VALIDATION_ERROR that names the argument. The rules
are rules 2 to 8 of docs/explanation/rules.md.
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
    Reverse,
    Spend,
)
from src.common.exceptions import Invalid
from src.common.models.credit_lot import LotSource

APPLICATION = "system:application"
"""Who acts where the caller does not say."""
_COMMANDS = frozenset({Grant, Spend, Adjust, OpenHold, Capture, Release, Renew, Reverse})


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
    """Give credits, as a lot of their own; they repay the user's debts first.

    The entry's `amount` is positive. A deactivated user can be granted credits.

    Args:
        user_id: Who receives them.
        amount: Whole credits, 1 or more.
        key: The idempotency key.
        source: `promo`, `subscription` or `adjustment`. A purchase is credited by its payment.
        priority: 0 to 32,767. The lot with the lowest is spent first. None is the source's default:
            10 for promo, 50 for subscription, 100 for adjustment.
        expires_at: When what is left of the lot expires: an instant with a time zone, in the
            future, in a year up to 9998. None is never.
        reference: What it was for.
        metadata: JSON kept beside the entry.
        actor: Who asks.

    Raises:
        NotFound: USER_NOT_FOUND.
        Invalid: VALIDATION_ERROR. BALANCE_LIMIT_EXCEEDED, balance and open holds together would
            exceed 2,147,483,647.
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
    """Use credits, all of `amount` or nothing.

    They are taken lot by lot: the lowest priority first, then the earliest expiry, then the oldest.
    The entry's `amount` is negative.

    Args:
        user_id: Who pays.
        amount: Whole credits, 1 or more.
        key: The idempotency key.
        reference: What it was for.
        metadata: JSON kept beside the entry.
        actor: Who asks.

    Raises:
        InsufficientCredits: INSUFFICIENT_CREDITS, with `required` and `available` in `details`.
        NotFound: USER_NOT_FOUND.
        Forbidden: USER_INACTIVE.
        Conflict: IDEMPOTENCY_KEY_REUSED.
        Invalid: VALIDATION_ERROR.
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
    """Correct a balance up or down, and say why. A deactivated user's can be corrected too.

    Up makes a lot of priority 100 that does not expire, and repays debts first. Down takes from
    lots as `spend` does, and never below 0.

    Args:
        user_id: Whose balance.
        amount: Whole credits into (+) or out of (-) the balance; not 0.
        key: The idempotency key.
        reason: Why, 1 to 255 characters; the entry keeps it as its reference.
        actor: Who asks.

    Raises:
        InsufficientCredits: INSUFFICIENT_CREDITS, there is less than is to go.
        NotFound: USER_NOT_FOUND.
        Invalid: VALIDATION_ERROR. BALANCE_LIMIT_EXCEEDED, as for `grant`.
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
    """Set credits aside for work in progress: they leave the balance at once.

    `capture` keeps some or all of them, `release` returns them. What is neither captured nor
    released returns when the hold expires. The result's `seq` is the number of the hold, its
    `expires_at` when it expires. The entry's `amount` is negative.

    Args:
        user_id: Who pays.
        amount: Whole credits, 1 or more.
        expires_in_seconds: 1 to 2,592,000 (30 days), from now.
        key: The idempotency key.
        reference: What it is for.
        metadata: JSON kept beside the entry.
        actor: Who asks.

    Raises:
        InsufficientCredits: INSUFFICIENT_CREDITS, with `required` and `available` in `details`.
        NotFound: USER_NOT_FOUND.
        Forbidden: USER_INACTIVE.
        Conflict: TOO_MANY_HOLDS, the user has 100 open ones. IDEMPOTENCY_KEY_REUSED.
        Invalid: VALIDATION_ERROR.
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
    """Keep `amount` credits of a hold.

    The entry's `amount` is what went back into the balance, 0 or more; `captured` is what was kept.

    Args:
        user_id: Whose hold.
        hold_seq: The hold's number: `seq` of the result of `open_hold`.
        amount: Whole credits, 1 or more, at most what is left of the hold.
        key: The idempotency key.
        final: Whether the hold ends with this: the rest goes back to the lots it came from. If not,
            it stays open for further captures until nothing is left of it.
        if_expired: What happens where the hold has expired. `refuse` refuses. `retake` spends
            `amount` from the lots of today instead.
        reference: What it was for.
        actor: Who asks.

    Raises:
        NotFound: USER_NOT_FOUND, HOLD_NOT_FOUND.
        Conflict: HOLD_CLOSED, it was captured or released. HOLD_EXPIRED. IDEMPOTENCY_KEY_REUSED.
        Invalid: CAPTURE_EXCEEDS_HOLD, with what is left as `uncaptured` in `details`.
            VALIDATION_ERROR.
        InsufficientCredits: INSUFFICIENT_CREDITS, where an expired hold is retaken.
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
    """End a hold: what was not captured goes back to the lots it came from.

    The entry's `amount` is what went back, positive. What goes back to a lot that has expired
    meanwhile expires at once, unless it repays a debt.

    Args:
        user_id: Whose hold.
        hold_seq: The hold's number: `seq` of the result of `open_hold`.
        key: The idempotency key.
        actor: Who asks.

    Raises:
        NotFound: USER_NOT_FOUND, HOLD_NOT_FOUND.
        Conflict: HOLD_CLOSED, HOLD_EXPIRED, IDEMPOTENCY_KEY_REUSED.
        Invalid: VALIDATION_ERROR.
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
    """Move an open hold's expiry, later or earlier. The entry's `amount` is 0.

    Args:
        user_id: Whose hold.
        hold_seq: The hold's number: `seq` of the result of `open_hold`.
        expires_in_seconds: 1 to 2,592,000 (30 days), from now.
        key: The idempotency key.
        actor: Who asks.

    Raises:
        NotFound: USER_NOT_FOUND, HOLD_NOT_FOUND.
        Conflict: HOLD_CLOSED, HOLD_EXPIRED, IDEMPOTENCY_KEY_REUSED.
        Invalid: VALIDATION_ERROR.
    """
    return Renew(
        user_id=user_id,
        key=key,
        actor=actor,
        hold_seq=hold_seq,
        expires_in_seconds=expires_in_seconds,
    )


def reverse(
    user_id: uuid.UUID,
    seq: int,
    amount: int | None = None,
    *,
    as_far_as_possible: bool = False,
    own_only: bool = False,
    key: str,
    reason: str,
    actor: str = APPLICATION,
) -> Reverse:
    """Undo an entry, whole or in part, in the very lots it moved. A deactivated user's too.

    A spend, what was captured of a hold and an adjustment down are given back, in several parts if
    need be. The credits return to the lots they came from, from the end of the burn order, and
    repay debts first. What returns to a lot that has expired meanwhile expires at once, unless it
    repays a debt. The entry's `amount` is positive.

    A grant that is no purchase, and an adjustment up, are taken back from their own lot, as far as
    credits remain there. The entry's `amount` is negative. The result's `spent` says how much had
    left the lot otherwise before.

    Args:
        user_id: Whose entry.
        seq: The entry's number. For what was captured of a hold it is the hold's.
        amount: Whole credits, 1 or more, at most what is left of the entry to undo. None is all of
            that.
        as_far_as_possible: Whether to take back what remains of a grant where that is less than all
            of it. Then `amount` is left out.
        own_only: Whether to refuse all but spends and holds of the same `actor`.
        key: The idempotency key.
        reason: Why, 1 to 255 characters; the entry keeps it as its reference.
        actor: Who asks.

    Raises:
        NotFound: USER_NOT_FOUND, ENTRY_NOT_FOUND.
        Conflict: ENTRY_NOT_REVERSIBLE, with its `kind` in `details`. IDEMPOTENCY_KEY_REUSED.
        Invalid: REVERSAL_EXCEEDS_ENTRY, with what is left as `reversible` in `details`.
            BALANCE_LIMIT_EXCEEDED, as for `grant`. VALIDATION_ERROR.
        InsufficientCredits: INSUFFICIENT_CREDITS, less remains of a grant than is to be taken back,
            or nothing; `available` in `details` is what remains.
        Forbidden: FORBIDDEN, the entry is not the actor's own, where it has to be.
    """
    return Reverse(
        user_id=user_id,
        key=key,
        actor=actor,
        seq=seq,
        amount=amount,
        as_far_as_possible=as_far_as_possible,
        own_only=own_only,
        reason=reason,
    )
