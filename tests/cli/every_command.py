"""Every command there is, with the least it takes to do something."""

import shlex
from collections.abc import Iterator
from typing import Any

from typer.core import TyperGroup
from typer.main import get_command

from src.cli.commands import app

_ID = "00000000-0000-4000-8000-000000000001"

COMMAND_LINES = {
    "anchors check": "proof.json",
    "anchors close": "",
    "anchors keygen": "key",
    "anchors list": "",
    "anchors prove": "ada@example.com 1",
    "api-key create": "--scopes credits:read",
    "api-key list": "",
    "api-key revoke": _ID,
    "approvals consent": _ID,
    "approvals list": "",
    "approvals refuse": _ID,
    "approvals show": _ID,
    "approvals withdraw": _ID,
    "bench": "",
    "credits adjust": "ada@example.com 5 --reason test",
    "credits explain": "ada@example.com",
    "credits grant": "ada@example.com 5",
    "credits history": "ada@example.com",
    "credits holds list": "ada@example.com",
    "credits holds release": "ada@example.com 1 --reason test",
    "credits import-opening-balances": "",
    "credits refund": _ID,
    "credits reverse": "ada@example.com 1 --reason test",
    "credits show": "ada@example.com",
    "credits spend": "ada@example.com 5",
    "db adopt": "",
    "db chain": "",
    "db check": "",
    "db current": "",
    "db downgrade": "base",
    "db env": "",
    "db grant-runtime": "service_of_a_test",
    "db history": "",
    "db psql": "",
    "db start": "",
    "db status": "",
    "db stop": "",
    "db upgrade": "",
    "db url": "",
    "doctor": "",
    "notices endpoints create": "https://example.com/hook",
    "notices endpoints delete": f"{_ID} --yes",
    "notices endpoints disable": _ID,
    "notices endpoints enable": _ID,
    "notices endpoints list": "",
    "notices endpoints rotate-secret": _ID,
    "notices endpoints update": _ID,
    "notices list": "",
    "notices replay": "--type credits.granted",
    "notices tail": "",
    "purchases list": "",
    "purchases show": _ID,
    "report": "liability",
    "serve": "",
    "shards assign": "g0001 --open",
    "shards balance": "",
    "shards copy": "--from old",
    "shards create": "",
    "shards list": "",
    "shards move": "g0001 10.0.0.1:5432",
    "stripe events ignore": "evt_1",
    "stripe events list": "",
    "stripe events replay": "evt_1",
    "stripe events show": "evt_1",
    "stripe reconcile": "--since 2030-01-31",
    "stripe serve": "",
    "stripe unmatched list": "",
    "stripe unmatched resolve": "cs_1 --note test",
    "console link": "",
    "user activate": "ada@example.com",
    "user create": "ada@example.com",
    "user deactivate": "ada@example.com",
    "user find": "ada",
    "user list": "",
    "user erase": "ada@example.com --yes",
    "user set-type": "ada@example.com member",
    "user show": "ada@example.com",
    "user token": "ada@example.com",
    "verify": "",
    "worker": "",
}
"""By the command's name; a new command needs an entry, and every test here then asks it."""

WITHOUT_DATABASE = {
    "anchors check": "reads a file",
    "anchors keygen": "writes a file",
    "bench": "measures on a server of its own",
    "db env": "prints the embedded server's parameters from its data folder",
    "db history": "lists the migrations of this installation",
    "db psql": "psql connects, and answers itself",
    "db start": "starts the embedded server",
    "db status": "looks at the embedded server's data folder",
    "db stop": "stops the embedded server",
    "db url": "prints the settings",
    "stripe serve": "keeps its state in a file",
}
"""The commands that never ask the configured database, and why."""


def commands() -> dict[str, Any]:
    """Every command that does something, by name."""
    return dict(_leaves((), get_command(app)))


def arguments_of(name: str) -> list[str]:
    """A command as it is typed."""
    return [*name.split(), *shlex.split(COMMAND_LINES[name])]


def _leaves(path: tuple[str, ...], command: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(command, TyperGroup):
        yield " ".join(path), command
        return
    for name, inner in command.commands.items():
        yield from _leaves((*path, name), inner)
