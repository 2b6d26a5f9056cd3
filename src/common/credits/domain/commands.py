"""The ledger's commands and their result: plain values, checked when they are made.

Every command names its user, who asks, and an idempotency key (rule 2). The functions of
`requests.py` make them; there each field is described.
"""

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from typing import Any, ClassVar, Literal

import msgspec

from src.common.credits.domain.arguments import (
    NUMBER_MAX,
    check_choice,
    check_instant,
    check_integer,
    check_metadata,
    check_number,
    check_text,
    check_user_id,
    invalid,
)
from src.common.credits.domain.digest import digest_of
from src.common.models.credit_entry import EntryKind
from src.common.models.credit_lot import LotSource

AMOUNT_MAX = NUMBER_MAX
KEY_LENGTH_MAX = 255
OWN_KEY_PREFIX = "~"
"""Keys that begin with it are the ledger's own (`own_commands.py`)."""
LEDGER_ACTOR = "system:ledger"
"""Who books what fell due."""
ORM_ACTOR = "system:orm"
"""Who books what the document's own code changed."""
STRIPE_ACTOR = "system:stripe"
"""Who credits what was paid, and takes back what was refunded."""
OWN_ACTORS = frozenset({LEDGER_ACTOR, ORM_ACTOR, STRIPE_ACTOR})
"""Nobody else is one of them."""
REFERENCE_LENGTH_MAX = 255
EXPIRY_YEARS = range(2000, 9999)
"""Beyond them, other time zones' calendars end."""
HOLD_SECONDS_MAX = 2_592_000
"""30 days."""

DEFAULT_PRIORITY = {
    LotSource.PROMO: 10,
    LotSource.SUBSCRIPTION: 50,
    LotSource.PURCHASE: 100,
    LotSource.ADJUSTMENT: 100,
    LotSource.OPENING: 100,
}
"""The lower goes first: what was given away before what was paid for."""
PRIORITY_MAX = 32_767


