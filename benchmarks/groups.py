"""What it costs that users are in groups with schemas, on one server: by turns with users in none.

Run it by `uv run python -m benchmarks.groups`. Both databases are on one durable server of its own.
It prints spends a second of the batch engine, and how long a balance takes in a session of its own.
"""

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from sqlalchemy import insert
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
WARMED_UP = 400
"""Reads that are not counted: every connection prepares its statements, and keeps their plans."""
BOUND_OF_RATE = 0.7
BOUND_OF_LATENCY = 1.3


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """How much is measured."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--users", type=int, default=4_000)
    parser.add_argument("--callers", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    return parser


def main() -> None:
    """Make both databases, measure by turns, and print a table."""
    parser = parser_of(__doc__)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    refuse_volatile(options.folder)
    with temporary_server(options.folder, SERVER_SETTINGS, tell) as server:
        with connect(server.connection) as admin:
            admin.execute("CREATE DATABASE groups_of_users")
        names = {WITHOUT: server.connection.database, WITH: "groups_of_users"}
        told = {each: {"SHARDING": each, "DATABASE_NAME": names[each]} for each in names}
        people = {each: make(told[each], options) for each in told}
        rates, latencies = measure(options, told, people)
        show_head(WITHOUT, WITH)
        show_line(f"spends a second, {options.callers} callers", rates, f"≥ {BOUND_OF_RATE}")
        show_line("balance, milliseconds", latencies, f"≤ {BOUND_OF_LATENCY}")
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


def measure(
    options: argparse.Namespace,
    told: dict[str, Variables],
    people: dict[str, list[uuid.UUID]],
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Of each, by turns: spends a second, and milliseconds of a balance."""
    rates: dict[str, list[float]] = {each: [] for each in told}
    latencies: dict[str, list[float]] = {each: [] for each in told}
    for number in range(options.rounds):
        order = list(told) if number % 2 else list(reversed(told))
        for each in order:
            _choose(told[each])
            chosen = random.sample(people[each], options.callers)
            rates[each].append(asyncio.run(_rate(chosen, options.seconds)))
            latencies[each].append(_latency(people[each], options.seconds / 2))
            tell(f"{each}: {rates[each][-1]:.0f}/s, {latencies[each][-1]:.3f} ms")
    return rates, latencies


def show_head(first: str, second: str) -> None:
    """Begin the table."""
    show(f"| | `{first}` | `{second}` | ratio | by turns | bound |")
    show("|---|---|---|---|---|---|")


def show_line(what: str, figures: dict[str, list[float]], bound: str) -> None:
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


def _latency(people: Sequence[uuid.UUID], seconds: float) -> float:
    """The median of milliseconds that a balance takes, of somebody else each time."""
    for who in random.sample(people, WARMED_UP):
        _read_balance(who)
    took: list[float] = []
    ends_at = time.perf_counter() + seconds
    while time.perf_counter() < ends_at:
        took.append(_timed(partial(_read_balance, random.choice(people))))  # noqa: S311
    return 1_000 * statistics.median(took)


def _read_balance(who: uuid.UUID) -> None:
    with routed_to(who), SessionLocal() as session:
        balance(session, who)


def _timed(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
