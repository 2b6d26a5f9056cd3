"""A run's results: printed as tables, kept as JSON."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.contestants.base import Spread
from benchmarks.contestants.scripts import DOCUMENT_SQL, SAME_ROWS
from benchmarks.figures import MedianOf, PerRepetition
from benchmarks.growth import Growth
from benchmarks.plan import AGAINST, DESCRIPTIONS, Sizes
from benchmarks.required import Checked, checked
from benchmarks.results import Case, Measured, case_of
from benchmarks.runner import Measurement

RESULTS = Path(__file__).resolve().parent / "results"
"""Where results go that nobody named a place for."""
_WIDTH_MIN = 146
_HTTP = "http-"
_WEBHOOK = "http-webhook"
_ALONE = ("start-up-", "verify", "reconcile", "backlog")
"""One process, which nobody calls."""


@dataclass(frozen=True)
class Workdone:
    """What the books said at the end."""

    acknowledged: int
    verified_users: int
    crossing_share: float
    """Of our spends, how many drew on more than one lot."""


@dataclass(frozen=True)
class Result:
    """Everything one run has to say."""

    command: str
    started_at: str
    machine: Mapping[str, str]
    server_settings: Mapping[str, str]
    pool: str
    sizes: Sizes
    absent: Sequence[str]
    """Contestants this checkout or environment does not have, and why."""
    failed: Mapping[str, str]
    """Those that ended without a result, and how: they have no figures."""
    loop_cpu_us: float
    """What the worker's own loop costs for an operation, part of every Python figure."""
    measurements: Sequence[Measurement]
    growth: Growth
    books: Workdone

    @property
    def measured(self) -> Measured:
        """The measurements by case."""
        return Measured(self.measurements)

    @property
    def checked(self) -> list[Checked]:
        """What is required beside what was measured."""
        return checked(self.measured, self.growth)


def write_json(result: Result, path: Path) -> None:
    """Keep the result; latencies only as percentiles."""
    body = {
        "command": result.command,
        "started_at": result.started_at,
        "machine": dict(result.machine),
        "server_settings": dict(result.server_settings),
        "pool": result.pool,
        "sizes": asdict(result.sizes),
        "absent": list(result.absent),
        "failed": dict(result.failed),
        "loop_cpu_us": result.loop_cpu_us,
        "books": asdict(result.books),
        "scripts": {"document-sql": DOCUMENT_SQL, "same-rows": SAME_ROWS},
        "measurements": plain(result.measurements),
        "growth": asdict(result.growth),
        "required": [asdict(each) for each in result.checked],
    }
    write_body(body, path)


