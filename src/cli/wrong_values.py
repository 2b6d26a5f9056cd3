"""What is wrong with a value on the command line, in the words of whoever typed it."""

from collections.abc import Mapping
from typing import Any

from typer import BadParameter

_SENTENCES = {
    "int_parsing": "{input!r} is no whole number.",
    "int_parsing_size": "{input!r} has too many digits.",
    "float_parsing": "{input!r} is no number.",
    "uuid_parsing": "{input!r} is no UUID.",
    "greater_than_equal": "must be {ge} or more.",
    "less_than_equal": "must be {le} or less.",
    "value_error": "{error}",
}
"""By pydantic's types of errors, whose own sentences speak of input and parsing."""


def sentence_of(error: BadParameter) -> str:
    """The sentence to say of it; typer's own, where it is none of pydantic's."""
    from pydantic import ValidationError  # typer has loaded it by then

    found = error.__cause__
    if not isinstance(found, ValidationError):
        return error.message
    return " ".join(_sentence(each) for each in found.errors())


def _sentence(error: Mapping[str, Any]) -> str:
    sentence = _SENTENCES.get(error["type"], "{msg}")
    return sentence.format(**{**error, **error.get("ctx", {})})
