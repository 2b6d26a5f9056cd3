"""What it costs that users are in groups with schemas, on one server: by turns with users in none.

Run it by `uv run python -m benchmarks.groups`. Both databases are on one durable server of its own.
It prints spends a second of the batch engine, and how long a balance takes in a session of its own:
of users whose group the process knows, and of users whom it sees for the first time.
"""

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from sqlalchemy import insert, text
from sqlalchemy.orm import Session

from benchmarks.calls.ledger import ACTOR
from benchmarks.output import show, tell
from benchmarks.server import SERVER_SETTINGS, connect, refuse_volatile, temporary_server
from src.common.credits import ledger
from src.common.credits.domain.commands import Grant, Spend
from src.common.credits.engine.engine import Engine
from src.common.credits.queries import balance
from src.common.database import SessionLocal, dispose_db, run_in_database_transaction
from src.common.database_settings import Sharding
from src.common.models import DirectoryUser, User
from src.common.postgres.migrations import upgrade_to_head
from src.common.postgres.routes import routed_to_schema
from src.common.routing import all_routes, routed_to
from src.common.settings import get_settings
from src.common.sharding.creation import create_groups

CREDITS = 1_000_000
WITHOUT, WITH = "none", "schemas"
Variables = dict[str, str]
"""What the process is told to work for one of the two databases."""
READ_EACH_TURN = 200
"""Of so many users a balance is read again and again, and of so many others once."""
CONNECTIONS = 8
"""The pool has opened so many: one that is used by itself stays in the processors' caches."""
WARM_UPS = 3
BOUND_OF_RATE = 0.7
BOUND_OF_LATENCY = 1.3


