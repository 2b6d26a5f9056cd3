"""Bodies of the batch endpoint: many spends and grants, independent of each other."""

import uuid
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, StrictStr

from src.api.src.schemas.bodies import Body
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
    user_id: uuid.UUID
    idempotency_key: Key


class GrantItem(GrantIn):
    """Give a user credits."""

    operation: Literal["grant"]
    user_id: uuid.UUID
    idempotency_key: Key


Item = Annotated[SpendItem | GrantItem, Field(discriminator="operation")]


class BatchIn(Body):
    """Up to 1,000 operations; of those that are wrong the first is told."""

    items: Annotated[list[Item], Field(min_length=1, max_length=ITEMS_MAX), FailFast()]


class ItemError(BaseModel):
    """Why an item was refused, as the endpoint for it alone would say."""

    model_config = ConfigDict(extra="allow")

    error_type: str
    message: str


class ItemOut(BaseModel):
    """What became of an item: a result or an error."""

    status: Annotated[int, Field(description="As of the endpoint for this item alone.")]
    replayed: bool = False
    result: ResultOut | None = None
    error: ItemError | None = None

    @classmethod
    def refused(cls, status: int, error_type: str, message: str, **details: Any) -> "ItemOut":
        """An item that was not done."""
        error = ItemError(error_type=error_type, message=message, **details)
        return cls(status=status, error=error)


class BatchOut(BaseModel):
    """What became of each item, in their order."""

    results: list[ItemOut]
