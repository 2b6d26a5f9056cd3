"""What groups have on Citus alone: a node each, and moves to another while their users go on.

That all else works there shows where the other tests of this folder run with `CITUS_DSN`.
"""

import asyncio
import uuid
from collections import Counter
from typing import Any

import pytest

from src.common.credits.engine.engine import Engine
from src.common.database_settings import LedgerTriggers
from src.common.exceptions import Invalid, SettingsError
from src.common.routing import all_routes
from src.common.settings import get_settings
from src.common.sharding.citus import Node
from src.common.sharding.creation import create_groups
from src.common.sharding.moving import moving, parse_node
from src.local_postgres import ConnectionParameters
from tests.cli.conftest import RunCommand, data_folder, run_command
from tests.credits.books import spend
from tests.fixtures.api import until
from tests.sharding.citus_server import DSN, CitusServer, on_citus
from tests.sharding.people import balance_of, user_of
from tests.sharding.service import check_all_books, count_entries

__all__ = ["data_folder", "run_command"]
MOVED, OTHER = "g0001", "g0002"
CALLERS = 16


@pytest.mark.parametrize(
    ("given", "node"),
    [
        ("worker-1.example.com:5432", Node("worker-1.example.com", 5432)),
        ("[::1]:6432", Node("::1", 6432)),
        ("10.0.0.1", None),
        ("10.0.0.1:0", None),
        ("10.0.0.1:65536", None),
        (":5432", None),
        ("a b:5432", None),
    ],
)
def test_a_node_is_named_by_host_and_port(given: str, node: Node | None) -> None:
    """As Citus names it; anything else is refused before the database is asked."""
    if node is None:
        with pytest.raises(Invalid, match="host:port"):
            parse_node(given)
    else:
        assert parse_node(given) == node


@on_citus
def test_settings_of_one_server_are_refused(
    groups: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triggers that would see half of what is written, and plans that Citus has not."""
    assert groups
    monkeypatch.setenv("DATABASE_LEDGER_TRIGGERS", LedgerTriggers.STATEMENT)
    monkeypatch.setenv("DATABASE_POOLER", "none")
    get_settings.cache_clear()
    with pytest.raises(SettingsError, match="LEDGER_TRIGGERS=commit and DATABASE_POOLER=prepared"):
        list(create_groups(get_settings(), 1))
    with pytest.raises(SettingsError, match="on Citus"):
        all_routes()


@on_citus
async def test_a_group_moves_while_its_users_spend(
    groups: ConnectionParameters, run_command: RunCommand
) -> None:
    """No caller is told an error, what was acknowledged is booked once, and the books are right."""
    assert groups
    people = [user_of(group, 100_000) for group in (MOVED, OTHER) for _ in range(CALLERS // 2)]
    where = nodes(run_command)
    assert DSN is not None
    workers = CitusServer.named(DSN).workers
    there = next(each for each in workers if str(each) != where[MOVED])
    ends = asyncio.Event()
    done: Counter[uuid.UUID] = Counter()

    async def keep_spending(engine: Engine, who: uuid.UUID) -> None:
        while not ends.is_set():
            await engine.execute(spend(who, 1, key=f"{uuid.uuid4()}"))
            done[who] += 1

    done_before: dict[uuid.UUID, int] = {}

    async def everybody_has_spent() -> bool:
        return all(done[who] > done_before.get(who, 0) for who in people)

    async with Engine.from_settings(get_settings()) as engine:
        spending = [asyncio.create_task(keep_spending(engine, who)) for who in people]
        await until(everybody_has_spent)
        before = done.total()
        await asyncio.to_thread(move, there)
        assert done.total() > before
        done_before = dict(done)
        await until(everybody_has_spent)
        ends.set()
        await asyncio.gather(*spending)
    assert nodes(run_command) == where | {MOVED: str(there)}
    for who in people:
        assert balance_of(who) == 100_000 - done[who]
        assert count_entries(who) == 1 + done[who]
    assert check_all_books((MOVED, OTHER)) == len(people)
    again = run_command("shards", "move", MOVED, str(there), "--json")
    assert not again.json["is_moved"]
    back = run_command("shards", "move", MOVED, where[MOVED], "--json")
    assert back.json["is_moved"]
    assert nodes(run_command) == where


@on_citus
def test_a_move_that_cannot_be_done_is_refused(
    groups: ConnectionParameters, run_command: RunCommand
) -> None:
    """In a sentence, with the exit code of its kind; a dry run moves nothing."""
    assert groups
    where = nodes(run_command)
    for arguments, exit_code, said in (
        ((MOVED, "10.0.0.1:5432"), 3, "NODE_NOT_FOUND"),
        (("g9999", where[MOVED]), 3, "GROUP_NOT_FOUND"),
        ((MOVED, "here"), 2, "host:port"),
    ):
        result = run_command("shards", "move", *arguments)
        assert (result.exit_code, result.out) == (exit_code, "")
        assert said in result.err
    dry = run_command("shards", "move", MOVED, where[OTHER], "--dry-run", "--json")
    assert (dry.exit_code, dry.json["is_moved"]) == (0, False)
    assert nodes(run_command) == where


def move(there: Node) -> None:
    """As the command does."""
    with moving(get_settings(), MOVED, there) as mover:
        mover.run(lambda _copied: None)


def nodes(run_command: RunCommand) -> dict[str, str]:
    """Where each group is, as `shards list` says."""
    listed: list[dict[str, Any]] = run_command("shards", "list", "--json").json
    return {each["schema"]: each["node"] for each in listed}
