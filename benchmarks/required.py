"""What the ledger has to reach, each a ratio within one run, and whether a run reached it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks.contestants.base import Spread
from benchmarks.figures import MedianOf, PerRepetition, median_of
from benchmarks.growth import Growth
from benchmarks.plan import AGAINST, FLUSH_DELAY_US, PEERS
from benchmarks.results import Case, Measured

_UNIFORM, _HOT = Spread.UNIFORM, Spread.HOT
_PGBENCH_CALLERS = (1, 8, 32, 64, 256)


@dataclass(frozen=True)
class Requirement:
    """One line of the table."""

    name: str
    bound: float
    at_most: bool
    measure: Callable[[Measured, Growth], MedianOf | None]


@dataclass(frozen=True)
class Checked:
    """A requirement beside what was measured; None where the run did not measure it."""

    name: str
    required: str
    measured: MedianOf | None
    reached: bool | None


def _ratio(name: str, bound: float, ours: Case, reference: Case) -> Requirement:
    return Requirement(name, bound, False, lambda run, _: run.ratio(ours, reference))


def _engine(spread: Spread, callers: int, processes: int = 1, delay_us: int = 0) -> Case:
    return Case("engine", spread, callers, processes, delay_us)


def _document_sql(spread: Spread, callers: int, delay_us: int = 0) -> Case:
    return Case("document-sql", spread, callers, 1, delay_us)


def _against(
    name: str,
    bound: float,
    ours: Case,
    figure: Callable[[PerRepetition], float],
    *,
    at_most: bool = True,
) -> Requirement:
    """Ours divided by the twin's."""
    twin = replace(ours, contestant=f"{ours.contestant}{AGAINST}")
    return Requirement(
        f"{name} ÷ the revision's",
        bound,
        at_most,
        lambda run, _: run.ratio(ours, twin, figure),
    )


def _rate(each: PerRepetition) -> float:
    return each.operations_per_second


def _seconds(each: PerRepetition) -> float:
    return 1 / each.operations_per_second


def _our_cpu(each: PerRepetition) -> float:
    return each.application_cpu_us + each.server_cpu_us


def _client_cpu(each: PerRepetition) -> float:
    return each.client_cpu_us


def _four_processes(run: Measured, _: Growth) -> MedianOf | None:
    """Return the ratio, or 0 where a single operation was refused."""
    four = _engine(_HOT, 128, 4)
    return MedianOf(0, 0, 0) if run.failures(four) else run.ratio(four, _engine(_HOT, 128))


def _python_cpu(run: Measured, _: Growth) -> MedianOf | None:
    found = run.of(_engine(_UNIFORM, 256))
    return median_of([each.client_cpu_us for each in found]) if found else None


