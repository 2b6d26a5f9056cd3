"""Form bodies and query strings with brackets: `line_items[0][price_data][currency]=usd`."""

import re
from typing import Any, cast
from urllib.parse import parse_qsl

from src.offline_stripe.errors import invalid

FIELDS_MAX = 5_000
_KEY = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_SEGMENT = re.compile(r"\[([^\[\]]*)\]")


def parse_form(text: str) -> dict[str, Any]:
    """Nested dictionaries; a list is one whose keys are numbers, in order.

    Raises:
        StripeError: a key that is no such path, or is both a value and more.
    """
    form: dict[str, Any] = {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict")
    except ValueError:
        raise invalid("The form is not UTF-8, or has too many fields") from None
    for key, value in pairs:
        _put(form, key, value)
    return form


def _put(form: dict[str, Any], key: str, value: str) -> None:
    match = _KEY.fullmatch(key)
    if match is None:
        raise invalid(f"Invalid parameter name: {key}", key)
    *parents, last = [match[1], *_SEGMENT.findall(match[2])]
    place = form
    for parent in parents:
        found = place.setdefault(parent or str(len(place)), {})
        if not isinstance(found, dict):
            raise invalid(f"Invalid parameter: {key} is both a value and more", key)
        place = cast("dict[str, Any]", found)
    place[last or str(len(place))] = value
