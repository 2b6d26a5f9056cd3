"""Draws figures over time as SVG, where matplotlib is installed."""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Any

from src.common.exceptions import SettingsError
from src.common.reports.columns import Column
from src.html_pages import DECIMALS

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Told apart by the colour-blind too (Okabe and Ito), on the white that the picture brings."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """What of a report is drawn: a line for each series, a point at each period's end."""

    value: str
    series: tuple[str, ...]
    label: str
    is_money: bool = False
    """Whether the values are money in the smallest unit, drawn in units of the row's currency."""


def draw(
    plot: Plot,
    columns: tuple[Column, ...],
    rows: Iterable[tuple[Any, ...]],
    file: IO[bytes],
    *,
    zone: dt.tzinfo,
) -> None:
    """Write the picture.

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
    lines: defaultdict[str, list[tuple[dt.datetime, float]]] = defaultdict(list)
    for row in rows:
        cells = dict(zip(names, row, strict=True))
        name = " ".join(str(cells[part]) for part in plot.series if cells[part] is not None)
        value = cells[plot.value]
        if plot.is_money:
            value /= 10 ** DECIMALS.get(cells["currency"], 2)
        lines[name].append((cells["period_end"].astimezone(zone), value))
    with mpl.rc_context(
        {
            "svg.hashsalt": "flashslides",
            "svg.fonttype": "none",
            "font.size": 9,
            "date.converter": "concise",
        }
    ):
        figure = Figure(figsize=(10, 4), layout="constrained")
        axes = figure.add_subplot()
        axes.set_prop_cycle(color=_COLORS)
        for name, points in sorted(lines.items()):
            ends: Any = [end for end, _ in points]
            axes.plot(ends, [value for _, value in points], marker="o", label=name)
        axes.set_ylabel(plot.label)
        axes.set_xlabel("end of the period")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
        axes.update_datalim([(0, 0)], updatex=False)  # so that heights can be compared
        axes.autoscale_view()
        axes.grid(visible=True, alpha=0.3)
        if lines:
            figure.legend(loc="outside right center")
        figure.savefig(file, format="svg", metadata={"Date": None})
