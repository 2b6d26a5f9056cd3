"""What grows with the ledger and what must not: the same questions at 10⁵, 10⁶ and 10⁷ rows."""

import statistics
import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

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
from src.common.credits.domain.commands import Grant
from src.common.credits.verification.verify import sample_users, verify
from src.common.models import User
from src.common.postgres.engines import build_engine
from src.common.settings import get_settings
from src.local_postgres import RunningServer

USERS = 10_000
_OWN_ENTRIES = 4
"""Those every user has beside the history."""
_READS = 300
_WARM_UP_READS = 30
_PAGE = 10
"""Entries of a history page: as many as each user has at the smallest size, so all are alike."""
_WARM_UP_WINDOWS = 4
"""How much longer than a measured window 32 callers spend before: until most users were written to
since the last checkpoint. The first change of a page after it puts the whole page into the log."""
_VERIFIED = 200
"""Users of the sample that is verified at each size, and timed."""
_MANY_LOTS = 1_000


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
    history_of_heavy: int = 1_000_000
    """Entries of one user at the largest size; 0 for no such user."""


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
    with ExitStack() as stack:
        sizes = {rows: stack.enter_context(_sessions_of(name)) for rows, name in names.items()}
        largest = sizes[max(sizes)]
        odd = _odd_users(server, names[max(names)], largest, plan.history_of_heavy, say)
        say("Growth: warming up")
        for rows, sessions in sizes.items():
            _spend(server, names[rows], sessions, plan, _WARM_UP_WINDOWS * plan.seconds)
        for repetition in range(1, plan.repeats + 1):
            say(f"Growth: repetition {repetition} of {plan.repeats}")
            _ask_all(growth, sizes)
            for rows, sessions in sizes.items():
                growth.add("verify", rows, _verify_sample(sessions))
                spent = _spend(server, names[rows], sessions, plan, plan.seconds)
                growth.add("spend", rows, spent)
            for name, user in odd.items():
                for question, work in _QUESTIONS.items():
                    [figures] = _timed([(largest, [user] * _READS)], work)
                    growth.add_odd(f"{question}, {name}", figures)
        for sessions in sizes.values():
            _verify_sample(sessions)
    return growth


@contextmanager
def _sessions_of(database: str) -> Generator[sessionmaker[Session]]:
    """Sessions on another database of the server."""
    with naming(database):
        engine = build_engine(get_settings())
    yield sessionmaker(engine)
    engine.dispose()


def _odd_users(
    server: RunningServer, name: str, sessions: sessionmaker[Session], history: int, say: Say
) -> dict[str, uuid.UUID]:
    """Add a user with a long history and one with a thousand open lots; nobody where it is 0."""
    if not history:
        return {}
    say(f"Growth: a user with {history:,} entries, a user with {_MANY_LOTS:,} lots")
    long, many = user_ids(USERS + 2)[USERS:]
    grants = [
        Grant(user_id=many, key=f"lot:{number}", actor=ACTOR, amount=LOT)
        for number in range(_MANY_LOTS)
    ]
    with connect(server.connection, name) as admin:
        add_users(admin, first=USERS, count=1, history=history - _OWN_ENTRIES)
        add_users(admin, first=USERS + 1, count=1, history=0)
        with sessions.begin() as session:
            ledger.execute(session, grants)
        admin.execute("VACUUM (ANALYZE)")
    return {f"{history:,} entries": long, f"{_MANY_LOTS:,} open lots": many}


def _ask_all(growth: Growth, sizes: Mapping[int, sessionmaker[Session]]) -> None:
    """Read balances and history pages of random users, one caller, the databases by turns."""
    for question in ("balance", "history"):
        asked = [(sessions, _sample(sessions)) for sessions in sizes.values()]
        for rows, figures in zip(sizes, _timed(asked, _QUESTIONS[question]), strict=True):
            growth.add(question, rows, figures)


def _sample(sessions: sessionmaker[Session]) -> Sequence[uuid.UUID]:
    with sessions.begin() as session:
        return sample_users(session, _READS)


def _balance(session: Session, user_id: uuid.UUID) -> None:
    ledger.balance(session, user_id)


def _history(session: Session, user_id: uuid.UUID) -> None:
    ledger.history(session, user_id, cursor=None, limit=_PAGE)


def _spend_one(session: Session, user_id: uuid.UUID) -> None:
    ledger.spend(session, user_id, 1, key=uuid.uuid4().hex, actor=ACTOR)


_QUESTIONS = {"balance": _balance, "history": _history, "spend": _spend_one}


def _timed(
    asked: Sequence[tuple[sessionmaker[Session], Sequence[uuid.UUID]]],
    work: Callable[[Session, uuid.UUID], None],
) -> list[PerRepetition]:
    """Do `work` for the users of each database, one here, one there; the first are to warm up.

    So a machine that is slow for a while is slow for all of them.
    """
    latencies: list[list[float]] = [[] for _ in asked]
    for place in range(-_WARM_UP_READS, _READS):
        for (sessions, users), own in zip(asked, latencies, strict=True):
            started = time.perf_counter()
            with sessions.begin() as session:
                work(session, users[place])
            if place >= 0:
                own.append((time.perf_counter() - started) * 1000)
    return [_figures(own, sum(own) / 1000) for own in latencies]


def _verify_sample(sessions: sessionmaker[Session]) -> PerRepetition:
    """Verify a sample of users; the latency is of one user.

    Raises:
        BooksDisagree: if there is a difference.
    """
    with sessions.begin() as session:
        users = sample_users(session, _VERIFIED)
    started = time.perf_counter()
    for report in verify(sessions, user_ids=users):
        if report.differences:
            raise BooksDisagree(f"verify found differences, the first: {report.first[0]}")
    elapsed = time.perf_counter() - started
    return _figures([elapsed * 1000 / len(users)], elapsed, len(users))


def _spend(
    server: RunningServer,
    name: str,
    sessions: sessionmaker[Session],
    plan: GrowthPlan,
    seconds: float,
) -> PerRepetition:
    """Spend with 32 callers.

    Raises:
        BooksDisagree: if the users do not count as many entries more as were acknowledged.
    """
    contestant = PythonContestant(
        "growth", plan.spend_calls, Database.LEDGER, {"DATABASE_NAME": name}
    )
    clocks = WindowClocks(server.pid)
    load = Load(Spread.UNIFORM, USERS, 32, seconds)
    before = _entries(sessions)
    outcome = contestant.run(load, clocks)
    written = _entries(sessions) - before
    if written != outcome.acknowledged - outcome.unwritten:
        raise BooksDisagree(f"{outcome.acknowledged} spends were acknowledged, {written} written.")
    known = outcome.client_cpu_seconds
    return outcome.figures(clocks.server_seconds, clocks.other_cores(known))


def _entries(sessions: sessionmaker[Session]) -> int:
    with sessions.begin() as session:
        return session.scalars(select(func.sum(User.credits_version))).one() or 0


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
