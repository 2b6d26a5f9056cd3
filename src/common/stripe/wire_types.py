"""Types of the values in Stripe's objects, as `wire.py` reads them."""

import datetime as dt
from typing import Annotated, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


class Wire(BaseModel):
    """Reads what it knows of an object, and says nothing of its values in errors."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


def _id_of(value: object) -> object:
    """An object's id, whether Stripe sent the id or, expanded, the object."""
    return cast("dict[str, object]", value).get("id") if isinstance(value, dict) else value


def without_nul(text: str) -> str:
    """PostgreSQL stores no NUL; what has one is like nothing we know, and must not fail."""
    return text.replace("\x00", "\ufffd")


def _instant(seconds: object) -> dt.datetime:
    if isinstance(seconds, dt.datetime):
        return seconds
    try:
        if isinstance(seconds, int):
            return dt.datetime.fromtimestamp(seconds, dt.UTC)
    except (ValueError, OverflowError, OSError):
        pass
    raise ValueError("no Unix time")


Text = Annotated[str, AfterValidator(without_nul)]
Id = Annotated[Text, Field(min_length=1, max_length=255)]
ExpandableId = Annotated[Text | None, BeforeValidator(_id_of)]
Cents = Annotated[int, Field(strict=True)]
UnixTime = Annotated[dt.datetime, BeforeValidator(_instant)]
