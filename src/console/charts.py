"""Charts: figures that a page draws with Chart.js, and always writes as a table as well."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, TypeAlias

Figure: TypeAlias = float | Decimal
"""Money is a decimal number, with as many decimals as its currency has: the table writes them."""


@dataclass(frozen=True)
class Series:
    """A line, or a colour of bars: a name, and a figure for each of the chart's labels."""

    name: str
    values: Sequence[Figure | None]
    """None is a gap."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Something that happened, at a label, written beside it."""

    label: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What is drawn and written: `labels` along the axis, `series` over them."""

    title: str
    unit: str
    """What the figures count: credits, events, a currency."""
    labels: Sequence[str]
    series: Sequence[Series]
    kind: Literal["line", "bar"] = "bar"
    is_stacked: bool = False
    marks: Sequence[Mark] = field(default=())
    instants: Sequence[dt.datetime] = field(default=())
    """When each label is, where they are not equally far apart: then the axis is the time."""

    @property
    def rows(self) -> Sequence[tuple[str, Sequence[Figure | None], str]]:
        """The table: each label with its figures, and what happened there."""
        texts: dict[str, list[str]] = {}
        for mark in self.marks:
            texts.setdefault(mark.label, []).append(mark.text)
        return [
            (label, [each.values[index] for each in self.series], "; ".join(texts.get(label, ())))
            for index, label in enumerate(self.labels)
        ]

    @property
    def data(self) -> dict[str, Any]:
        """What the browser draws, as JSON."""
        return {
            "kind": self.kind,
            "isStacked": self.is_stacked,
            "unit": self.unit,
            "labels": list(self.labels),
            "series": [
                {"name": each.name, "values": list(map(_drawn, each.values))}
                for each in self.series
            ],
            "seconds": [instant.timestamp() for instant in self.instants],
            "marks": [{"label": each.label, "text": each.text} for each in self.marks],
        }


def _drawn(value: Figure | None) -> float | None:
    """As JSON has it."""
    return float(value) if isinstance(value, Decimal) else value
