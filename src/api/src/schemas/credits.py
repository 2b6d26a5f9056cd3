"""Bodies of the credit endpoints; amounts are whole credits."""

import datetime as dt
import uuid
from dataclasses import asdict
from typing import Annotated, Any, Literal

from msgspec import structs
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    model_validator,
)

from src.api.src.schemas.bodies import Body
from src.api.src.schemas.users import without_nul
from src.common.credits.domain.book import Hold, Lot
from src.common.credits.domain.commands import (
    AMOUNT_MAX,
    HOLD_SECONDS_MAX,
    PRIORITY_MAX,
    REFERENCE_LENGTH_MAX,
)
from src.common.credits.domain.views import HistoryEntry, HoldState, LotState, Preview


def _written(value: object) -> object:
    """An instant is written out; a number could be seconds or milliseconds."""
    if not isinstance(value, str):
        raise ValueError("must be a text such as 2030-01-31T12:00:00Z")  # noqa: TRY004  pydantic's
    return value


def _not_zero(amount: int) -> int:
    if amount == 0:
        raise ValueError("must not be 0")
    return amount


Amount = Annotated[StrictInt, Field(ge=1, le=AMOUNT_MAX)]
Text = Annotated[
    StrictStr, Field(min_length=1, max_length=REFERENCE_LENGTH_MAX), AfterValidator(without_nul)
]
Metadata = Annotated[
    dict[str, Any], Field(description="Free JSON of yours, at most 16 KiB, 32 levels deep.")
]
HoldSeconds = Annotated[
    StrictInt, Field(ge=1, le=HOLD_SECONDS_MAX, description="Seconds, counted from now.")
]


class SpendIn(Body):
    """Use credits."""

    amount: Amount
    """Credits to take."""
    reference: Text | None = None
    """Yours, such as an order's number."""
    metadata: Metadata | None = None


class GrantIn(Body):
    """Give credits."""

    amount: Amount
    """Credits to give; at most `CREDITS_MANUAL_LIMIT`."""
    source: Literal["promo", "subscription", "adjustment"]
    """Why they are given. It decides the priority where none is named."""
    reference: Text | None = None
    """Yours, such as a campaign's name."""
    priority: Annotated[
        StrictInt | None,
        Field(
            ge=0,
            le=PRIORITY_MAX,
            description="Lower numbers are spent first. Null: the priority of the source.",
        ),
    ] = None
    expires_at: Annotated[AwareDatetime, BeforeValidator(_written)] | None = None
    """When the credits end, with a time zone; null: never."""
    metadata: Metadata | None = None


class AdjustIn(Body):
    """Correct a balance, up or down, and say why."""

    amount: Annotated[
        StrictInt,
        Field(
            ge=-AMOUNT_MAX,
            le=AMOUNT_MAX,
            description="Credits to give, or, below 0, to take. Not 0; at most "
            "`CREDITS_MANUAL_LIMIT`.",
        ),
        AfterValidator(_not_zero),
    ]
    reason: Text
    """Kept as the entry's `reference`."""


class HoldIn(Body):
    """Set credits aside for work in progress."""

    amount: Amount
    """Credits to set aside."""
    expires_in_seconds: HoldSeconds
    reference: Text | None = None
    """Yours, such as a job's number."""
    metadata: Metadata | None = None


class CaptureIn(Body):
    """Keep some or all of a hold."""

    amount: Amount
    """Credits to keep."""
    final: Annotated[
        StrictBool, Field(description="Whether the rest goes back and the hold is closed.")
    ] = True
    if_expired: Annotated[
        Literal["refuse", "retake"],
        Field(
            description="What to do where the hold has expired: `refuse` with `HOLD_EXPIRED`, or "
            "`retake`, which spends from the credits that are there now."
        ),
    ] = "refuse"


class RenewIn(Body):
    """Let an open hold expire later."""

    expires_in_seconds: HoldSeconds


class ReleaseIn(Body):
    """An empty object."""


class _Out(BaseModel):
    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)


class ResultOut(_Out):
    """What an operation did. A replay always gets the same."""

    seq: int
    """The number of the entry; of a hold it is the hold's number too."""
    kind: str
    """`spend`, `grant`, `adjustment`, `hold`, `capture`, `release`, `renewal` or
    `reversal`."""
    amount: Annotated[int, Field(description="Credits into (+) or out of (-) the balance.")]
    captured: int | None
    """Credits that were kept of a hold; null where no hold is concerned."""
    balance: Annotated[int, Field(description="After the operation.")]
    created_at: dt.datetime
    """When it was booked."""
    expires_at: Annotated[
        dt.datetime | None,
        Field(
            description="When the opened or renewed hold expires, or the credits that were given; "
            "else null."
        ),
    ]


class PostingOut(_Out):
    """How much an entry gave to one lot, or took from it."""

    lot_seq: int
    """The lot."""
    amount: Annotated[int, Field(description="Credits into (+) or out of (-) the lot.")]
    remaining_after: int
    """What the lot held then."""


class GrantedPurchaseOut(_Out):
    """What somebody paid for the credits of a grant."""

    transaction_id: uuid.UUID
    """The purchase."""
    stripe_session_id: str
    """`cs_…`; `in_…` or `pi_…` of a payment without a Checkout Session."""
    package_id: Annotated[
        str | None,
        Field(description="What was bought; null without an order of ours."),
    ]
    amount_paid_cents: int
    """What the customer paid in total, in the currency's smallest unit."""
    currency: str
    """ISO 4217, in lower case."""


