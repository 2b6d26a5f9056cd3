"""`docs/how-to/read-from-a-replica.md`: its commands and its code are run on a pair of servers."""

import contextlib
import io
import re
import shlex

import pytest

from src.common.replica_settings import ReplicaSettings
from tests.cli.conftest import RunCommand
from tests.document.test_blocks import blocks, page
from tests.fixtures.standbys import Pair
from tests.replicas.conftest import user_with

pytestmark = pytest.mark.xdist_group("pair of servers: surfaces")

NAME = "docs/how-to/read-from-a-replica.md"


async def test_its_commands_read_from_the_replica(
    replicated: Pair, run_command: RunCommand
) -> None:
    """The first line names another host, which this pair's fixture has named."""
    user_with(100)
    replicated.catch_up()
    [shell] = blocks(NAME, "bash")
    first, *lines = shell.splitlines()
    assert first.startswith("export DATABASE_REPLICA_HOST=")
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "flashslides"
        found = run_command(*words)
        assert found.exit_code == 0, found.out + found.err
        assert ("Read from the replica" in found.err) == ("--from-replica" in words)


async def test_its_code_says_who_answered(replicated: Pair) -> None:
    """As an application would run it."""
    user_id = user_with(100)
    replicated.catch_up()
    [code] = blocks(NAME, "python")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, {"user_id": user_id})  # noqa: S102  the page's own
    assert re.match(r"replica 20\d\d-\S+ \S+ \d+\.\d+\n", printed.getvalue())


async def test_the_privilege_can_be_granted(replicated: Pair) -> None:
    """Its SQL is PostgreSQL's."""
    [sql] = blocks(NAME, "sql")
    replicated.on_primary("CREATE ROLE flashslides_service")
    replicated.on_primary(sql)


def test_its_settings_exist() -> None:
    """Every one of the group is on the page, and every one of the page exists."""
    named = set(re.findall(r"DATABASE_REPLICA_[A-Z_]+", page(NAME)))
    fields = {name.upper() for name in ReplicaSettings.model_fields}
    assert named == {name for name in fields if name.startswith("DATABASE_REPLICA_")}
