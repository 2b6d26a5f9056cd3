"""Bodies of the batch endpoint: many operations, independent of each other."""

import uuid
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, StrictStr

from src.api.src.schemas.bodies import Body
from src.api.src.schemas.credit_reversals import EntryNumber, ReversalOut, ReverseIn
from src.api.src.schemas.credits import GrantIn, ResultOut, SpendIn
from src.api.src.schemas.users import without_nul
from src.common.credits.domain.commands import KEY_LENGTH_MAX

ITEMS_MAX = 1_000

Key = Annotated[
    StrictStr,
    Field(min_length=1, max_length=KEY_LENGTH_MAX, description="Unique per user."),
    AfterValidator(without_nul),
]


class SpendItem(SpendIn):
    """Use a user's credits."""

    operation: Literal["spend"]
    """What this item is."""
    user_id: uuid.UUID
    """Whose credits."""
    idempotency_key: Key


class GrantItem(GrantIn):
    """Give a user credits."""

    operation: Literal["grant"]
    """What this item is."""
    user_id: uuid.UUID
    """Who gets them."""
    idempotency_key: Key


class ReverseItem(ReverseIn):
    """Undo a user's entry."""

    operation: Literal["reverse"]
    """What this item is."""
    user_id: uuid.UUID
    """Whose entry."""
    seq: EntryNumber
    idempotency_key: Key


Item = Annotated[SpendItem | GrantItem | ReverseItem, Field(discriminator="operation")]


class BatchIn(Body):
    """The operations. If items are invalid, the error names the first of them."""

    items: Annotated[list[Item], Field(min_length=1, max_length=ITEMS_MAX), FailFast()]
    """Spends, grants and reversals, of any users."""


class ItemError(BaseModel):
    """Why an item was refused: what the endpoint for this item alone would answer."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    error_type: str
    """For programs."""
    message: str
    """For people. More fields may follow, as `available` of `INSUFFICIENT_CREDITS`."""


class ItemOut(BaseModel):
    """What became of an item: a result or an error."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    status: Annotated[int, Field(description="What the endpoint for this item alone would answer.")]
    replayed: bool = False
    """Whether the key was used before, so that nothing was done now."""
    result: ReversalOut | ResultOut | None = None
    """What was done; null where the item was refused."""
    error: ItemError | None = None
    """Why it was refused; null where it was done."""

    @classmethod
    def refused(cls, status: int, error_type: str, message: str, **details: Any) -> "ItemOut":
        """An item that was not done."""
        error = ItemError(error_type=error_type, message=message, **details)
        return cls(status=status, error=error)


class BatchOut(BaseModel):
    """What became of each item."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    results: list[ItemOut]
    """In the order of the items."""
