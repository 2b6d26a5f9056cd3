"""Bodies of undoing an entry."""

from typing import Annotated

from pydantic import Field, StrictBool, StrictInt

from src.api.src.schemas.bodies import Body
from src.api.src.schemas.credits import Amount, PreviewOut, ResultOut, Text
from src.common.credits.domain.commands import AMOUNT_MAX

EntryNumber = Annotated[StrictInt, Field(ge=1, le=AMOUNT_MAX, description="The entry's number.")]


class ReverseIn(Body):
    """Undo an entry, and say why."""

    amount: Amount | None = None
    """Credits to undo. Null: all that is left of the entry."""
    as_far_as_possible: Annotated[
        StrictBool,
        Field(description="Of a grant: take what is left in its lot, even if that is less."),
    ] = False
    reason: Text
    """Kept as the entry's `reference`."""


class ReversalOut(ResultOut):
    """What undoing an entry did."""

    spent: Annotated[
        int | None,
        Field(description="Of a grant that was taken back: credits that had left its lot before."),
    ]


class ReversalPreviewOut(PreviewOut, ReversalOut):
    """The same for a request to undo an entry."""
