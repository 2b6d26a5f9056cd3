"""Parameters of a request, checked against the types that Stripe publishes in its library.

A field that Stripe does not know, a missing one, a word where a number belongs: each is answered as
Stripe answers it, so a mistake in our own requests shows on a developer's machine.
"""

import datetime as dt
import re
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, cast

import typing_extensions
from stripe import RequestOptions, StripeContext
from stripe._stripe_object import UntypedStripeObject

from src.offline_stripe.errors import StripeError, invalid
from src.offline_stripe.formats import check_format

_OPTIONS = frozenset(RequestOptions.__annotations__)
_NAMES = {
    "StripeContext": StripeContext,
    "Mapping": Mapping,
    "Sequence": Sequence,
    "Any": Any,
    "datetime": dt.datetime,
}
_INTEGER = re.compile(r"-?\d{1,18}")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def parse_parameters(form: Mapping[str, Any], shape: type) -> dict[str, Any]:
    """The form in the types of `shape`, one of the library's `…Params`.

    Raises:
        StripeError: naming the parameter.
    """
    return _dictionary(form, shape, "")


@lru_cache(maxsize=1_000)
def _fields(shape: type) -> dict[str, Any]:
    names = dict(_NAMES)
    for base in typing_extensions.get_original_bases(shape):
        names |= vars(sys.modules[base.__module__])
    hints = typing.get_type_hints(shape, localns=names)
    return {name: hint for name, hint in hints.items() if name not in _OPTIONS}


def _dictionary(value: object, shape: type, path: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise invalid(f"Invalid object: {path}", path)
    fields = _fields(shape)
    parsed: dict[str, Any] = {}
    for name, given in cast("Mapping[str, Any]", value).items():
        inner = f"{path}[{name}]" if path else name
        if name not in fields:
            raise invalid(f"Received unknown parameter: {inner}", inner, "parameter_unknown")
        parsed[name] = _value(given, fields[name], inner)
    required: frozenset[str] = vars(shape)["__required_keys__"]
    for name in sorted(required):
        if name in fields and name not in parsed:
            inner = f"{path}[{name}]" if path else name
            raise invalid(f"Missing required param: {inner}.", inner, "parameter_missing")
    return parsed


def _value(value: Any, hint: Any, path: str) -> Any:
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _one_of(value, arguments, path)
    if origin in (list, Sequence):
        return [
            _value(each, arguments[0], f"{path}[{number}]")
            for number, each in enumerate(_list(value, path))
        ]
    if origin is typing.Literal:
        if value not in arguments:
            *words, last = [str(each) for each in arguments]
            known = f"{', '.join(words)}, or {last}" if words else last
            raise invalid(f"Invalid {path}: must be one of {known}", path)
        return value
    if origin in (dict, UntypedStripeObject):
        return _texts(value, path)
    if typing_extensions.is_typeddict(hint):
        return _dictionary(value, hint, path)
    return _scalar(value, hint, path)


def _one_of(value: Any, choices: Sequence[Any], path: str) -> Any:
    """The first of the choices that fits; what is wrong with the last one otherwise."""
    choices = _without_later_words(choices)
    nested = isinstance(value, dict)
    fitting = [each for each in choices if _is_nested(each) is nested] or list(choices)
    for choice in fitting[:-1]:
        try:
            return _value(value, choice, path)
        except StripeError:  # perhaps the next one
            continue
    return _value(value, fitting[-1], path)


def _without_later_words(choices: Sequence[Any]) -> Sequence[Any]:
    """Where words are listed, only these: the library adds `str` for those of later versions."""
    listed = [each for each in choices if typing.get_origin(each) is typing.Literal]
    if any(word for each in listed for word in typing.get_args(each)):
        return [each for each in choices if each is not str]
    return choices


def _is_nested(hint: Any) -> bool:
    return typing.get_origin(hint) in (
        list,
        dict,
        Sequence,
        UntypedStripeObject,
    ) or typing_extensions.is_typeddict(hint)


def _list(value: Any, path: str) -> list[Any]:
    if not isinstance(value, dict):
        raise invalid(f"Invalid array: {path}", path)
    return list(cast("dict[str, Any]", value).values())


def _texts(value: Any, path: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise invalid(f"Invalid object: {path}", path)
    texts = cast("dict[str, Any]", value)
    for name, text in texts.items():
        if not isinstance(text, str):
            raise invalid(f"Invalid string: {path}[{name}]", f"{path}[{name}]")
    return texts


def _scalar(value: Any, hint: Any, path: str) -> Any:
    if not isinstance(value, str):
        raise invalid(f"Invalid {getattr(hint, '__name__', 'value')}: {path}", path)
    if hint is bool:
        return _boolean(value, path)
    if hint is int:
        if not _INTEGER.fullmatch(value):
            raise invalid(f"Invalid integer: {value}", path, "parameter_invalid_integer")
        return int(value)
    if hint in (float, Decimal):
        try:
            number = Decimal(value)
        except InvalidOperation:
            raise invalid(f"Invalid decimal: {value}", path) from None
        if not number.is_finite():
            raise invalid(f"Invalid decimal: {value}", path)
        return float(number) if hint is float else value
    if hint is str:
        check_format(value, path)
    if not value:
        raise invalid(
            f"You passed an empty string for '{path}'. We assume empty values are an attempt to "
            f"unset a parameter; however '{path}' cannot be unset.",
            path,
            "parameter_invalid_empty",
        )
    return value


def _boolean(value: str, path: str) -> bool:
    if value not in _BOOLEANS:
        raise invalid(f"Invalid boolean: {value}", path)
    return _BOOLEANS[value]
