"""Makes the command again that an entry answers, from the entry and its lot."""

import uuid
from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar

from msgspec import structs

from src.common.credits.domain import own_commands
from src.common.credits.domain.commands import (
    DEFAULT_PRIORITY,
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
from src.common.credits.domain.own_commands import (
    APPROVAL_KEY_PREFIX,
    ASSIGNMENT_KEY_PREFIX,
    ApprovedAdjustment,
    ApprovedGrant,
    ApprovedRelease,
    ApprovedReversal,
    Assignment,
)
from src.common.credits.verification.stored import EntryRow, LotRow, PurchaseRow
from src.common.models.credit_entry import EntryKind
from src.common.models.credit_lot import LotSource

C = TypeVar("C", bound=Command)
_SOURCES = {str(source): source for source in LotSource}


class Inexplicable(Exception):
    """No command of anybody's leads to this entry; the message says why."""


def command_of(
    entry: EntryRow,
    user_id: uuid.UUID,
    lots: Mapping[int, LotRow],
    purchases: Mapping[uuid.UUID, PurchaseRow],
) -> Command:
    """The command whose answer the entry is.

    What the entry does not say, such as whether a capture was to be the last, follows from the
    digest; where no choice agrees with that, the first one stands and the digest differs.

    Raises:
        Inexplicable: no command does that.
        Invalid: what it says is no command that anybody may give.
    """
    match entry.kind:
        case EntryKind.SPEND:
            if entry.related_seq is not None:
                return _capture(entry, user_id, "retake")
            return Spend(
                user_id=user_id,
                key=entry.idempotency_key,
                actor=entry.actor,
                reference=entry.reference,
                amount=-entry.amount,
            )
        case EntryKind.GRANT:
            lot = lots.get(entry.seq)
            if lot is None:
                raise Inexplicable("it has no lot")
            if lot.source == LotSource.PURCHASE:
                return _purchase(entry, user_id, lot, purchases)
            return _grant(entry, user_id, lot)
        case EntryKind.HOLD:
            return OpenHold(
                user_id=user_id,
                key=entry.idempotency_key,
                actor=entry.actor,
                reference=entry.reference,
                amount=-entry.amount,
                expires_in_seconds=_seconds_until_expiry(entry),
            )
        case EntryKind.CAPTURE:
            return _capture(entry, user_id, "refuse")
        case _:
            return _rare_command(entry, user_id)


def _rare_command(entry: EntryRow, user_id: uuid.UUID) -> Command:
    key, actor = entry.idempotency_key, entry.actor
    match entry.kind:
        case EntryKind.ADJUSTMENT:
            return _adjustment_of(key)(
                user_id=user_id,
                key=key,
                actor=actor,
                amount=entry.amount,
                reason=entry.reference or "",
            )
        case EntryKind.RELEASE:
            release = ApprovedRelease if _is_approved(key) else Release
            return release(
                user_id=user_id,
                key=key,
                actor=actor,
                reference=entry.reference,
                hold_seq=_hold_of(entry),
            )
        case EntryKind.RENEWAL:
            return Renew(
                user_id=user_id,
                key=key,
                actor=actor,
                reference=entry.reference,
                hold_seq=_hold_of(entry),
                expires_in_seconds=_seconds_until_expiry(entry),
            )
        case EntryKind.REVERSAL:
            return _reversal(entry, user_id)
        case _:
            raise Inexplicable("nothing was due, and nobody asks for it")


def _purchase(
    entry: EntryRow,
    user_id: uuid.UUID,
    lot: LotRow,
    purchases: Mapping[uuid.UUID, PurchaseRow],
) -> Command:
    purchase = purchases.get(lot.transaction_id) if lot.transaction_id else None
    if purchase is None:
        raise Inexplicable("its lot names no purchase of the user's")
    return own_commands.purchase(
        user_id,
        purchase.credits_added,
        transaction_id=purchase.transaction_id,
        stripe_session_id=purchase.stripe_session_id,
        actor=entry.actor,
    )


def _grant(entry: EntryRow, user_id: uuid.UUID, lot: LotRow) -> Command:
    source = _SOURCES.get(lot.source) or LotSource(lot.source)
    is_default = lot.priority == DEFAULT_PRIORITY[source]
    kind = ApprovedGrant if _is_approved(entry.idempotency_key) else Grant
    grant = kind(
        user_id=user_id,
        key=entry.idempotency_key,
        actor=entry.actor,
        reference=entry.reference,
        amount=entry.amount,
        source=source,
        priority=None if is_default else lot.priority,
        expires_at=lot.expires_at,
    )
    if not is_default or grant.digest == entry.request_digest:
        return grant
    return _asked_for(entry, (grant, structs.replace(grant, priority=lot.priority)))


def _capture(
    entry: EntryRow, user_id: uuid.UUID, if_expired: Literal["refuse", "retake"]
) -> Command:
    """A capture in time may have allowed for a late one too; a late one must have."""
    allowances: tuple[Literal["refuse", "retake"], ...] = (if_expired, "retake")
    return _asked_for(
        entry,
        (
            Capture(
                user_id=user_id,
                key=entry.idempotency_key,
                actor=entry.actor,
                reference=entry.reference,
                hold_seq=_hold_of(entry),
                amount=entry.captured or 0,
                final=final,
                if_expired=allowance,
            )
            for allowance in allowances
            for final in (True, False)
        ),
    )


def _reversal(entry: EntryRow, user_id: uuid.UUID) -> Command:
    """It may have asked for a number, or for all there was."""
    if entry.related_seq is None:
        raise Inexplicable("it names no entry")
    kind = ApprovedReversal if _is_approved(entry.idempotency_key) else Reverse
    given: tuple[tuple[int | None, bool], ...] = (
        (abs(entry.amount), False),
        (None, False),
        (None, True),
    )
    return _asked_for(
        entry,
        (
            kind(
                user_id=user_id,
                key=entry.idempotency_key,
                actor=entry.actor,
                seq=entry.related_seq,
                amount=amount,
                as_far_as_possible=as_far_as_possible,
                reason=entry.reference or "",
            )
            for amount, as_far_as_possible in given
        ),
    )


def _adjustment_of(key: str) -> type[Adjust]:
    if key.startswith(ASSIGNMENT_KEY_PREFIX):
        return Assignment
    return ApprovedAdjustment if _is_approved(key) else Adjust


def _is_approved(key: str) -> bool:
    return key.startswith(APPROVAL_KEY_PREFIX)


def _asked_for(entry: EntryRow, candidates: Iterable[C]) -> C:
    """The candidate with the entry's digest, else the first."""
    first: C | None = None
    for candidate in candidates:
        if candidate.digest == entry.request_digest:
            return candidate
        first = first or candidate
    if first is None:
        raise Inexplicable("nothing could have been asked")
    return first


def _hold_of(entry: EntryRow) -> int:
    if entry.related_seq is None:
        raise Inexplicable("it names no hold")
    return entry.related_seq


def _seconds_until_expiry(entry: EntryRow) -> int:
    if entry.hold_expires_at is None:
        raise Inexplicable("it says no expiry")
    return int((entry.hold_expires_at - entry.created_at).total_seconds())
