"""What grows with the ledger and what must not: the same questions at 10⁵, 10⁶ and 10⁷ rows."""

import statistics
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from sqlalchemy.orm import Session

from benchmarks.books import BooksDisagree
from benchmarks.calls.ledger import ACTOR
from benchmarks.contestants.base import Database, Load, Say, Spread
from benchmarks.contestants.processes import PythonContestant
from benchmarks.figures import MedianOf, PerRepetition, median_of, percentile, ratios
from benchmarks.runner import WindowClocks
from benchmarks.seed import add_users, build_ledger, naming, user_ids
from benchmarks.server import connect, create_database
from benchmarks.workload import LOT
from src.common.credits import ledger
from src.common.credits.commands import Grant
from src.common.credits.verify import sample_users, verify
from src.common.database import SessionLocal, dispose_db, run_in_database_transaction
from src.local_postgres import RunningServer

USERS = 10_000
_OWN_ENTRIES = 4
"""Those every user has beside the history."""
_READS = 300
_WARM_UP_READS = 30
_PAGE = 50
_VERIFIED = 200
"""Users of the sample that is verified at each size, and timed."""
_HISTORY_OF_HEAVY = 1_000_000
_MANY_LOTS = 1_000


class Work(Protocol):
    """A question about one user."""

    def __call__(self, session: Session, user_id: uuid.UUID) -> None:
        """Ask it."""
        ...


@dataclass
class Growth:
    """Figures by question and rows, one a repetition; questions of odd users by their name."""

    by_rows: dict[str, dict[int, list[PerRepetition]]] = field(
        default_factory=dict[str, dict[int, list[PerRepetition]]]
    )
    odd: dict[str, list[PerRepetition]] = field(default_factory=dict[str, list[PerRepetition]])

    def add(self, question: str, rows: int, figures: PerRepetition) -> None:
        """Keep one repetition's figures."""
        self.by_rows.setdefault(question, {}).setdefault(rows, []).append(figures)

    def add_odd(self, question: str, figures: PerRepetition) -> None:
        """Keep one repetition's figures of a user who is not like the others."""
        self.odd.setdefault(question, []).append(figures)

    def ratio(self, question: str, figure: Callable[[PerRepetition], float]) -> MedianOf | None:
        """Return the figure at the most rows divided by it at the fewest."""
        sizes = self.by_rows.get(question, {})
        if len(sizes) < len(("least", "most")):
            return None
        most, fewest = sizes[max(sizes)], sizes[min(sizes)]
        return median_of(ratios([*map(figure, most)], [*map(figure, fewest)]))


@dataclass(frozen=True)
class GrowthPlan:
    """At how many rows, how often and how long."""

    rows: Sequence[int]
    repeats: int
    seconds: float
    spend_calls: str
    """What the spends are driven with."""
    has_odd_users: bool = True