def plain(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Return the measurements as JSON takes them."""
    return [
        {
            **asdict(case_of(each.contestant, each.load)),
            "users": each.load.user_count,
            "repetition": each.repetition,
            "acknowledged": each.acknowledged,
            "unwritten": each.unwritten,
            "failures": dict(each.failures),
            **asdict(each.figures),
        }
        for each in measurements
    ]


def write_body(body: Mapping[str, Any], path: Path) -> None:
    """Write a result's JSON document, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def print_result(result: Result) -> None:
    """Print conditions, the SQL, the tables, and what was required."""
    console = Console(highlight=False, markup=False, soft_wrap=False)
    console.width = max(console.width, _WIDTH_MIN)
    console.print(f"Spending credits, side by side\n$ {result.command}\n")
    console.print(_facts(result))
    for name, script in (("document-sql", DOCUMENT_SQL), ("same-rows", SAME_ROWS)):
        title = f"\n{name}, {DESCRIPTIONS[name]}, -M prepared:"
        console.print(f"{title}\n{script.rstrip()}", soft_wrap=True)
    measured = result.measured
    for title, cases in _sections(measured):
        if cases:
            console.print()
            console.print(_table(measured, title, cases))
    if twins := twins_of(measured):
        console.print()
        console.print(against_table(measured, twins))
    if result.growth.by_rows:
        console.print()
        console.print(_growth_table(result.growth))
    console.print()
    console.print(_required_table(result.checked))
    console.print(_closing(result))


def _facts(result: Result) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, value in result.machine.items():
        grid.add_row(name, value)
    settings = ", ".join(f"{name}={value}" for name, value in result.server_settings.items())
    grid.add_row("server", settings)
    grid.add_row("async pool", result.pool)
    sizes = result.sizes
    grid.add_row(
        "run", f"{sizes.repeats} repetitions of {sizes.seconds:g} s, {sizes.users} users, in turns"
    )
    grid.add_row("worker's loop", f"{result.loop_cpu_us:.1f} µs of CPU for an operation")
    for name, description in DESCRIPTIONS.items():
        if any(each.contestant == name for each in result.measurements):
            grid.add_row(name, description)
    for line in result.absent:
        grid.add_row("absent", line)
    for name in result.failed:
        grid.add_row("failed", f"{name}: it has no figures")
    return grid


def _sections(measured: Measured) -> list[tuple[str, list[Case]]]:
    cases = measured.cases()
    inside = [each for each in cases if not each.contestant.startswith((_HTTP, *_ALONE))]
    over_http = [each for each in cases if each.contestant.startswith(_HTTP)]
    plain = [each for each in inside if not each.flush_delay_us]

    def by_callers(found: list[Case]) -> list[Case]:
        return sorted(found, key=lambda each: each.callers)

    return [
        ("Uniform users", by_callers([each for each in plain if each.spread is Spread.UNIFORM])),
        ("One hot user", by_callers([each for each in plain if each.spread is Spread.HOT])),
        (
            "1 ms added to each flush (commit_delay = 1000, commit_siblings = 0)",
            [each for each in inside if each.flush_delay_us],
        ),
        ("Over HTTP", [each for each in over_http if not each.contestant.startswith(_WEBHOOK)]),
        (
            "Stripe's events over HTTP",
            [each for each in over_http if each.contestant.startswith(_WEBHOOK)],
        ),
        ("Commands, worker", [each for each in cases if each.contestant.startswith(_ALONE)]),
    ]


def _table(measured: Measured, title: str, cases: Sequence[Case]) -> Table:
    over_http = cases[0].contestant.startswith(_HTTP)
    reference = "http-echo" if over_http else "document-sql"
    if cases[0].contestant.startswith(_WEBHOOK):
        reference = "http-webhook-echo"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("callers", justify="right")
    table.add_column("contestant", no_wrap=True)
    for heading in (
        f"ratio to {reference}\nmedian (min-max)",
        "operations/s\nmedian (min-max)",
        "p50/p99\nms",
        "client\nCPU µs/op",
        *(("application\nCPU µs/op",) if over_http else ()),
        "server\nCPU µs/op",
        "others\ncores",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for place, case in enumerate(cases):
        last = place + 1 == len(cases) or cases[place + 1].callers != case.callers
        table.add_row(*_cells(measured, case, reference, over_http=over_http), end_section=last)
    return table


def _cells(measured: Measured, case: Case, reference: str, *, over_http: bool) -> tuple[str, ...]:
    summary = measured.summary(case)
    spread = Spread.UNIFORM if over_http else case.spread
    against = Case(
        reference,
        spread,
        case.callers,
        case.processes if over_http else 1,
        case.flush_delay_us,
    )
    ratio = None if case == against else measured.ratio(case, against)
    processes = f", {case.processes} processes" if case.processes > 1 else ""
    hot = ", hot user" if over_http and case.spread is Spread.HOT else ""
    return (
        str(case.callers),
        case.contestant + processes + hot,
        "1" if case == against else _with_range(ratio, ".2f"),
        _with_range(summary.operations_per_second, ",.0f"),
        f"{summary.p50_ms:.2f}/{summary.p99_ms:.2f}",
        f"{summary.client_cpu_us:,.0f}",
        *((f"{summary.application_cpu_us:,.0f}",) if over_http else ()),
        f"{summary.server_cpu_us:,.0f}",
        f"{summary.other_cores:.2f}",
    )


def twins_of(measured: Measured) -> list[tuple[Case, Case]]:
    """Return each case that was measured of another revision too, beside that one."""
    cases = measured.cases()
    pairs = [(each, replace(each, contestant=f"{each.contestant}{AGAINST}")) for each in cases]
    return [pair for pair in pairs if pair[1] in cases]


def against_table(measured: Measured, twins: Sequence[tuple[Case, Case]]) -> Table:
    """Return how ours stand to their twins, within each repetition; empty where both are 0."""
    figures: dict[str, Callable[[PerRepetition], float]] = {
        "operations/s": lambda each: each.operations_per_second,
        "p50": lambda each: each.p50_ms,
        "client CPU": lambda each: each.client_cpu_us,
        "application CPU": lambda each: each.application_cpu_us,
        "server CPU": lambda each: each.server_cpu_us,
        "memory": lambda each: each.peak_mib,
    }
    table = Table(
        title="This checkout ÷ the revision of --against, median (min-max)",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("callers", justify="right")
    table.add_column("contestant", no_wrap=True)
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    for ours, other in twins:
        is_hot = ours.spread is Spread.HOT
        processes = f", {ours.processes} processes" if ours.processes > 1 else ""
        cells = [
            _with_range(measured.ratio(ours, other, figure), ".2f")
            if all(map(figure, measured.of(other) or ()))
            else ""
            for figure in figures.values()
        ]
        name = ours.contestant + processes + (", hot user" if is_hot else "")
        table.add_row(str(ours.callers), name, *cells)
    return table


def _growth_table(growth: Growth) -> Table:
    sizes = sorted(next(iter(growth.by_rows.values())))
    table = Table(title="Growth", title_justify="left", title_style="bold")
    table.add_column("question")
    for rows in sizes:
        table.add_column(f"{rows:,} entries", justify="right")
    table.add_column("most ÷ fewest", justify="right")
    for question, found in growth.by_rows.items():
        is_rate = question == "spend"
        cells = [
            f"{_median([each.operations_per_second for each in found[rows]]):,.0f}/s"
            if is_rate
            else f"{_median([each.p50_ms for each in found[rows]]):.2f} ms"
            for rows in sizes
        ]
        ratio = growth.ratio(
            question,
            (lambda each: each.operations_per_second) if is_rate else (lambda each: each.p50_ms),
        )
        table.add_row(question, *cells, _with_range(ratio, ".2f"))
    for question, repetitions in growth.odd.items():
        p50 = _median([each.p50_ms for each in repetitions])
        table.add_row(question, *[""] * (len(sizes) - 1), f"{p50:.2f} ms", "")
    return table


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _required_table(lines: Sequence[Checked]) -> Table:
    table = Table(title="Required and reached", title_justify="left", title_style="bold")
    table.add_column("figure")
    table.add_column("required", justify="right")
    table.add_column("measured, median (min-max)", justify="right", no_wrap=True)
    table.add_column("reached")
    said = {True: "yes", False: "NO", None: "not measured"}
    for line in lines:
        measured = _with_range(line.measured, ".2f")
        table.add_row(line.name, line.required, measured, said[line.reached])
    return table


def _with_range(value: MedianOf | None, format_: str) -> str:
    if value is None:
        return ""
    return f"{value.median:{format_}} ({value.least:{format_}}-{value.greatest:{format_}})"


def _closing(result: Result) -> str:
    books = result.books
    lines = [
        (
            f"Books: {books.acknowledged:,} operations acknowledged and found in the books, each "
            f"contestant's after its turn; verify found nothing over {books.verified_users:,} "
            f"users; {books.crossing_share:.0%} of our spends drew on two lots."
        ),
        *(
            f"Refused: {each.contestant}, {each.load.spread}, {each.load.callers} callers: "
            f"{error_type}: {count}"
            for each in result.measurements
            for error_type, count in each.failures.items()
        ),
    ]
    if result.sizes.quick:
        lines.append("A smoke test (--quick): the figures mean nothing.")
    return "\n".join(lines)
