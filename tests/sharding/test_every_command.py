"""Every command knows groups of users: none sees one of them, or none, and takes it for all."""

import re

import pytest

from src.cli import exit_codes
from src.local_postgres import ConnectionParameters
from tests.cli.conftest import RunCommand, data_folder, run_command
from tests.cli.every_command import COMMAND_LINES, WITHOUT_DATABASE, arguments_of
from tests.sharding.people import user_of

__all__ = ["data_folder", "run_command"]
IN_GROUPS = {
    *("anchors prove", "credits import-opening-balances", "db chain"),
    *("notices list", "notices replay"),
    *("approvals consent", "approvals list", "approvals show"),
    *(f"credits {name}" for name in ("adjust", "explain", "grant", "history", "show", "spend")),
    *("credits holds list", "credits holds release", "credits reverse"),
    *("purchases list", "purchases show", "report"),
    *("stripe unmatched list", "stripe unmatched resolve"),
    *(f"user {name}" for name in ("activate", "create", "deactivate", "erase", "find", "list")),
    *("user set-type", "user show", "user token", "verify"),
}
"""They find the user's group, or look at all of them."""
ABOUT_EVERYBODY = {
    *("anchors list", "api-key create", "api-key list", "api-key revoke"),
    *("approvals refuse", "approvals withdraw"),  # of the one that is named, which is not there
    *("console link", "db adopt", "db check", "db current", "db grant-runtime", "db upgrade"),
    *(f"notices endpoints {name}" for name in ("create", "delete", "disable", "enable", "list")),
    *("notices endpoints rotate-secret", "notices endpoints update"),
    *(f"shards {name}" for name in ("assign", "balance", "create", "list", "move")),
    *(f"stripe events {name}" for name in ("ignore", "list", "replay", "show")),
}
"""They look at what is in public."""
OTHERWISE = {
    "anchors close": "needs a sink first",
    "credits refund": "needs Stripe first",
    "db downgrade": "tests/sharding/test_creation.py",
    "doctor": "tests/sharding/test_doctor.py",
    "notices tail": "goes on for ever",
    "serve": "goes on for ever",
    "shards copy": "needs another database: tests/sharding/test_copying.py",
    "stripe reconcile": "needs Stripe first",
    "worker": "goes on for ever",
}


@pytest.mark.parametrize("name", sorted(IN_GROUPS))
def test_a_command_about_users_looks_at_groups(
    groups: ConnectionParameters, run_command: RunCommand, name: str
) -> None:
    """It does what it is for, or says what it did not find; never that it cannot look."""
    assert groups
    user_of("g0001", 100, email="ada@example.com")
    result = run_command(*arguments_of(name))
    answers = {exit_codes.DONE, exit_codes.NOT_FOUND, exit_codes.REFUSED}
    assert result.exit_code in answers, result.err
    assert not re.search("SHARDING|NOT_ROUTED|does not exist", result.err)


def test_every_command_is_sorted() -> None:
    """A new one is either."""
    sorted_ = [*IN_GROUPS, *ABOUT_EVERYBODY, *OTHERWISE]
    assert len(sorted_) == len({*sorted_})
    assert {*sorted_} == COMMAND_LINES.keys() - WITHOUT_DATABASE.keys()
