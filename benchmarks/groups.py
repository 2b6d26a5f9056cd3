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
from src.common.models import DirectoryUser, User
from src.common.postgres.migrations import upgrade_to_head
from src.common.postgres.routes import routed_to_schema
from src.common.routing import all_routes, routed_to
from src.common.settings import get_settings
from src.common.sharding.creation import create_groups

CREDITS = 1_000_000
WITHOUT, WITH = "none", "schemas"
READ_EACH_TURN = 200
"""Of so many users a balance is read again and again, and of so many others once."""
CONNECTIONS = 8
"""The pool has opened so many: one that is used by itself stays in the processors' caches."""
WARM_UPS = 3
BOUND_OF_RATE = 0.7
BOUND_OF_LATENCY = 1.3


def main() -> None:
    """Make both databases, measure by turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
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
    with temporary_server(options.folder, SERVER_SETTINGS, tell) as server:
        with connect(server.connection) as admin:
            admin.execute("CREATE DATABASE groups_of_users")
        names = {WITHOUT: server.connection.database, WITH: "groups_of_users"}
        people = {each: _made(each, name, options) for each, name in names.items()}
        _show(options, names, people)
        dispose_db()


def _chosen(sharding: str, name: str) -> None:
    os.environ |= {"SHARDING": sharding, "DATABASE_NAME": name}
    get_settings.cache_clear()


def _made(sharding: str, name: str, options: argparse.Namespace) -> list[uuid.UUID]:
    """The users of a database, each with credits, as many in each group."""
    _chosen(sharding, name)
    upgrade_to_head()
    if sharding == WITH:
        for schema in create_groups(get_settings(), options.groups):
            tell(f"made {schema}")
    routes = all_routes()
    people: list[uuid.UUID] = []
    for route in routes:
        with routed_to_schema(route):
            several = [uuid.uuid4() for _ in range(options.users // len(routes))]
            run_in_database_transaction(partial(_add, people=several, route=route))
            people += several
    tell(f"{len(people)} users where SHARDING is {sharding}")
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


def _show(
    options: argparse.Namespace, names: dict[str, str], people: dict[str, list[uuid.UUID]]
) -> None:
    rates: dict[str, list[float]] = {each: [] for each in names}
    known: dict[str, list[float]] = {each: [] for each in names}
    first: dict[str, list[float]] = {each: [] for each in names}
    unseen = {each: iter(random.sample(those, len(those))) for each, those in people.items()}
    for number in range(options.rounds):
        order = list(names) if number % 2 else list(reversed(names))
        for sharding in order:
            _chosen(sharding, names[sharding])
            chosen = random.sample(people[sharding], options.callers)
            rates[sharding].append(asyncio.run(_rate(chosen, options.seconds)))
            _open_connections()
            known[sharding].append(_of_known(unseen[sharding], options.seconds / 2))
            first[sharding].append(_of_unseen(unseen[sharding]))
            tell(
                f"{sharding}: {rates[sharding][-1]:.0f}/s, {known[sharding][-1]:.3f} ms,"
                f" at first sight {first[sharding][-1]:.3f} ms"
            )
    show("| | `none` | `schemas` | ratio | by turns | bound |")
    show("|---|---|---|---|---|---|")
    _line(f"spends a second, {options.callers} callers", rates, f"≥ {BOUND_OF_RATE}")
    _line("balance, milliseconds", known, f"≤ {BOUND_OF_LATENCY}")
    _line("balance of a user seen for the first time", first, "none")


def _line(what: str, figures: dict[str, list[float]], bound: str) -> None:
    medians = {each: statistics.median(figures[each]) for each in figures}
    ratios = [of / to for to, of in zip(figures[WITHOUT], figures[WITH], strict=True)]
    shown = ", ".join(f"{each:.2f}" for each in ratios)
    ratio = statistics.median(ratios)
    show(
        f"| {what} | {medians[WITHOUT]:,.3f} | {medians[WITH]:,.3f} | {ratio:.2f} | {shown} |"
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
