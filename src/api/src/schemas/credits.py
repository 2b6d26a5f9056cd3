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
    reference: Text | None = None
    metadata: Metadata | None = None


class GrantIn(Body):
    """Give credits."""

    amount: Amount
    source: Literal["promo", "subscription", "adjustment"]
    reference: Text | None = None
    priority: Annotated[
        StrictInt | None,
        Field(ge=0, le=PRIORITY_MAX, description="The lower is spent first; null: the source's."),
    ] = None
    expires_at: Annotated[AwareDatetime, BeforeValidator(_written)] | None = None
    metadata: Metadata | None = None


class AdjustIn(Body):
    """Correct a balance, up or down, and say why."""

    amount: Annotated[
        StrictInt,
        Field(ge=-AMOUNT_MAX, le=AMOUNT_MAX, description="Not 0; below 0 takes credits."),
        AfterValidator(_not_zero),
    ]
    reason: Text


class HoldIn(Body):
    """Set credits aside for work in progress."""

    amount: Amount
    expires_in_seconds: HoldSeconds
    reference: Text | None = None
    metadata: Metadata | None = None


class CaptureIn(Body):
    """Keep some or all of a hold."""

    amount: Amount
    final: Annotated[StrictBool, Field(description="Whether the rest goes back.")] = True
    if_expired: Annotated[
        Literal["refuse", "retake"],
        Field(description="`retake`: where the hold has expired, spend from today's credits."),
    ] = "refuse"


class RenewIn(Body):
    """Let an open hold expire later."""

    expires_in_seconds: HoldSeconds


class ReleaseIn(Body):
    """Give a hold up; there is nothing more to say."""


class _Out(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class ResultOut(_Out):
    """What an operation did; a replay answers the very same, for ever."""

    seq: int
    kind: str
    amount: Annotated[int, Field(description="Credits into (+) or out of (-) the balance.")]
    captured: int | None
    balance: Annotated[int, Field(description="After the operation.")]
    created_at: dt.datetime
    expires_at: Annotated[
        dt.datetime | None,
        Field(description="When the hold opened or renewed, or the credits given, expire."),
    ]


class PostingOut(_Out):
    """A line of an entry."""

    lot_seq: int
    amount: Annotated[int, Field(description="Credits into (+) or out of (-) the lot.")]
    remaining_after: int


class GrantedPurchaseOut(_Out):
    """What somebody paid for the credits of a grant."""

    transaction_id: uuid.UUID
    stripe_session_id: str
    package_id: Annotated[str | None, Field(description="Null where it was no order of ours.")]
    amount_paid_cents: int
    currency: str


class EntryOut(_Out):
    """A movement of credits."""

    seq: int
    kind: str
    amount: Annotated[int, Field(description="Credits into (+) or out of (-) the balance.")]
    balance_after: int
    captured: int | None
    related_seq: int | None
    idempotency_key: str
    reference: str | None
    actor: str
    effective_at: Annotated[dt.datetime, Field(description="When it counts.")]
    created_at: Annotated[dt.datetime, Field(description="When it was booked.")]
    postings: list[PostingOut]
    metadata: dict[str, Any] | None
    purchase: Annotated[
        GrantedPurchaseOut | None, Field(description="What a grant was bought with, if it was.")
    ]


class PreviewOut(ResultOut):
    """What a request would answer (`?dry_run=true`), and the entries it would write."""

    entries: list[EntryOut]

    @model_validator(mode="before")
    @classmethod
    def _side_by_side(cls, preview: object) -> object:
        if not isinstance(preview, Preview):
            return preview
        return {**asdict(preview.result), "entries": preview.entries}


class LotOut(_Out):
    """Credits that came in together."""

    seq: int
    source: str
    priority: Annotated[int, Field(description="The lower is spent first.")]
    granted: int
    remaining: int
    expires_at: dt.datetime | None
    transaction_id: uuid.UUID | None


class BalanceOut(_Out):
    """What the user has, to the instant."""

    balance: Annotated[int, Field(description="Credits that may be spent.")]
    held: Annotated[int, Field(description="Credits in open holds.")]
    debt: Annotated[int | None, Field(description="Credits owed; null with `as_of`.")]
    lots: Annotated[list[LotOut], Field(description="With something left, in the order spent.")]
    next_expiry: dt.datetime | None
    version: Annotated[int, Field(description="The `seq` of the newest entry booked.")]


class HoldOut(_Out):
    """A hold as it is now, and the entry that opened it."""

    seq: int
    amount: int
    captured: int
    status: str
    expires_at: dt.datetime
    entry: EntryOut

    @model_validator(mode="before")
    @classmethod
    def _side_by_side(cls, state: object) -> object:
        return _flat(state.hold, state.entry) if isinstance(state, HoldState) else state


class EntryPage(_Out):
    """Entries, newest first; `next_cursor` fetches the next page, null on the last."""

    items: list[EntryOut]
    next_cursor: str | None


class HoldPage(_Out):
    """Holds, newest first; `next_cursor` fetches the next page, null on the last."""

    items: list[HoldOut]
    next_cursor: str | None


class ExplainedLotOut(LotOut):
    """A lot as it is now, and the entry that made it."""

    entry: EntryOut

    @model_validator(mode="before")
    @classmethod
    def _side_by_side(cls, state: object) -> object:
        return _flat(state.lot, state.entry) if isinstance(state, LotState) else state


class ExplainedDebtOut(_Out):
    """What is owed for one payment, and the entry that credited it."""

    outstanding: int
    entry: EntryOut


class ExplanationOut(_Out):
    """Why the balance is what it is."""

    now: BalanceOut
    booked_balance: Annotated[
        int, Field(description="After the newest entry; `due` leads from it to the one now.")
    ]
    total_by_kind: Annotated[
        dict[str, int], Field(description="Sums of all entries; together the booked balance.")
    ]
    lots: list[ExplainedLotOut]
    holds: Annotated[list[HoldOut], Field(description="The open ones.")]
    debts: Annotated[list[ExplainedDebtOut], Field(description="The oldest payment first.")]
    due: Annotated[list[EntryOut], Field(description="What counts already and is not booked yet.")]
    agrees: Annotated[
        bool, Field(description="Whether the booked balance is the sum of all entries and lots.")
    ]


def _flat(thing: Hold | Lot, entry: HistoryEntry) -> dict[str, Any]:
    """A hold's or lot's own fields, and its entry beside them."""
    return {**structs.asdict(thing), "entry": entry}
