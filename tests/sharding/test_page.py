"""`docs/how-to/put-users-into-groups.md`: its commands and its code are run on a new database."""

import inspect
import re
import shlex
import uuid

import pytest
from sqlalchemy import text

from src.common import routing
from src.common.credits.operations import execute
from src.common.database import SessionLocal, get_engine
from src.common.postgres.errors import RetryableDatabaseError
from src.common.postgres.routes import NotRouted, WrongShard
from src.common.settings import get_settings
from src.common.sharding.copying.closing import close
from src.common.sharding.directory import PAYMENT_OF_ANOTHER_USER
from src.local_postgres import ConnectionParameters
from tests.cli.conftest import RunCommand, data_folder, run_command
from tests.credits.books import grant, spend
from tests.document.test_blocks import blocks, page
from tests.postgres.drivers import open_connection
from tests.sharding.conftest import GROUPS
from tests.sharding.copied import Two, fill, last_of, two
from tests.sharding.people import balance_of, user_of

__all__ = ["data_folder", "run_command", "two"]
NAME = "docs/how-to/put-users-into-groups.md"


def test_its_commands_and_its_code_work(
    empty_database: ConnectionParameters, run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their order, as somebody who begins with a new database."""
    assert empty_database
    made, assigned, _ = blocks(NAME, "bash")
    setting, *lines = made.splitlines()
    name, value = setting.removeprefix("export ").split("=")
    monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    for line in [*lines, *assigned.splitlines()]:
        program, *words = shlex.split(line)
        assert program == "flashslides"
        found = run_command(*words)
        assert found.exit_code == 0, found.out + found.err
    with get_engine().connect() as connection:
        opened = connection.scalars(text("SELECT schema FROM user_groups WHERE is_open ORDER BY 1"))
        assert opened.all() == GROUPS[1:]
    user_id = user_of("g0002", 10)
    [code] = blocks(NAME, "python")
    exec(code, {"user_id": user_id, "command": spend(user_id, 4)})  # noqa: S102  the page's own
    assert balance_of(user_id) == 6


def test_a_database_with_users_is_brought_over(two: Two, run_command: RunCommand) -> None:
    """By the commands of the page, and back by those that it names."""
    two.use(two.old)
    users = fill(2)
    _, _, brought = blocks(NAME, "bash")
    [service] = blocks(NAME, "ini")
    assert service.startswith("[old]")
    back = re.findall(r"`flashslides (shards copy --from new)`", page(NAME))
    ways = (
        (two.divided, [line.removeprefix("flashslides ") for line in brought.splitlines()]),
        (two.old, [*back, f"{back[0]} --cut-over"]),
    )
    for into, lines in ways:
        two.use(into)
        answers = [run_command(*shlex.split(line), "--json") for line in lines]
        assert [each.exit_code for each in answers] == [0] * len(lines), answers
        done = answers[-1]
        assert (done.json["users"], done.json["is_same"]) == (len(users), True)
        assert done.json["is_cut_over"]
    with get_engine().connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM users")) == len(users)


def test_a_closed_database_is_opened_by_hand(two: Two) -> None:
    """By the page's line: the old one whose new server is lost, and one whose copy is given up."""
    [opening] = blocks(NAME, "sql")
    two.use(two.old)
    [user_id] = fill(1)
    with two.copying(two.divided) as copy:
        last_of(copy.copy())
        with copy.source.held():
            close(copy.source)
    for closed in (two.old, two.divided):
        two.use(closed)
        with pytest.raises(RetryableDatabaseError):
            change_balance(user_id)
        with open_connection(closed) as owner:
            owner.execute(opening.encode())
        change_balance(user_id)


def change_balance(user_id: uuid.UUID) -> None:
    """Write, as the service does."""
    with routing.routed_to(user_id), SessionLocal.begin() as session:
        execute(session, [grant(user_id, 1)])


def test_it_names_what_there_is() -> None:
    """The functions of its table, and the errors."""
    named = set(re.findall(r"`((?:async_)?\w+)\(", page(NAME))) - {"routed_to_schema"}
    assert all(inspect.isfunction(getattr(routing, each)) for each in named)
    assert len(named) == 4
    errors = {NotRouted().error_type, WrongShard().error_type, PAYMENT_OF_ANOTHER_USER}
    assert {*re.findall(r"^\| `([A-Z_]+)` \|", page(NAME), re.MULTILINE)} == errors
