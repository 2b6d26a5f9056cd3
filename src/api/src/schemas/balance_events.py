"""What a stream of a user's balance says: the balance, and what was booked since the last time."""

import datetime as dt
from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from src.common.credits.balance_changes import NewEntry
from src.common.credits.domain.views import Balance


class _Out(BaseModel):
    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)


class StreamedEntry(_Out):
    """A movement of credits, in short."""

    seq: int
    """Its number in the user's journal: 1, 2, 3 …"""
    kind: str
    """Such as `grant`, `spend`, `hold`, `capture`, `lot_expiry`, `clawback`."""
    amount: Annotated[int, Field(description="Credits into (+) or out of (-) the balance.")]
    balance_after: int
    """The balance right after this entry."""
    related_seq: int | None
    """The hold or the entry that it is about; else null."""
    reference: str | None
    """The caller's."""
    effective_at: Annotated[dt.datetime, Field(description="When it counts.")]
    created_at: Annotated[dt.datetime, Field(description="When it was booked.")]


class BalanceEvent(_Out):
    """The `data` of an event `balance`; the event's `id` is the `version`."""

    version: Annotated[int, Field(description="The `seq` of the newest entry booked.")]
    balance: Annotated[int, Field(description="Credits that may be spent.")]
    held: Annotated[int, Field(description="Credits in open holds.")]
    debt: Annotated[int, Field(description="Credits owed.")]
    next_expiry: dt.datetime | None
    """When the first of the user's credits end; null: none do."""
    entries: Annotated[
        list[StreamedEntry],
        Field(description="What was booked since the event before, the oldest first."),
    ]
    omitted: Annotated[
        int,
        Field(description="How many older entries since then are not among `entries`."),
    ]

    @classmethod
    def of(cls, balance: Balance, entries: Sequence[NewEntry], omitted: int) -> Self:
        """The event of this balance."""
        return cls(
            version=balance.version,
            balance=balance.balance,
            held=balance.held,
            debt=balance.debt or 0,
            next_expiry=balance.next_expiry,
            entries=[StreamedEntry.model_validate(entry) for entry in entries],
            omitted=omitted,
        )
