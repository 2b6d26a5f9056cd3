"""Commands only the ledger itself gives, and their keys, which begin with `~`.

Callers cannot come by them: a command of theirs refuses such a key, `ledger.py` and the engine
refuse these commands, and no module but the ledger's own may import this one (import-linter).
"""

import uuid
from typing import Any, TypeAlias

from msgspec import structs

from src.common.credits.domain.commands import (
    LEDGER_ACTOR,
    OWN_KEY_PREFIX,
    Adjust,
    Grant,
    Release,
    Reverse,
)
from src.common.models.credit_entry import EntryKind
from src.common.models.credit_lot import LotSource

OPENING_KEY = f"{OWN_KEY_PREFIX}opening"
PURCHASE_KEY_PREFIX = f"{OWN_KEY_PREFIX}purchase:"
_REVERSAL_KEY_PREFIX = f"{OWN_KEY_PREFIX}reversal:"
ASSIGNMENT_KEY_PREFIX = f"{OWN_KEY_PREFIX}orm:"
APPROVAL_KEY_PREFIX = f"{OWN_KEY_PREFIX}approval:"


class Opening(Grant, frozen=True, kw_only=True, gc=False):
    """The balance a user had before there was a ledger."""

    kind = EntryKind.OPENING
    digested_as = "Opening"
    sources = frozenset({LotSource.OPENING})
    is_own = True

    source: LotSource = LotSource.OPENING


class Purchase(Grant, frozen=True, kw_only=True, gc=False):
    """The credits of a paid purchase, which `transaction_id` names."""

    sources = frozenset({LotSource.PURCHASE})
    is_own = True

    source: LotSource = LotSource.PURCHASE


class Assignment(Adjust, frozen=True, kw_only=True, gc=False):
    """What the document's own `credits_balance += n` added or took."""

    is_own = True


class ApprovedGrant(Grant, frozen=True, kw_only=True, gc=False):
    """A grant that a second person has consented to."""

    is_own = True


class ApprovedAdjustment(Adjust, frozen=True, kw_only=True, gc=False):
    """An adjustment that a second person has consented to."""

    is_own = True


class ApprovedReversal(Reverse, frozen=True, kw_only=True, gc=False):
    """A reversal that a second person has consented to."""

    is_own = True


class ApprovedRelease(Release, frozen=True, kw_only=True, gc=False):
    """A release that a second person has consented to."""

    is_own = True


ByHand: TypeAlias = Grant | Adjust | Reverse | Release
"""What may take a second person's consent (rule 13)."""


def opening(user_id: uuid.UUID, amount: int, *, actor: str = LEDGER_ACTOR) -> Opening:
    """All that was before the ledger."""
    return Opening(user_id=user_id, key=OPENING_KEY, actor=actor, amount=amount)


def purchase(
    user_id: uuid.UUID,
    amount: int,
    *,
    transaction_id: uuid.UUID,
    stripe_session_id: str,
    actor: str,
) -> Purchase:
    """The credits of a row of `transactions`."""
    return Purchase(
        user_id=user_id,
        key=purchase_key(stripe_session_id),
        actor=actor,
        amount=amount,
        transaction_id=transaction_id,
    )


def purchase_key(stripe_session_id: str) -> str:
    """The key of the grant for what this Stripe object paid."""
    return f"{PURCHASE_KEY_PREFIX}{stripe_session_id}"


def session_of(key: str) -> str | None:
    """The Stripe object that paid for a grant of this key; None where the key is no purchase's."""
    session_id = key.removeprefix(PURCHASE_KEY_PREFIX)
    return session_id if session_id != key else None


def assignment(user_id: uuid.UUID, delta: int, *, actor: str) -> Assignment:
    """A balance that was assigned."""
    return Assignment(
        user_id=user_id,
        key=f"{ASSIGNMENT_KEY_PREFIX}{uuid.uuid4()}",
        actor=actor,
        amount=delta,
        reason="credits_balance assigned",
    )


def approved(command: ByHand, approval_id: uuid.UUID) -> ByHand:
    """The same, as it is done once a second person has consented."""
    fields: dict[str, Any] = structs.asdict(command) | {"key": approval_key(approval_id)}
    if isinstance(command, Grant):
        return ApprovedGrant(**fields)
    if isinstance(command, Adjust):
        return ApprovedAdjustment(**fields)
    if isinstance(command, Release):
        return ApprovedRelease(**fields)
    return ApprovedReversal(**fields)


def approval_key(approval_id: uuid.UUID) -> str:
    """The key with which a request that was consented to is executed."""
    return f"{APPROVAL_KEY_PREFIX}{approval_id}"


def entry_key(kind: str, seq: int) -> str:
    """The key of an entry that nobody asked for, such as an expiry."""
    return f"{OWN_KEY_PREFIX}{kind}:{seq}"


def reversal_key(cause: str) -> str:
    """The beginning of the keys of entries that a refund, dispute or credit note makes."""
    return f"{_REVERSAL_KEY_PREFIX}{cause}"


def cause_of(key: str) -> str | None:
    """What made an entry of this key take or give back; None where the key is no such."""
    cause = key.removeprefix(_REVERSAL_KEY_PREFIX).rpartition(":")[0]
    return cause if key.startswith(_REVERSAL_KEY_PREFIX) and cause else None
