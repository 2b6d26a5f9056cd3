"""What a report's columns are called, hold and mean. The names never change."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from operator import add
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


def added_up(rows: Iterable[tuple[Any, ...]], *, keys: int) -> list[tuple[Any, ...]]:
    """One row for each of the first `keys` columns' values; whole numbers in the rest are added."""
    sums: dict[tuple[Any, ...], list[int]] = {}
    for row in rows:
        numbers = [int(number) for number in row[keys:]]
        known = sums.setdefault(row[:keys], numbers)
        if known is not numbers:
            known[:] = map(add, known, numbers)
    return [(*key, *numbers) for key, numbers in sums.items()]


def text(name: str, meaning: str) -> Column:
    """A column of words or ids."""
    return Column(name, Holds.TEXT, meaning)


def integer(name: str, meaning: str) -> Column:
    """A column of whole numbers: credits, or cents where its name says so."""
    return Column(name, Holds.INTEGER, meaning)


def instant(name: str, meaning: str) -> Column:
    """A column of instants, in UTC."""
    return Column(name, Holds.INSTANT, meaning)
