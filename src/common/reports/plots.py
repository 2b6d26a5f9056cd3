"""Draws figures as SVG, where matplotlib is installed: lines over time, or bars side by side.

Of one period there is no line to draw: then it is how its value came about, in bars.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from src.common.exceptions import SettingsError
from src.common.reports.columns import Column
from src.html_pages import DECIMALS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Told apart by the colour-blind too (Okabe and Ito), on the white that the picture brings."""
_BARS_WIDTH = 0.8
_INCH_PX = 96


@dataclass(frozen=True, kw_only=True)
class Panel:
    """What is drawn on one pair of axes: a line, or a colour of bars, for each series."""

    value: str
    series: tuple[str, ...]
    label: str
    parts: Mapping[str, int] = field(default_factory=dict[str, int])
    """Columns that say how the value came about, and with which sign: drawn of a single period."""
    is_money: bool = False
    """Whether the values are in a currency's smallest unit, drawn as its whole ones. Then the
    series are by currency, and rows without one are left out."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """What of a report is drawn."""

    title: str
    panels: tuple[Panel, ...]
    categories: tuple[str, tuple[str, ...]] | None = None
    """A column and its values in their order, to draw bars for; None is lines over time."""


@dataclass(frozen=True)
class Picture:
    """Where a picture goes, and how large it is."""

    file: IO[bytes]
    """Open, in binary."""
    width_px: int = 960
    """In the pixels of CSS, of which an inch has 96; the height likewise."""
    height_px: int = 384


def draw(
    plot: Plot,
    columns: tuple[Column, ...],
    rows: Iterable[tuple[Any, ...]],
    picture: Picture,
    *,
    zone: dt.tzinfo,
) -> None:
    """Draw it.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
        from matplotlib.ticker import StrMethodFormatter
    except ImportError:
        raise SettingsError(
            "--svg draws with matplotlib, which is not installed: `uv pip install matplotlib`"
        ) from None
    names = [column.name for column in columns]
    records = [dict(zip(names, row, strict=True)) for row in rows]
    with mpl.rc_context(
        {
            "svg.hashsalt": "flashslides",
            "svg.fonttype": "none",
            "font.size": 10,
            "date.converter": "concise",
        }
    ):
        inches = (picture.width_px / _INCH_PX, picture.height_px / _INCH_PX)
        figure = Figure(figsize=inches, layout="constrained")
        figure.suptitle(plot.title)
        for place, panel in enumerate(plot.panels, start=1):
            axes = figure.add_subplot(1, len(plot.panels), place)
            axes.set_prop_cycle(color=_COLORS)
            axes.set_ylabel(panel.label)
            if plot.categories is not None:
                _draw_bars(axes, panel, records, *plot.categories)
            elif len({cells["period_end"] for cells in records}) == 1:
                _draw_parts(axes, panel, records, zone)
            else:
                _draw_lines(axes, panel, records, zone)
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
            axes.update_datalim([(0, 0)], updatex=False)  # so that heights can be compared
            axes.autoscale_view()
            axes.set_axisbelow(True)
            axes.grid(visible=True, axis="y", alpha=0.3)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        figure.savefig(picture.file, format="svg", metadata={"Date": None})


def _draw_lines(
    axes: "Axes", panel: Panel, records: Iterable[dict[str, Any]], zone: dt.tzinfo
) -> None:
    """A point at each period's end."""
    lines: defaultdict[str, list[tuple[dt.datetime, float]]] = defaultdict(list)
    for cells in records:
        lines[_series(panel, cells)].append(
            (cells["period_end"].astimezone(zone), _value(panel, cells, panel.value))
        )
    for name, points in sorted(lines.items()):
        ends: Any = [end for end, _ in points]
        axes.plot(ends, [value for _, value in points], marker="o", label=name)
    axes.set_xlabel(f"end of the period, {zone}")


def _draw_parts(
    axes: "Axes", panel: Panel, records: Sequence[dict[str, Any]], zone: dt.tzinfo
) -> None:
    """What was there at first and at last, and in between what came in (+) and went out (-)."""
    names = [name for name in panel.parts if any(cells[name] for cells in records)]
    heights: defaultdict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(names, 0))
    for cells in records:
        for name in names:
            heights[_series(panel, cells)][name] += panel.parts[name] * _value(panel, cells, name)
    labels = [name.removesuffix("_cents").replace("_", "\n") for name in names]
    _draw_beside(axes, labels, heights)
    axes.axhline(0, color="black", linewidth=0.8)
    start, end = (records[0][column].astimezone(zone) for column in ("period_start", "period_end"))
    axes.set_xlabel(f"from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}, {zone}")
    axes.set_ylabel("in the currency" if panel.is_money else "credits")


def _draw_bars(
    axes: "Axes",
    panel: Panel,
    records: Iterable[dict[str, Any]],
    column: str,
    categories: Sequence[str],
) -> None:
    """A group of bars for each category."""
    heights: defaultdict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(categories, 0))
    for cells in records:
        if not panel.is_money or cells["currency"] is not None:
            heights[_series(panel, cells)][cells[column]] += _value(panel, cells, panel.value)
    _draw_beside(axes, categories, heights)
    axes.set_xlabel(column.replace("_", " in "))


def _draw_beside(
    axes: "Axes", labels: Sequence[str], heights: Mapping[str, Mapping[str, float]]
) -> None:
    """Bars beside each other at each label, a colour a series: no two currencies are stacked."""
    width = _BARS_WIDTH / max(len(heights), 1)
    for number, (name, values) in enumerate(sorted(heights.items())):
        begin = number * width - (_BARS_WIDTH - width) / 2
        places = [place + begin for place in range(len(labels))]
        axes.bar(places, list(values.values()), width, label=name)
    axes.set_xticks(range(len(labels)), labels=labels)


def _series(panel: Panel, cells: dict[str, Any]) -> str:
    return " ".join(str(cells[part]) for part in panel.series if cells[part] is not None)


def _value(panel: Panel, cells: dict[str, Any], column: str) -> float:
    value: int = cells[column]
    return value / 10 ** DECIMALS.get(cells["currency"], 2) if panel.is_money else value
