"""What may be asked of the ledger, and what it answers: plain values, checked when they are made.

Every command names its user, who asks, and an idempotency key (DESIGN §4 rule 2).
"""

import datetime as dt
import json
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from typing import Any, ClassVar, Literal, cast

import msgspec

from src.common.credits.digest import digest_of
from src.common.exceptions import Invalid
from src.common.models.credit_entry import EntryKind
from src.common.models.credit_lot import LotSource

AMOUNT_MAX = 2**31 - 1
KEY_LENGTH_MAX = 255
OWN_KEY_PREFIX = "~"
"""Keys that begin with it are the ledger's own."""
REFERENCE_LENGTH_MAX = 255
METADATA_BYTES_MAX = 16 * 1024
METADATA_DEPTH_MAX = 32
"""Deeper documents are refused while every encoder on their way still reads them."""
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
_PAID_SOURCES = {LotSource.PURCHASE, LotSource.OPENING}
_NOT_STORED = re.compile("[\x00\ud800-\udfff]")


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What every command has in common.

    Raises:
        Invalid: VALIDATION_ERROR, naming the field, when a command is made with a wrong value.
    """

    kind: ClassVar[EntryKind]
    digested: ClassVar["attrgetter[tuple[Any, ...]]"]
    """The fields, besides kind and actor, that make two requests the same."""

    user_id: uuid.UUID
    key: str
    actor: str
    """Who asks: `user:`, `key:` or `system:` and an id."""
    reference: str | None = None
    metadata: Mapping[str, Any] | None = None
    """Free JSON, at most 16 KiB; not part of what makes two requests the same."""

    def __post_init__(self) -> None:
        _check_text("key", self.key, KEY_LENGTH_MAX)
        if self.key.startswith(OWN_KEY_PREFIX) and not self.actor.startswith("system:"):
            raise _invalid("key", f"must not begin with {OWN_KEY_PREFIX!r}")
        _check_actor(self.actor)
        if self.reference is not None:
            _check_text("reference", self.reference, REFERENCE_LENGTH_MAX)
        if self.metadata is not None:
            _check_metadata(self.metadata)

    @property
    def digest(self) -> bytes:
        """What decides whether the same key came with the same request; made at each call."""
        return digest_of(self.actor, type(self).__name__, self.kind, *self.digested(self))


class Grant(Command, frozen=True, kw_only=True):
    """Credits come in, as a lot of their own."""

    kind = EntryKind.GRANT
    digested = attrgetter(
        "reference", "amount", "source", "priority", "expires_at", "transaction_id"
    )

    amount: int
    source: LotSource = LotSource.PROMO
    priority: int | None = None
    """The lower goes first; None means the source's default."""
    expires_at: dt.datetime | None = None
    transaction_id: uuid.UUID | None = None
    """The purchase that paid for it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_amount(self.amount)
        if self.priority is not None and not 0 <= _integer("priority", self.priority) <= (
            PRIORITY_MAX
        ):
            raise _invalid("priority", f"must be 0 to {PRIORITY_MAX}")
        if self.expires_at is not None and (
            self.expires_at.tzinfo is None or self.expires_at.year not in EXPIRY_YEARS
        ):
            raise _invalid("expires_at", "must have a time zone and a year from 2000 to 9998")
        if self.transaction_id is not None and self.source not in _PAID_SOURCES:
            raise _invalid("transaction_id", "only purchases have one")


class Opening(Grant, frozen=True, kw_only=True):
    """The balance a user had before there was a ledger."""

    kind = EntryKind.OPENING


class Spend(Command, frozen=True, kw_only=True):
    """Credits are used."""

    kind = EntryKind.SPEND
    digested = attrgetter("reference", "amount")

    amount: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_amount(self.amount)


class Adjust(Command, frozen=True, kw_only=True):
    """Somebody corrects a balance and says why: up makes a lot, down burns, never below 0."""

    kind = EntryKind.ADJUSTMENT
    digested = attrgetter("reference", "amount", "reason")

    amount: int
    """Signed; not 0."""
    reason: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if _integer("amount", self.amount) == 0 or abs(self.amount) > AMOUNT_MAX:
            raise _invalid("amount", f"must be ±1 to ±{AMOUNT_MAX}")
        _check_text("reason", self.reason, REFERENCE_LENGTH_MAX)


class OpenHold(Command, frozen=True, kw_only=True):
    """Credits are set aside for work in progress, until they are captured, released or expire."""

    kind = EntryKind.HOLD
    digested = attrgetter("reference", "amount", "expires_in_seconds")

    amount: int
    expires_in_seconds: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_amount(self.amount)
        _check_seconds(self.expires_in_seconds)


class Capture(Command, frozen=True, kw_only=True):
    """Keep some or all of a hold; a final capture returns the rest."""

    kind = EntryKind.CAPTURE
    digested = attrgetter("reference", "hold_seq", "amount", "final", "if_expired")

    hold_seq: int
    amount: int
    final: bool = True
    if_expired: Literal["refuse", "retake"] = "refuse"
    """`retake`: where the hold has expired, spend from today's lots instead."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_hold_seq(self.hold_seq)
        _check_amount(self.amount)
        if type(self.final) is not bool:
            raise _invalid("final", "must be true or false")
        if self.if_expired not in {"refuse", "retake"}:
            raise _invalid("if_expired", "must be refuse or retake")


