"""Lists: newest first, in pages, filtered; and objects put in the place of their ids (`expand`)."""

import copy
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from src.offline_stripe.account import Account, Object
from src.offline_stripe.errors import invalid, missing_object
from src.offline_stripe.keys import check_reading

LIMIT_DEFAULT = 10
LIMIT_MAX = 100
EXPAND_DEPTH_MAX = 4
_COMPARISONS = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
_REFERENCES = ("charge", "customer", "invoice", "payment_intent")
"""Filters that name an object; they are called as its kind."""
_PAGING = ("limit", "starting_after", "ending_before", "expand")

Included = Callable[[Account, Object], Object]


def list_of(objects: Iterable[Object], url: str, *, has_more: bool = False) -> Object:
    """The list object."""
    return {"object": "list", "data": list(objects), "has_more": has_more, "url": url}


def page(objects: Iterable[Object], parameters: Mapping[str, Any], url: str) -> Object:
    """The asked-for page of objects that come oldest first.

    Raises:
        StripeError: a limit outside 1 to 100, or a cursor that is in no such list.
    """
    newest_first = [each for each in list(objects)[::-1] if not each.get("deleted")]
    limit = parameters.get("limit", LIMIT_DEFAULT)
    if not 1 <= limit <= LIMIT_MAX:
        raise invalid(f"Invalid limit: must be between 1 and {LIMIT_MAX}", "limit")
    after, before = parameters.get("starting_after"), parameters.get("ending_before")
    if after and before:
        raise invalid("You may only specify one of starting_after and ending_before")
    if before is not None:
        newer = newest_first[: _position(newest_first, before, "ending_before")]
        return list_of(newer[-limit:], url, has_more=len(newer) > limit)
    if after is not None:
        newest_first = newest_first[_position(newest_first, after, "starting_after") + 1 :]
    return list_of(newest_first[:limit], url, has_more=len(newest_first) > limit)


def check_references(account: Account, parameters: Mapping[str, Any]) -> None:
    """Refuse a list that is filtered by an object which is not there, as Stripe does.

    Raises:
        StripeError: 400 resource_missing.
    """
    for name, wanted in parameters.items():
        if isinstance(wanted, dict):
            check_references(account, cast("Mapping[str, Any]", wanted))
        elif name in _REFERENCES and wanted and account.find(name, wanted) is None:
            raise missing_object(name, wanted, name)


def _position(objects: list[Object], object_id: str, param: str) -> int:
    for number, each in enumerate(objects):
        if each["id"] == object_id:
            return number
    raise invalid(f"No such object: '{object_id}'", param, "resource_missing")


def matches(obj: Object, parameters: Mapping[str, Any]) -> bool:
    """Whether every filter that names a field of the object agrees with it."""
    return all(
        _agrees(obj.get(name), wanted) for name, wanted in parameters.items() if name not in _PAGING
    )


def _agrees(value: Any, wanted: Any) -> bool:
    if not isinstance(wanted, dict):
        return bool(value == wanted)
    bounds = cast("dict[str, Any]", wanted)
    if isinstance(value, dict):
        return all(_agrees(value.get(name), each) for name, each in bounds.items())
    if value is None:
        return False
    return all(_COMPARISONS[name](value, bound) for name, bound in bounds.items())


def rendered(
    account: Account,
    obj: Object,
    paths: Iterable[str],
    included: Mapping[tuple[str, str], Included],
) -> Object:
    """A copy of the object with the named properties expanded.

    Raises:
        StripeError: a property that cannot be expanded.
    """
    copied = copy.deepcopy(obj)
    for path in paths:
        names = path.split(".")
        if len(names) > EXPAND_DEPTH_MAX + (names[0] == "data"):
            raise invalid("You cannot expand more than 4 levels of a property", "expand")
        _expand(account, copied, names, included, path)
    return copied


def _expand(
    account: Account,
    place: Any,
    names: list[str],
    included: Mapping[tuple[str, str], Included],
    path: str,
) -> None:
    if not names:
        return
    if isinstance(place, list):
        for each in cast("Iterable[Any]", place):
            _expand(account, each, names, included, path)
        return
    if not isinstance(place, dict):
        return
    obj = cast("Object", place)
    name, rest = names[0], names[1:]
    include = included.get((str(obj.get("object")), name))
    if include is not None:
        obj[name] = include(account, obj)
    elif name not in obj:
        raise invalid(f"This property cannot be expanded ({path}).", "expand")
    value = obj[name]
    if isinstance(value, str):
        found = account.anything(value)
        if found is None:
            raise invalid(f"This property cannot be expanded ({path}).", "expand")
        check_reading(account, found["object"])
        obj[name] = copy.deepcopy(found)
    elif isinstance(value, list) and not rest:
        obj[name] = [_whole(account, each) for each in cast("Iterable[Any]", value)]
    _expand(account, obj[name], rest, included, path)


def _whole(account: Account, value: Any) -> Any:
    found = account.anything(value) if isinstance(value, str) else None
    if found is None:
        return value
    check_reading(account, found["object"])
    return copy.deepcopy(found)
