"""What a report's columns are called, hold and mean. The names never change."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Holds(StrEnum):
    """What is in a column's cells; any cell may be empty."""

    TEXT = "text"
    INTEGER = "integer"
    INSTANT = "instant"


@dataclass(frozen=True)
class Column:
    """One column of a report."""

    name: str
    holds: Holds
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A report: its columns, and its rows in their order."""

    columns: tuple[Column, ...]
    rows: Iterator[tuple[Any, ...]]
    """Read while they are iterated, where there may be many."""


def text(name: str, meaning: str) -> Column:
    """A column of words or ids."""
    return Column(name, Holds.TEXT, meaning)


def integer(name: str, meaning: str) -> Column:
    """A column of whole numbers: credits, or cents where its name says so."""
    return Column(name, Holds.INTEGER, meaning)


def instant(name: str, meaning: str) -> Column:
    """A column of instants, in UTC."""
    return Column(name, Holds.INSTANT, meaning)