class Release(Command, frozen=True, kw_only=True):
    """Give up a hold: what was not captured goes back to its lots."""

    kind = EntryKind.RELEASE
    digested = attrgetter("reference", "hold_seq")

    hold_seq: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_hold_seq(self.hold_seq)


class Renew(Command, frozen=True, kw_only=True):
    """Let an open hold expire later: so many seconds from now."""

    kind = EntryKind.RENEWAL
    digested = attrgetter("reference", "hold_seq", "expires_in_seconds")

    hold_seq: int
    expires_in_seconds: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_hold_seq(self.hold_seq)
        _check_seconds(self.expires_in_seconds)


HoldCommand = Capture | Release | Renew
"""Those that act on a hold there is."""


# A value like all here, never changed; saying `frozen` would triple what making one costs.
@dataclass(slots=True, unsafe_hash=True)
class Result:
    """What an operation did: its own entry, and nothing that can change later.

    A replay gives the very same, with `replayed` set, for ever.
    """

    user_id: uuid.UUID
    seq: int
    kind: str
    amount: int
    """Credits into (+) or out of (-) the balance by this entry."""
    captured: int | None
    balance: int
    """The effective balance after all the operation wrote."""
    created_at: dt.datetime
    expires_at: dt.datetime | None
    """When the hold this opened or renewed expires, as first answered."""
    replayed: bool = field(default=False, compare=False)


def _invalid(name: str, problem: str) -> Invalid:
    return Invalid(f"{name}: {problem}", "VALIDATION_ERROR", field=name)


def _integer(name: str, value: object) -> int:
    """Strictly an integer: no float, no boolean."""
    if type(value) is not int:
        raise _invalid(name, "must be an integer")
    return value


def _check_amount(amount: object) -> None:
    if not 1 <= _integer("amount", amount) <= AMOUNT_MAX:
        raise _invalid("amount", f"must be 1 to {AMOUNT_MAX}")


def _check_hold_seq(seq: object) -> None:
    if not 1 <= _integer("hold_seq", seq) <= AMOUNT_MAX:
        raise _invalid("hold_seq", f"must be 1 to {AMOUNT_MAX}")


def _check_seconds(seconds: object) -> None:
    if not 1 <= _integer("expires_in_seconds", seconds) <= HOLD_SECONDS_MAX:
        raise _invalid("expires_in_seconds", f"must be 1 to {HOLD_SECONDS_MAX}")


def _check_text(name: str, text: str, length_max: int) -> None:
    is_stored = text.isprintable() or not _NOT_STORED.search(text)  # the first costs little
    if not 1 <= len(text) <= length_max or not is_stored:
        raise _invalid(
            name,
            f"must be 1 to {length_max} characters long, no NUL or half a character among them",
        )


@lru_cache(maxsize=1_024)
def _check_actor(actor: str) -> None:
    """Few actors ask much; one that was right stays right."""
    _check_text("actor", actor, KEY_LENGTH_MAX)


def _check_metadata(metadata: Mapping[str, Any]) -> None:
    if _is_deeper(metadata, METADATA_DEPTH_MAX):
        raise _invalid("metadata", f"must be nested at most {METADATA_DEPTH_MAX} deep")
    try:
        written = json.dumps(dict(metadata), ensure_ascii=False, allow_nan=False)
        size = len(written.encode())
    except (TypeError, ValueError):  # half a character is a ValueError too
        raise _invalid("metadata", "must be JSON") from None
    if size > METADATA_BYTES_MAX or "\\u0000" in written:
        raise _invalid("metadata", f"must be at most {METADATA_BYTES_MAX} bytes, without NUL")


def _is_deeper(value: object, depth: int) -> bool:
    """Whether lists and objects are nested more than `depth` deep."""
    if isinstance(value, Mapping):
        inner: Iterable[object] = cast("Mapping[object, object]", value).values()
    elif isinstance(value, list | tuple):
        inner = cast("Iterable[object]", value)
    else:
        return False
    return depth == 0 or any(_is_deeper(each, depth - 1) for each in inner)
