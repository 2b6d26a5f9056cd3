"""The curves of a run as SVG: throughput and latency against callers, and growth."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.contestants.base import Spread
from benchmarks.figures import Summary
from benchmarks.growth import Growth
from benchmarks.results import Measured

if TYPE_CHECKING:
    from matplotlib.lines import Line2D


_WIDTH_INCHES = 5
"""Letters of 9 points are 7 wide on a telephone."""
_NO_CURVE = ("http-", "start-up-", "verify", "reconcile", "backlog")
"""Who is measured with one number of callers, or is another kind of thing."""


def draw(measured: Measured, growth: Growth, folder: Path) -> list[Path]:
    """Write the files; those without a single point are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn: list[Path] = []
    with mpl.rc_context({"svg.hashsalt": "flashslides", "svg.fonttype": "none", "font.size": 9}):
        for name, label, value in (
            ("throughput", "operations a second", _rate),
            ("latency-p99", "p99, ms", _p99),
        ):
            path = folder / f"{name}.svg"
            if _against_callers(measured, label, value, path):
                drawn.append(path)
        if growth.by_rows:
            path = folder / "growth.svg"
            _growth(growth, path)
            drawn.append(path)
    return drawn


def _rate(summary: Summary) -> float:
    return summary.operations_per_second.median


def _p99(summary: Summary) -> float:
    return summary.p99_ms


def _against_callers(
    measured: Measured, label: str, value: Callable[[Summary], float], path: Path
) -> bool:
    figure = Figure(figsize=(_WIDTH_INCHES, 8), layout="constrained")
    lines: dict[str, Line2D] = {}
    """One of each contestant, for the legend; both halves have its colour."""
    for place, spread in enumerate(Spread, start=1):
        axes = figure.add_subplot(2, 1, place)
        for contestant, points in _points(measured, spread, value).items():
            color = lines[contestant].get_color() if contestant in lines else f"C{len(lines)}"
            x, y = zip(*sorted(points.items()), strict=True)
            (line,) = axes.plot(x, y, marker="o", color=color, label=contestant)
            lines.setdefault(contestant, line)
        axes.set_title("one hot user" if spread is Spread.HOT else "uniform users")
        _label(axes, "callers", label)
    if lines:
        figure.legend(handles=[*lines.values()], loc="outside lower center", ncols=2)
        _save(figure, path)
    return bool(lines)


def _points(
    measured: Measured, spread: Spread, value: Callable[[Summary], float]
) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for case in measured.cases():
        is_plain = case.processes == 1 and not case.flush_delay_us
        if case.spread is spread and is_plain and not case.contestant.startswith(_NO_CURVE):
            points = found.setdefault(case.contestant, {})
            points[case.callers] = value(measured.summary(case))
    return found


def _growth(growth: Growth, path: Path) -> None:
    figure = Figure(figsize=(_WIDTH_INCHES, 4), layout="constrained")
    axes = figure.add_subplot()
    for question, sizes in growth.by_rows.items():
        rows = sorted(sizes)
        latencies = [sorted(each.p50_ms for each in sizes[size]) for size in rows]
        medians = [each[len(each) // 2] for each in latencies]
        axes.plot(rows, medians, marker="o", label=question)
    _label(axes, "entries in the ledger", "p50, ms")
    figure.legend(loc="outside lower center", ncols=2)
    _save(figure, path)


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, which="major", alpha=0.3)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="svg", metadata={"Date": None})