REQUIRED: Sequence[Requirement] = (
    _ratio(
        "engine, 32 callers, uniform ÷ document-sql, 32 clients",
        1.5,
        _engine(_UNIFORM, 32),
        _document_sql(_UNIFORM, 32),
    ),
    Requirement(
        "engine, 256 callers, uniform ÷ document-sql at its best number of clients",
        4,
        False,
        lambda run, _: run.ratio_to_best(
            _engine(_UNIFORM, 256),
            [_document_sql(_UNIFORM, callers) for callers in _PGBENCH_CALLERS],
        ),
    ),
    _ratio(
        "engine, 32 callers, hot user ÷ document-sql, 32 clients",
        16,
        _engine(_HOT, 32),
        _document_sql(_HOT, 32),
    ),
    _ratio(
        "engine, 256 callers, hot user ÷ document-sql, 256 clients",
        40,
        _engine(_HOT, 256),
        _document_sql(_HOT, 256),
    ),
    _ratio(
        "engine, 32 callers ÷ document-orm, 32 callers, uniform",
        15,
        _engine(_UNIFORM, 32),
        Case("document-orm", _UNIFORM, 32),
    ),
    _ratio(
        "engine, 1 caller ÷ same-rows, 1 client, uniform",
        0.6,
        _engine(_UNIFORM, 1),
        Case("same-rows", _UNIFORM, 1),
    ),
    Requirement(
        "engine, 32 callers ÷ the fastest peer, uniform",
        10,
        False,
        lambda run, _: run.ratio_to_best(
            _engine(_UNIFORM, 32), [Case(peer.name, _UNIFORM, 32) for peer in PEERS]
        ),
    ),
    Requirement(
        "p99 of the engine ÷ document-sql's, hot user, 32 callers",
        0.1,
        True,
        lambda run, _: run.ratio(
            _engine(_HOT, 32), _document_sql(_HOT, 32), lambda each: each.p99_ms
        ),
    ),
    _ratio(
        "HTTP spend ÷ HTTP echo, 32 connections, uniform",
        0.7,
        Case("http-spend", _UNIFORM, 32),
        Case("http-echo", _UNIFORM, 32),
    ),
    _ratio(
        "HTTP spend ÷ the document's ORM over HTTP, uniform",
        10,
        Case("http-spend", _UNIFORM, 32),
        Case("http-document", _UNIFORM, 32),
    ),
    _ratio(
        "HTTP spend ÷ the document's ORM over HTTP, hot user",
        20,
        Case("http-spend", _HOT, 32),
        Case("http-document", _HOT, 32),
    ),
    *(
        _ratio(
            f"{said} with the user's token ÷ HTTP echo, 32 connections",
            bound,
            Case(name, _UNIFORM, 32),
            Case("http-echo", _UNIFORM, 32),
        )
        for name, said, bound in (
            ("http-balance", "balance", 0.6),
            ("http-entries", "page of entries", 0.6),
            ("http-sign-in", "signing in", 0.5),
        )
    ),
    Requirement(
        "engine on one hot user: four processes ÷ one, nothing refused",
        0.85,
        False,
        _four_processes,
    ),
    Requirement(
        "the document's purchase on our models ÷ on its own without a ledger, 1 caller, all CPU",
        1.6,
        True,
        lambda run, _: run.ratio(
            Case("orm-purchase", _UNIFORM, 1),
            Case("plain-purchase", _UNIFORM, 1),
            lambda each: each.client_cpu_us + each.server_cpu_us,
        ),
    ),
    Requirement("Python's CPU for an operation, 256 callers, µs", 25, True, _python_cpu),
    Requirement(
        "Python's CPU for an operation, 256 callers ÷ that of the revision compared with",
        0.55,
        True,
        lambda run, _: run.ratio(
            _engine(_UNIFORM, 256),
            Case(f"engine{AGAINST}", _UNIFORM, 256),
            lambda each: each.client_cpu_us,
        ),
    ),
    _ratio(
        "undoing spends in the engine ÷ spending, 256 callers, uniform",
        0.8,
        Case("engine-reverse", _UNIFORM, 256),
        _engine(_UNIFORM, 256),
    ),
    _ratio(
        "1 ms added to each flush: engine ÷ document-sql, hot user, 32 callers",
        20,
        _engine(_HOT, 32, delay_us=FLUSH_DELAY_US),
        _document_sql(_HOT, 32, FLUSH_DELAY_US),
    ),
    Requirement(
        "spends a second at the most rows ÷ at the fewest",
        0.7,
        False,
        lambda _, growth: growth.ratio("spend", lambda each: each.operations_per_second),
    ),
    Requirement(
        "balance at the most rows ÷ at the fewest, p50",
        1.2,
        True,
        lambda _, growth: growth.ratio("balance", lambda each: each.p50_ms),
    ),
    Requirement(
        "history page at the most rows ÷ at the fewest, p50",
        1.2,
        True,
        lambda _, growth: growth.ratio("history", lambda each: each.p50_ms),
    ),
)


AGAINST_A_REVISION: Sequence[Requirement] = (
    _against(
        "webhook, 32 connections, events a second",
        8,
        Case("http-webhook", _UNIFORM, 32),
        _rate,
        at_most=False,
    ),
    _against(
        "webhook, 1 connection, CPU of application and PostgreSQL",
        0.35,
        Case("http-webhook", _UNIFORM, 1),
        _our_cpu,
    ),
    _against("backlog, events a second", 15, Case("backlog", _UNIFORM, 1), _rate, at_most=False),
    _against("Python's CPU, 256 callers", 0.55, _engine(_UNIFORM, 256), _client_cpu),
    _against(
        "HTTP spend, 32 connections, uniform, operations a second",
        1.6,
        Case("http-spend", _UNIFORM, 32),
        _rate,
        at_most=False,
    ),
    _against("verify, users a second", 1.5, Case("verify", _UNIFORM, 1), _rate, at_most=False),
    _against("reconcile, seconds", 0.4, Case("reconcile", _UNIFORM, 1), _seconds),
    _against("reconcile, memory", 0.5, Case("reconcile", _UNIFORM, 1), lambda each: each.peak_mib),
    _against("`--help`, CPU", 0.2, Case("start-up-help", _UNIFORM, 1), _client_cpu),
    _against("`credits show`, CPU", 0.35, Case("start-up-credits", _UNIFORM, 1), _client_cpu),
)


def checked(run: Measured, growth: Growth) -> list[Checked]:
    """Return every requirement beside what this run measured of it.

    Those against another revision are left out where it took no part.
    """
    is_against = any(each.contestant.endswith(AGAINST) for each in run.cases())
    required = [*REQUIRED, *(AGAINST_A_REVISION if is_against else ())]
    return [_checked(each, each.measure(run, growth)) for each in required]


def _checked(requirement: Requirement, measured: MedianOf | None) -> Checked:
    sign = "≤" if requirement.at_most else "≥"
    reached = None
    if measured is not None:
        over = measured.median >= requirement.bound
        under = measured.median <= requirement.bound
        reached = under if requirement.at_most else over
    return Checked(requirement.name, f"{sign} {requirement.bound:g}", measured, reached)
