"""Pages of Stripe's lists as they came, and our readings of its objects.

Making the library's own objects of a page takes longer than all else that is done with it.
"""

import datetime as dt
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError

from src.common.stripe.gateway_errors import UnreadableObject

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Window:
    """A stretch of time at Stripe: from (inclusive) to (exclusive)."""

    since: dt.datetime
    until: dt.datetime

    @property
    def created(self) -> dict[str, int]:
        """As Stripe's lists take it."""
        return {"gte": int(self.since.timestamp()), "lt": int(self.until.timestamp())}


@dataclass(frozen=True)
class Listed(Generic[M]):
    """An object of a list, not read yet: one that cannot be keeps nobody from the others."""

    object_id: str
    """Its id at Stripe."""
    event_type: str
    """Of an event its type; else empty."""
    found: msgspec.Raw
    """As Stripe has it, in JSON: a part of its page's text, which is not copied."""
    model: type[M]

    @property
    def body(self) -> bytes:
        """A copy of that."""
        return bytes(self.found)

    def read(self) -> M:
        """Our reading of it.

        Raises:
            UnreadableObject: it is not as Stripe's are.
        """
        return read_object(self.model, self.body)


def objects_of(page: str | bytes, model: type[M]) -> list[Listed[M]]:
    """The objects of a page, which is JSON.

    Raises:
        UnreadableObject: it is no list of objects with an id.
    """
    try:
        return [_listed(each, model) for each in _LIST.decode(page).data]
    except msgspec.DecodeError:
        raise UnreadableObject(f"Stripe answered no list of {model.__name__}") from None


def readable(listed: Iterable[Listed[M]]) -> Iterable[M]:
    """Our readings of those that can be read, one after the other.

    An object takes several times as much memory as its text: of a page none is kept.
    """
    for each in listed:
        with suppress(UnreadableObject):
            yield each.read()


def read_object(model: type[M], found: Mapping[str, Any] | bytes) -> M:
    """Our reading of one of Stripe's objects, or of its JSON.

    Raises:
        UnreadableObject: it is not as Stripe's are.
    """
    try:
        if isinstance(found, bytes):
            return model.model_validate_json(found)
        return model.model_validate(found)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, each["loc"])) for each in error.errors())
        raise UnreadableObject(f"Stripe answered a {model.__name__} without {fields}") from None


class _Head(msgspec.Struct):
    id: str
    type: object = None


class _List(msgspec.Struct):
    data: list[msgspec.Raw]


_LIST = msgspec.json.Decoder(_List)
_HEAD = msgspec.json.Decoder(_Head)


def _listed(found: msgspec.Raw, model: type[M]) -> Listed[M]:
    head = _HEAD.decode(found)
    return Listed(head.id, str(head.type or ""), found, model)
