"""What arguments of the ledger's operations must be: a wrong one is refused by its name.

Nothing is converted: a UUID as text, a number as text, `True` for 1 are mistakes that would show
later and elsewhere.
"""

import datetime as dt
import json
import re
import uuid
from collections.abc import Collection, Iterable, Mapping
from typing import cast

from src.common.exceptions import Invalid

NUMBER_MAX = 2**31 - 1
"""The largest number a column holds."""
METADATA_BYTES_MAX = 16 * 1024
METADATA_DEPTH_MAX = 32
"""Deeper documents are refused while every encoder on their way still reads them."""
_NOT_STORED = re.compile("[\x00\ud800-\udfff]")


def invalid(name: str, problem: str) -> Invalid:
    """The refusal of the argument `name`."""
    return Invalid(f"{name}: {problem}", "VALIDATION_ERROR", field=name)


def check_user_id(user_id: object, name: str = "user_id") -> None:
    """A UUID, of whichever class a driver has for them.

    Raises:
        Invalid: VALIDATION_ERROR, as all here.
    """
    if not isinstance(user_id, uuid.UUID):
        raise invalid(name, f"must be a UUID, not {_type_of(user_id)}")


def check_user_ids(user_ids: object) -> list[uuid.UUID]:
    """Several users, in a list."""
    try:
        given = list(cast("Iterable[uuid.UUID]", user_ids))
    except TypeError:
        raise invalid("user_ids", f"must be several UUIDs, not {_type_of(user_ids)}") from None
    for each in given:
        check_user_id(each, "user_ids")
    return given


def check_integer(name: str, value: object) -> int:
    """Strictly an integer: no float, no boolean."""
    if type(value) is not int:
        raise invalid(name, f"must be an integer, not {_type_of(value)}")
    return value


def check_number(name: str, value: object, greatest: int = NUMBER_MAX) -> None:
    """An integer of 1 or more."""
    if not 1 <= check_integer(name, value) <= greatest:
        raise invalid(name, f"must be 1 to {greatest}")


def check_text(name: str, text: object, length_max: int) -> None:
    """Text that the database stores as it is."""
    if not isinstance(text, str):
        raise invalid(name, f"must be text, not {_type_of(text)}")
    is_stored = text.isprintable() or not _NOT_STORED.search(text)  # the first costs little
    if not 1 <= len(text) <= length_max or not is_stored:
        raise invalid(
            name,
            f"must be 1 to {length_max} characters long, no NUL or half a character among them",
        )


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """One of these texts, or of an enumeration of them."""
    if not isinstance(value, str) or value not in choices:
        raise invalid(name, f"must be one of {', '.join(sorted(choices))}")


def check_instant(name: str, instant: object) -> dt.datetime:
    """An instant, in whatever time zone, but in one."""
    if not isinstance(instant, dt.datetime):
        raise invalid(name, f"must be a datetime, not {_type_of(instant)}")
    if instant.utcoffset() is None:
        raise invalid(name, "must have a time zone")
    return instant


def check_metadata(metadata: object) -> None:
    """A JSON object, within bounds."""
    if not isinstance(metadata, Mapping):
        raise invalid("metadata", f"must be an object, not {_type_of(metadata)}")
    document = cast("Mapping[object, object]", metadata)
    if _is_deeper(document, METADATA_DEPTH_MAX):
        raise invalid("metadata", f"must be nested at most {METADATA_DEPTH_MAX} deep")
    try:
        written = json.dumps(dict(document), ensure_ascii=False, allow_nan=False)
        size = len(written.encode())
    except (TypeError, ValueError):  # half a character is a ValueError too
        raise invalid("metadata", "must be JSON") from None
    if size > METADATA_BYTES_MAX or "\\u0000" in written:
        raise invalid("metadata", f"must be at most {METADATA_BYTES_MAX} bytes, without NUL")


def _is_deeper(value: object, depth: int) -> bool:
    """Whether lists and objects are nested more than `depth` deep."""
    if isinstance(value, Mapping):
        inner: Iterable[object] = cast("Mapping[object, object]", value).values()
    elif isinstance(value, list | tuple):
        inner = cast("Iterable[object]", value)
    else:
        return False
    return depth == 0 or any(_is_deeper(each, depth - 1) for each in inner)


def _type_of(value: object) -> str:
    return type(value).__name__
