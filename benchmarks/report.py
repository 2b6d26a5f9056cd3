"""A run's results: summarised once, printed as tables, kept as JSON."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.contestants.base import Load, Spread
from benchmarks.figures import MedianOf, Summary, summarise
from benchmarks.runner import Measurement, Plan

_WIDTH_MIN = 118


@dataclass(frozen=True)
class Result:
    """Everything one run has to say."""

    title: str
    command: str
    started_at: str
    machine: Mapping[str, str]
    server_settings: Mapping[str, str]
    pool: str
    reference_script: str
    """What pgbench executes, whole."""
    plan: Plan
    reference: str
    """The contestant the others are compared with."""
    measurements: Sequence[Measurement]
    books: Mapping[str, int]
    is_smoke_test: bool


def summaries(result: Result) -> dict[tuple[Load, str], Summary]:
    """Return each contestant's summary under each load, in the order they first ran."""
    runs: dict[tuple[Load, str], list[Measurement]] = {}
    for measured in result.measurements:
        runs.setdefault((measured.load, measured.contestant), []).append(measured)
    return {
        (load, name): summarise(
            [measured.figures for measured in ours],
            [measured.figures for measured in runs[load, result.reference]],
        )
        for (load, name), ours in runs.items()
    }


def write_json(result: Result, path: Path) -> None:
    """Keep the result; latencies only as percentiles."""
    body = asdict(replace(result, measurements=[]))
    body["measurements"] = [
        {
            "contestant": measured.contestant,
            **asdict(measured.load),
            "repetition": measured.repetition,
            "acknowledged": measured.outcome.acknowledged,
            "failures": measured.outcome.failures,
            **asdict(measured.figures),
        }
        for measured in result.measurements
    ]
    body["summaries"] = [
        {"contestant": name, "spread": load.spread, "clients": load.clients, **asdict(summary)}
        for (load, name), summary in summaries(result).items()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def print_result(result: Result) -> None:
    """Print conditions, the SQL, and one table for each way the users are spread."""
    console = Console(highlight=False, markup=False, soft_wrap=False)
    console.width = max(console.width, _WIDTH_MIN)
    console.print(f"{result.title}\n$ {result.command}\n")
    console.print(_facts(result))
    console.print(f"\nThe script of pgbench -M prepared:\n{result.reference_script.rstrip()}")
    for spread in Spread:
        console.print()
        console.print(_table(result, spread))
    console.print(_closing(result))


def _facts(result: Result) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, value in result.machine.items():
        grid.add_row(name, value)
    settings = ", ".join(f"{name}={value}" for name, value in result.server_settings.items())
    grid.add_row("server", settings)
    grid.add_row("async pool", result.pool)
    plan = result.plan
    grid.add_row(
        "run", f"{plan.repeats} repetitions of {plan.seconds} s, {plan.user_count} users, in turns"
    )
    return grid


def _table(result: Result, spread: Spread) -> Table:
    title = "One hot user" if spread is Spread.HOT else "Uniform users"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("clients", justify="right")
    table.add_column("contestant", no_wrap=True)
    for heading in (
        "ratio to pgbench\nmedian (min-max)",
        "operations/s\nmedian (min-max)",
        "p50/p99\nms",
        "client\nCPU µs/op",
        "server\nCPU µs/op",
        "others\ncores",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = [row for row in _sorted_rows(result) if row[0].spread is spread]
    for place, (load, name, summary) in enumerate(rows):
        last_of_load = place + 1 == len(rows) or rows[place + 1][0] != load
        table.add_row(str(load.clients), name, *_cells(summary), end_section=last_of_load)
    return table


def _sorted_rows(result: Result) -> list[tuple[Load, str, Summary]]:
    """Return the rows by load, the reference first."""
    rows = [(load, name, summary) for (load, name), summary in summaries(result).items()]
    loads = list(result.plan.loads)
    return sorted(rows, key=lambda row: (loads.index(row[0]), row[1] != result.reference, row[1]))


def _cells(summary: Summary) -> tuple[str, ...]:
    is_reference = summary.ratio.least == summary.ratio.greatest == 1
    return (
        "1" if is_reference else _with_range(summary.ratio, ".3f"),
        _with_range(summary.operations_per_second, ",.0f"),
        f"{summary.p50_ms:.2f}/{summary.p99_ms:.2f}",
        f"{summary.client_cpu_us:,.0f}",
        f"{summary.server_cpu_us:,.0f}",
        f"{summary.other_cores:.2f}",
    )


def _with_range(value: MedianOf, format_: str) -> str:
    return f"{value.median:{format_}} ({value.least:{format_}}-{value.greatest:{format_}})"


def _closing(result: Result) -> str:
    refused = Counter[str]()
    for measured in result.measurements:
        refused.update(
            {
                f"{measured.contestant}, {measured.load.spread}, {measured.load.clients} clients: "
                f"{error_type}": count
                for error_type, count in measured.outcome.failures.items()
            }
        )
    books = (
        f"Books: {result.books['acknowledged']:,} operations acknowledged = "
        f"{result.books['rows']:,} rows = {result.books['entries']:,} entries; "
        f"{result.books['credits_added']:,} credits in transactions "
        f"= {result.books['balances']:,} in balances = {result.books['credits_in_entries']:,} in "
        f"entries = {result.books['credits_in_lots']:,} in lots; every user's agree."
    )
    lines = [books, *(f"Refused: {what}: {count}" for what, count in refused.items())]
    if result.is_smoke_test:
        lines.append("A smoke test (--quick): the figures mean nothing.")
    return "\n".join(lines)