class Command(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What every command has in common.

    Raises:
        Invalid: VALIDATION_ERROR, naming the field, when a command is made with a wrong value.
    """

    kind: ClassVar[EntryKind]
    digested: ClassVar["attrgetter[tuple[Any, ...]]"]
    """The fields, besides kind and actor, that make two requests the same."""
    digested_as: ClassVar[str]
    """What the digest calls the command, for ever."""
    is_own: ClassVar[bool] = False
    """Whether the ledger itself asks; only then the key may begin with `~`."""

    user_id: uuid.UUID
    key: str
    actor: str
    """Who asks: `user:`, `key:` or `system:` and an id; none of `OWN_ACTORS`."""
    reference: str | None = None
    metadata: Mapping[str, Any] | None = None
    """Free JSON, at most 16 KiB; not part of what makes two requests the same."""

    def __post_init__(self) -> None:
        if type(self.user_id) is not uuid.UUID:
            check_user_id(self.user_id)
        check_text("key", self.key, KEY_LENGTH_MAX)
        if type(self.actor) is not str:  # what is no text need not have a hash
            check_text("actor", self.actor, KEY_LENGTH_MAX)
        _check_actor(self.actor)
        if not self.is_own:
            if self.key.startswith(OWN_KEY_PREFIX):
                raise invalid("key", f"must not begin with {OWN_KEY_PREFIX!r}")
            if self.actor in OWN_ACTORS:
                raise invalid("actor", f"{self.actor} is the ledger itself")
        if self.reference is not None:
            check_text("reference", self.reference, REFERENCE_LENGTH_MAX)
        if self.metadata is not None:
            check_metadata(self.metadata)

    @property
    def digest(self) -> bytes:
        """What decides whether the same key came with the same request; made at each call."""
        return digest_of(self.actor, self.digested_as, self.kind, *self.digested(self))

    @property
    def noted(self) -> str | None:
        """What its entry has for a reference."""
        return self.reference


class Grant(Command, frozen=True, kw_only=True, gc=False):
    """Credits come in, as a lot of their own."""

    kind = EntryKind.GRANT
    digested = attrgetter(
        "reference", "amount", "source", "priority", "expires_at", "transaction_id"
    )
    digested_as = "Grant"
    sources: ClassVar[frozenset[LotSource]] = frozenset(
        {LotSource.PROMO, LotSource.SUBSCRIPTION, LotSource.ADJUSTMENT}
    )
    """Why they may come in: what was paid for has a purchase, and so a command of the ledger's."""

    amount: int
    source: LotSource = LotSource.PROMO
    priority: int | None = None
    """The lower goes first; None means the source's default."""
    expires_at: dt.datetime | None = None
    transaction_id: uuid.UUID | None = None
    """The purchase that paid for it: none, where callers grant."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("amount", self.amount)
        check_choice("source", self.source, self.sources)
        if self.priority is not None and not 0 <= check_integer("priority", self.priority) <= (
            PRIORITY_MAX
        ):
            raise invalid("priority", f"must be 0 to {PRIORITY_MAX}")
        if self.expires_at is not None and (
            check_instant("expires_at", self.expires_at).year not in EXPIRY_YEARS
        ):
            raise invalid("expires_at", "must have a year from 2000 to 9998")
        if self.transaction_id is not None and not self.is_own:
            raise invalid("transaction_id", "only purchases have one")


class Spend(Command, frozen=True, kw_only=True, gc=False):
    """Credits are used."""

    kind = EntryKind.SPEND
    digested = attrgetter("reference", "amount")
    digested_as = "Spend"

    amount: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("amount", self.amount)


class Adjust(Command, frozen=True, kw_only=True, gc=False):
    """Somebody corrects a balance and says why: up makes a lot, down burns, never below 0."""

    kind = EntryKind.ADJUSTMENT
    digested = attrgetter("reference", "amount", "reason")
    digested_as = "Adjust"

    amount: int
    """Signed; not 0."""
    reason: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if check_integer("amount", self.amount) == 0 or abs(self.amount) > AMOUNT_MAX:
            raise invalid("amount", f"must be ±1 to ±{AMOUNT_MAX}")
        check_text("reason", self.reason, REFERENCE_LENGTH_MAX)

    @property
    def noted(self) -> str | None:
        """Its reason."""
        return self.reason


class OpenHold(Command, frozen=True, kw_only=True, gc=False):
    """Credits are set aside for work in progress, until they are captured, released or expire."""

    kind = EntryKind.HOLD
    digested = attrgetter("reference", "amount", "expires_in_seconds")
    digested_as = "OpenHold"

    amount: int
    expires_in_seconds: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("amount", self.amount)
        check_number("expires_in_seconds", self.expires_in_seconds, HOLD_SECONDS_MAX)


class Capture(Command, frozen=True, kw_only=True, gc=False):
    """Keep some or all of a hold; a final capture returns the rest."""

    kind = EntryKind.CAPTURE
    digested = attrgetter("reference", "hold_seq", "amount", "final", "if_expired")
    digested_as = "Capture"

    hold_seq: int
    amount: int
    final: bool = True
    if_expired: Literal["refuse", "retake"] = "refuse"
    """`retake`: where the hold has expired, spend from today's lots instead."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("hold_seq", self.hold_seq)
        check_number("amount", self.amount)
        if type(self.final) is not bool:
            raise invalid("final", "must be true or false")
        check_choice("if_expired", self.if_expired, {"refuse", "retake"})


class Release(Command, frozen=True, kw_only=True, gc=False):
    """Give up a hold: what was not captured goes back to its lots."""

    kind = EntryKind.RELEASE
    digested = attrgetter("reference", "hold_seq")
    digested_as = "Release"

    hold_seq: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("hold_seq", self.hold_seq)


class Renew(Command, frozen=True, kw_only=True, gc=False):
    """Let an open hold expire later: so many seconds from now."""

    kind = EntryKind.RENEWAL
    digested = attrgetter("reference", "hold_seq", "expires_in_seconds")
    digested_as = "Renew"

    hold_seq: int
    expires_in_seconds: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("hold_seq", self.hold_seq)
        check_number("expires_in_seconds", self.expires_in_seconds, HOLD_SECONDS_MAX)


class Reverse(Command, frozen=True, kw_only=True, gc=False):
    """Undo an entry, whole or in part, in the very lots it moved (rule 12)."""

    kind = EntryKind.REVERSAL
    digested = attrgetter("reference", "seq", "amount", "as_far_as_possible", "reason")
    digested_as = "Reverse"

    seq: int
    """The entry to undo; for what was captured of a hold, the hold."""
    amount: int | None = None
    """None is all that is left of it to undo."""
    as_far_as_possible: bool = False
    """Take back what remains of a grant, should that be less than all; without an `amount`."""
    own_only: bool = False
    """Whether it must be a spend or a hold of the same actor."""
    reason: str

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("seq", self.seq)
        if self.amount is not None:
            check_number("amount", self.amount)
        for name in ("as_far_as_possible", "own_only"):
            if type(getattr(self, name)) is not bool:
                raise invalid(name, "must be true or false")
        if self.as_far_as_possible and self.amount is not None:
            raise invalid("amount", "must be left out with as_far_as_possible, which takes all")
        check_text("reason", self.reason, REFERENCE_LENGTH_MAX)

    @property
    def noted(self) -> str | None:
        """Its reason."""
        return self.reason


# A value like all here, never changed; saying `frozen` would triple what making one costs.
@dataclass(slots=True, unsafe_hash=True)
class Result:
    """What an operation did: its own entry, and nothing that can change later.

    A replay gives the same values for ever, with `replayed` set.
    """

    user_id: uuid.UUID
    seq: int
    """The entry's number in the user's journal: 1, 2, 3 … Of a hold it is also the hold's."""
    kind: str
    """What the entry is, a value of `EntryKind`."""
    amount: int
    """Whole credits into (+) or out of (-) the balance by this entry."""
    captured: int | None
    """Whole credits this entry kept of a hold; None where it acts on none."""
    balance: int
    """What the user may spend after all that the operation wrote, 0 or more."""
    created_at: dt.datetime
    """When the entry was booked, in UTC."""
    expires_at: dt.datetime | None
    """When the hold that this opened or renewed expires, or the credits it gave; in UTC."""
    spent: int | None = None
    """Of the grant that this takes back: whole credits that had left its lot otherwise, before.
    None where it takes back no grant."""
    replayed: bool = field(default=False, compare=False)
    """Whether the key was used before: nothing was done now."""


@lru_cache(maxsize=1_024)
def _check_actor(actor: str) -> None:
    """Few actors ask much; one that was right stays right."""
    check_text("actor", actor, KEY_LENGTH_MAX)
