"""Compare an object with the type that Stripe publishes for it in its library."""

import builtins
import types
import typing
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, cast

import stripe
from stripe import _object_classes  # the library's own table of kinds
from stripe._stripe_object import UntypedStripeObject

SCALARS: dict[Any, tuple[type, ...]] = {
    int: (int,),
    str: (str,),
    bool: (bool,),
    float: (int, float),
    Decimal: (str,),
    Any: (object,),
}


def differences(obj: Mapping[str, Any]) -> list[str]:
    """Where `obj` is not as published: fields missing, unknown, or of another type."""
    shape = _object_classes.get_object_class("V1", obj["object"])
    return _object_differences(obj, shape, obj["object"])


class _Names(dict[str, Any]):
    """Names that the library imports for type checkers only."""

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            raise KeyError(name)
        return getattr(stripe, name.removesuffix("Resource"), Any)


@lru_cache(maxsize=1_000)
def _fields(shape: type) -> dict[str, Any]:
    hints = typing.get_type_hints(shape, localns=_Names())
    return {name: hint for name, hint in hints.items() if not _is_internal(name, hint)}


def _is_internal(name: str, hint: Any) -> bool:
    return name.startswith("_") or name.isupper() or typing.get_origin(hint) is typing.ClassVar


def _object_differences(obj: Any, shape: type, path: str) -> list[str]:
    if not isinstance(obj, dict):
        return [f"{path}: no object"]
    given = cast("dict[str, Any]", obj)
    fields = _fields(shape)
    found = [f"{path}.{name}: unknown" for name in given if name not in fields]
    for name, hint in fields.items():
        inner = f"{path}.{name}"
        if name in given:
            found += _value_differences(given[name], hint, inner)
        elif type(None) not in typing.get_args(hint):
            found.append(f"{inner}: missing")
    return found


def _value_differences(value: Any, hint: Any, path: str) -> list[str]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        tried = [_value_differences(value, each, path) for each in arguments]
        return min(tried, key=len) if all(tried) else []
    if hint is type(None):
        return [] if value is None else [f"{path}: not null"]
    if origin is typing.Literal:
        return [] if value in arguments else [f"{path}: {value!r}"]
    if origin is list or (isinstance(origin, type) and issubclass(origin, stripe.ListObject)):
        items = value if origin is list else value.get("data")
        if not isinstance(items, list):
            return [f"{path}: no list"]
        each_hint = arguments[0] if arguments else Any
        return [
            difference
            for number, each in enumerate(cast("Iterable[Any]", items))
            for difference in _value_differences(each, each_hint, f"{path}[{number}]")
        ]
    if origin in (dict, UntypedStripeObject) or hint is UntypedStripeObject:
        return [] if isinstance(value, dict) else [f"{path}: no object"]
    if isinstance(hint, type) and issubclass(hint, stripe.StripeObject):
        return _object_differences(value, hint, path)
    return _scalar_differences(value, hint, path)


def _scalar_differences(value: Any, hint: Any, path: str) -> list[str]:
    expected = SCALARS[hint]
    is_right = isinstance(value, expected) and (hint is not int or not isinstance(value, bool))
    return [] if is_right else [f"{path}: {value!r} is no {hint}"]
