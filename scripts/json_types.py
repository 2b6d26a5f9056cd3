"""JSON Schema's types and bounds, in the words of a table."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

Schema = Mapping[str, Any]

_FORMATS = {"uuid": "UUID", "date-time": "instant"}
_NAMED = re.compile(r'"\$ref": "#/components/schemas/(\w+)"')
_UNIONS = ("anyOf", "oneOf")


def type_of(schema: Schema, word: Callable[[str], str]) -> str:
    """A type with its bounds, such as `integer, 1 to 200` or `string or null`.

    Args:
        schema: part of an OpenAPI document.
        word: what to write for a schema of this name.
    """
    if "$ref" in schema:
        return word(_target(schema["$ref"]))
    for union in _UNIONS:
        if union in schema:
            members = [type_of(each, word) for each in schema[union]]
            return (", or " if any("," in each for each in members) else " or ").join(members)
    kind = _kind(schema, word)
    return ", ".join([kind, *_bounds(schema)])


def named(schema: Schema) -> list[str]:
    """The schemas that this one names, however deep."""
    return _NAMED.findall(json.dumps(schema))


def _kind(schema: Schema, word: Callable[[str], str]) -> str:
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{each}`" for each in schema["enum"])
    kind: str = schema["type"]
    if kind == "array":
        return f"list of {type_of(schema['items'], word)}"
    values: Any = schema.get("additionalProperties")
    if kind == "object" and isinstance(values, dict):
        return f"object of {type_of(cast('Schema', values), word)}"
    return _FORMATS.get(schema.get("format", ""), kind)


def _bounds(schema: Schema) -> Iterator[str]:
    """Bounds, both ends included."""
    least = schema.get("minimum", _shifted(schema.get("exclusiveMinimum"), 1))
    greatest = schema.get("maximum", _shifted(schema.get("exclusiveMaximum"), -1))
    yield from _range(least, greatest)
    for ends, unit in (("Length", "characters"), ("Items", "items")):
        for each in _range(schema.get(f"min{ends}"), schema.get(f"max{ends}")):
            yield f"{each} {unit}"
    if "pattern" in schema:
        yield f"`{schema['pattern']}`"


def _range(least: float | None, greatest: float | None) -> Iterator[str]:
    if least is not None and greatest is not None:
        yield f"{least:,.0f} to {greatest:,.0f}"
    elif least is not None:
        yield f"at least {least:,.0f}"
    elif greatest is not None:
        yield f"at most {greatest:,.0f}"


def _shifted(bound: float | None, by: int) -> float | None:
    return None if bound is None else bound + by


def _target(reference: str) -> str:
    return reference.rpartition("/")[2]