def measure_growth(server: RunningServer, plan: GrowthPlan, say: Say) -> Growth:
    """Build a database of each size, then ask all of them in turns.

    Raises:
        BooksDisagree: if `verify` finds a difference.
    """
    growth = Growth()
    if not plan.rows:
        return growth
    names = {rows: f"growth_{rows}" for rows in plan.rows}
    for rows, name in names.items():
        say(f"Growth: writing {rows:,} entries")
        history = max(0, rows // USERS - _OWN_ENTRIES)
        build_ledger(create_database(server.connection, name), USERS, history=history)
    heavy = _heavy_user(server, names[max(names)], say) if plan.has_odd_users else None
    for repetition in range(1, plan.repeats + 1):
        for rows, name in names.items():
            say(f"Growth: repetition {repetition}, {rows:,} entries")
            with naming(name):
                _ask(growth, rows)
                growth.add("verify", rows, _verify_sample())
                growth.add("spend", rows, _spend(server, name, plan))
        if heavy is not None:
            with naming(names[max(names)]):
                _ask_heavy(growth, *heavy)
    for name in names.values():
        with naming(name):
            _verify_sample()
    return growth


def _heavy_user(server: RunningServer, name: str, say: Say) -> tuple[uuid.UUID, uuid.UUID]:
    """Add a user with a million entries, and one with a thousand open lots."""
    say(f"Growth: a user with {_HISTORY_OF_HEAVY:,} entries, a user with {_MANY_LOTS:,} lots")
    long, many = user_ids(USERS + 2)[USERS:]
    with connect(server.connection, name) as admin:
        add_users(admin, first=USERS, count=1, history=_HISTORY_OF_HEAVY - _OWN_ENTRIES)
        add_users(admin, first=USERS + 1, count=1, history=0)
    grants = [
        Grant(user_id=many, key=f"lot:{number}", actor=ACTOR, amount=LOT)
        for number in range(_MANY_LOTS)
    ]

    def give(session: Session) -> None:
        ledger.execute(session, grants)

    with naming(name):
        run_in_database_transaction(give)
        with connect(server.connection, name) as admin:
            admin.execute("VACUUM (ANALYZE)")
        dispose_db()
    return long, many


def _ask(growth: Growth, rows: int) -> None:
    """Read balances and history pages of random users, one caller."""
    with SessionLocal.begin() as session:
        users = list(sample_users(session, _READS))
    growth.add("balance", rows, _timed(users, _balance))
    growth.add("history", rows, _timed(users, _history))
    dispose_db()


def _ask_heavy(growth: Growth, long: uuid.UUID, many: uuid.UUID) -> None:
    for name, user in (("a million entries", long), ("a thousand lots", many)):
        growth.add_odd(f"balance, {name}", _timed([user] * _READS, _balance))
        growth.add_odd(f"history, {name}", _timed([user] * _READS, _history))
        growth.add_odd(f"spend, {name}", _timed([user] * (_READS // 3), _spend_one))
    dispose_db()


def _balance(session: Session, user_id: uuid.UUID) -> None:
    ledger.balance(session, user_id)


def _history(session: Session, user_id: uuid.UUID) -> None:
    ledger.history(session, user_id, cursor=None, limit=_PAGE)


def _spend_one(session: Session, user_id: uuid.UUID) -> None:
    ledger.spend(session, user_id, 1, key=uuid.uuid4().hex, actor=ACTOR)


def _timed(users: Sequence[uuid.UUID], work: Work) -> PerRepetition:
    """Do `work` for each user in a database transaction of its own; the first are to warm up."""
    for user_id in users[:_WARM_UP_READS]:
        run_in_database_transaction(partial(work, user_id=user_id))
    latencies: list[float] = []
    for user_id in users:
        started = time.perf_counter()
        run_in_database_transaction(partial(work, user_id=user_id))
        latencies.append((time.perf_counter() - started) * 1000)
    return _figures(latencies, sum(latencies) / 1000)


def _verify_sample() -> PerRepetition:
    """Verify a sample of users; the latency is of one user.

    Raises:
        BooksDisagree: if there is a difference.
    """
    with SessionLocal.begin() as session:
        users = sample_users(session, _VERIFIED)
    started = time.perf_counter()
    for report in verify(SessionLocal, user_ids=users):
        if report.differences:
            raise BooksDisagree(f"verify found differences, the first: {report.first[0]}")
    elapsed = time.perf_counter() - started
    dispose_db()
    return _figures([elapsed * 1000 / len(users)], elapsed, len(users))


def _spend(server: RunningServer, name: str, plan: GrowthPlan) -> PerRepetition:
    contestant = PythonContestant(
        "growth", plan.spend_calls, Database.LEDGER, {"DATABASE_NAME": name}
    )
    clocks = WindowClocks(server.pid)
    load = Load(Spread.UNIFORM, USERS, 32, plan.seconds)
    outcome = contestant.run(load, clocks)
    known = outcome.client_cpu_seconds
    return outcome.figures(clocks.server_seconds, clocks.other_cores(known))


def _figures(latencies: Sequence[float], elapsed: float, count: int | None = None) -> PerRepetition:
    return PerRepetition(
        operations_per_second=(count or len(latencies)) / elapsed,
        p50_ms=statistics.median(latencies),
        p99_ms=percentile(latencies, 0.99),
        client_cpu_us=0.0,
        application_cpu_us=0.0,
        server_cpu_us=0.0,
        other_cores=0.0,
    )