class EntryOut(_Out):
    """A movement of credits."""

    seq: int
    """Its number in the user's journal: 1, 2, 3 …"""
    kind: str
    """Such as `grant`, `spend`, `hold`, `capture`, `lot_expiry`, `clawback`."""
    amount: Annotated[int, Field(description="Credits into (+) or out of (-) the balance.")]
    balance_after: int
    """The balance right after this entry."""
    captured: int | None
    """Credits that this entry kept of a hold; null where no hold is concerned."""
    related_seq: int | None
    """The hold that the entry is about; of clawbacks, reinstatements and debts, the grant; of a
    reversal, the entry that it undoes."""
    idempotency_key: str
    """The key it was asked for with; keys of the ledger's own entries begin with `~`."""
    reference: str | None
    """The caller's."""
    actor: str
    """Who asked: `user:`, `key:` or `system:` and an id or a service's name."""
    effective_at: Annotated[dt.datetime, Field(description="When it counts.")]
    created_at: Annotated[dt.datetime, Field(description="When it was booked.")]
    postings: list[PostingOut]
    """How much each lot got or gave."""
    metadata: dict[str, Any] | None
    """The caller's."""
    purchase: Annotated[
        GrantedPurchaseOut | None, Field(description="What a grant was bought with, if it was.")
    ]


class PreviewOut(ResultOut):
    """What a request with `dry_run=true` would answer, and the entries it would write."""

    entries: list[EntryOut]
    """What is due comes first: it would be booked with the operation."""

    @model_validator(mode="before")
    @classmethod
    def _side_by_side(cls, preview: object) -> object:
        if not isinstance(preview, Preview):
            return preview
        return {**asdict(preview.result), "entries": preview.entries}


class LotOut(_Out):
    """Credits that came in together."""

    seq: int
    """The number of the grant that made the lot."""
    source: str
    """`purchase`, `promo`, `subscription`, `adjustment` or `opening`."""
    priority: Annotated[int, Field(description="Lower numbers are spent first.")]
    granted: int
    """Credits that came in."""
    remaining: int
    """Credits that are left."""
    expires_at: dt.datetime | None
    """When they end; null: never."""
    transaction_id: uuid.UUID | None
    """The purchase that paid for them; else null."""


class BalanceOut(_Out):
    """What the user has at this instant."""

    balance: Annotated[int, Field(description="Credits that may be spent.")]
    held: Annotated[int, Field(description="Credits in open holds.")]
    debt: Annotated[int | None, Field(description="Credits owed; null where `as_of` is given.")]
    lots: Annotated[
        list[LotOut],
        Field(description="Those with credits left; the first is spent first."),
    ]
    next_expiry: dt.datetime | None
    """When the first of these lots ends; null: none does."""
    version: Annotated[int, Field(description="The `seq` of the newest entry booked.")]


class HoldOut(_Out):
    """A hold as it is now, and the entry that opened it."""

    seq: int
    """Its number: that of the entry that opened it."""
    amount: int
    """Credits that were set aside."""
    captured: int
    """Credits of these that were kept so far."""
    status: str
    """`open`, `captured`, `released` or `expired`."""
    expires_at: dt.datetime
    """When what was not kept goes back."""
    entry: EntryOut
    """The entry that opened it."""

    @model_validator(mode="before")
    @classmethod
    def _side_by_side(cls, state: object) -> object:
        return _flat(state.hold, state.entry) if isinstance(state, HoldState) else state


class EntryPage(_Out):
    """A page of entries, newest first."""

    items: list[EntryOut]
    """The entries of this page."""
    next_cursor: str | None
    """Send it as `cursor` for the next page; null on the last."""


class HoldPage(_Out):
    """A page of holds, newest first."""

    items: list[HoldOut]
    """The holds of this page."""
    next_cursor: str | None
    """Send it as `cursor` for the next page; null on the last."""


class ExplainedLotOut(LotOut):
    """A lot as it is now, and the entry that made it."""

    entry: EntryOut
    """The grant."""

    @model_validator(mode="before")
    @classmethod
    def _side_by_side(cls, state: object) -> object:
        return _flat(state.lot, state.entry) if isinstance(state, LotState) else state


class ExplainedDebtOut(_Out):
    """What is owed for one payment, and the entry that credited it."""

    outstanding: int
    """Credits still owed."""
    entry: EntryOut
    """The grant of that payment."""


class ExplanationOut(_Out):
    """Why the balance is what it is."""

    now: BalanceOut
    """The balance, and what belongs to it."""
    booked_balance: Annotated[
        int,
        Field(
            description="The balance after the newest entry. With the amounts of `due` it is the "
            "balance now."
        ),
    ]
    total_by_kind: Annotated[
        dict[str, int],
        Field(
            description="The sum of all entries of each kind. Together they are the booked balance."
        ),
    ]
    lots: list[ExplainedLotOut]
    """Those with credits left, in the order in which they are spent."""
    holds: Annotated[list[HoldOut], Field(description="The open holds.")]
    debts: Annotated[list[ExplainedDebtOut], Field(description="The oldest payment first.")]
    due: Annotated[
        list[EntryOut],
        Field(description="What counts already and is not booked yet."),
    ]
    agrees: Annotated[
        bool, Field(description="Whether the booked balance is the sum of all entries and lots.")
    ]


def _flat(thing: Hold | Lot, entry: HistoryEntry) -> dict[str, Any]:
    """A hold's or lot's own fields, and its entry beside them."""
    return {**structs.asdict(thing), "entry": entry}