def options_of(description: str | None) -> argparse.Namespace:
    """What the command line says: how much is measured, and where."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--users", type=int, default=4_000)
    parser.add_argument("--callers", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    if options.users < 2 * READ_EACH_TURN * options.rounds:
        parser.error(f"--users: {2 * READ_EACH_TURN} are needed for each of --rounds")
    refuse_volatile(options.folder)
    return options


def main() -> None:
    """Make both databases, measure by turns, and print a table."""
    options = options_of(__doc__)
    with temporary_server(options.folder, SERVER_SETTINGS, tell) as server:
        with connect(server.connection) as admin:
            admin.execute("CREATE DATABASE groups_of_users")
        names = {WITHOUT: server.connection.database, WITH: "groups_of_users"}
        told = {each: {"SHARDING": each, "DATABASE_NAME": names[each]} for each in names}
        people = {each: make(told[each], options) for each in told}
        figures = measure(options, told, people)
        figures.show(options.callers, f"≥ {BOUND_OF_RATE}", f"≤ {BOUND_OF_LATENCY}")
        dispose_db()


def _choose(variables: Variables) -> None:
    os.environ |= variables
    get_settings.cache_clear()


def make(variables: Variables, options: argparse.Namespace) -> list[uuid.UUID]:
    """The users of a database, each with credits, as many in each group."""
    _choose(variables)
    upgrade_to_head()
    if get_settings().sharding is Sharding.SCHEMAS:
        for schema in create_groups(get_settings(), options.groups):
            tell(f"made {schema}")
    routes = all_routes()
    people: list[uuid.UUID] = []
    for route in routes:
        with routed_to_schema(route):
            several = [uuid.uuid4() for _ in range(options.users // len(routes))]
            run_in_database_transaction(partial(_add, people=several, route=route))
            people += several
    tell(f"{len(people)} users")
    return people


def _add(session: Session, people: Sequence[uuid.UUID], route: str | None) -> None:
    emails = {who: f"{who}@example.com" for who in people}
    if route is not None:
        rows = [
            {"user_id": who, "schema": route, "email_lower": email} for who, email in emails.items()
        ]
        session.execute(insert(DirectoryUser), rows)
    users = [
        {"user_id": who, "email": email, "password_hash": "x"} for who, email in emails.items()
    ]
    session.execute(insert(User), users)
    ledger.execute(
        session, [Grant(user_id=who, key="first", actor=ACTOR, amount=CREDITS) for who in people]
    )


@dataclass
class Figures:
    """Of each database, turn by turn."""

    rates: dict[str, list[float]]
    """Spends a second."""
    known: dict[str, list[float]]
    """Milliseconds of a balance, of users whose group the process knows."""
    unseen: dict[str, list[float]]
    """The same of users whom it sees for the first time."""

    def show(self, callers: int, bound_of_rate: str, bound_of_latency: str) -> None:
        """Print a table."""
        show(f"| | {' | '.join(f'`{each}`' for each in self.rates)} | ratio | by turns | bound |")
        show("|---|---|---|---|---|---|")
        _show_line(f"spends a second, {callers} callers", self.rates, bound_of_rate)
        _show_line("balance, milliseconds", self.known, bound_of_latency)
        _show_line("balance of a user seen for the first time", self.unseen, "none")


def measure(
    options: argparse.Namespace,
    told: dict[str, Variables],
    people: dict[str, list[uuid.UUID]],
) -> Figures:
    """Both, by turns."""
    figures = Figures(
        {each: [] for each in told}, {each: [] for each in told}, {each: [] for each in told}
    )
    unseen = {each: iter(random.sample(those, len(those))) for each, those in people.items()}
    for number in range(options.rounds):
        order = list(told) if number % 2 else list(reversed(told))
        for each in order:
            _choose(told[each])
            chosen = random.sample(people[each], options.callers)
            figures.rates[each].append(asyncio.run(_rate(chosen, options.seconds)))
            _open_connections()
            figures.known[each].append(_of_known(unseen[each], options.seconds / 2))
            figures.unseen[each].append(_of_unseen(unseen[each]))
            tell(
                f"{each}: {figures.rates[each][-1]:.0f}/s, {figures.known[each][-1]:.3f} ms,"
                f" at first sight {figures.unseen[each][-1]:.3f} ms"
            )
    return figures


def _show_line(what: str, figures: dict[str, list[float]], bound: str) -> None:
    """The medians of both, and of the second in parts of the first."""
    first, second = figures
    medians = {each: statistics.median(figures[each]) for each in figures}
    ratios = [of / to for to, of in zip(figures[first], figures[second], strict=True)]
    shown = ", ".join(f"{each:.2f}" for each in ratios)
    ratio = statistics.median(ratios)
    show(
        f"| {what} | {medians[first]:,.3f} | {medians[second]:,.3f} | {ratio:.2f} | {shown} |"
        f" {bound} |"
    )


async def _rate(callers: Sequence[uuid.UUID], seconds: float) -> float:
    """Spends a second of callers who each wait for their answer."""
    async with Engine.from_settings(get_settings()) as engine:
        await asyncio.gather(*(_spend(engine, who) for who in callers))  # connects, plans
        ends_at = time.perf_counter() + seconds
        done = await asyncio.gather(*(_spend_until(engine, who, ends_at) for who in callers))
        return sum(done) / seconds


async def _spend(engine: Engine, who: uuid.UUID) -> None:
    await engine.execute(Spend(user_id=who, key=f"{uuid.uuid4()}", actor=ACTOR, amount=1))


async def _spend_until(engine: Engine, who: uuid.UUID, ends_at: float) -> int:
    count = 0
    while time.perf_counter() < ends_at:
        await _spend(engine, who)
        count += 1
    return count


def _open_connections() -> None:
    """Have the pool open as many as a service has that answers several at once."""
    with ExitStack() as sessions:
        for _ in range(CONNECTIONS):
            sessions.enter_context(SessionLocal()).execute(text("SELECT 1"))


def _of_known(unseen: Iterator[uuid.UUID], seconds: float) -> float:
    """The median of milliseconds that a balance takes, of users who were asked for before."""
    people = list(islice(unseen, READ_EACH_TURN))
    for who in WARM_UPS * people:  # statements are prepared, and their plans kept
        _read_balance(who)
    took: list[float] = []
    ends_at = time.perf_counter() + seconds
    while time.perf_counter() < ends_at:
        took.append(_timed(random.choice(people)))  # noqa: S311
    return 1_000 * statistics.median(took)


def _of_unseen(unseen: Iterator[uuid.UUID]) -> float:
    """The same of users whom this process sees for the first time: their group is looked up."""
    return 1_000 * statistics.median(_timed(who) for who in islice(unseen, READ_EACH_TURN))


def _read_balance(who: uuid.UUID) -> None:
    with routed_to(who), SessionLocal() as session:
        balance(session, who)


def _timed(who: uuid.UUID) -> float:
    begun = time.perf_counter()
    _read_balance(who)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
