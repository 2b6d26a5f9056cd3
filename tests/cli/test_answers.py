"""What commands print: one shape of JSON everywhere, and for people lines that a terminal holds."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len
from sqlalchemy.orm import Session

from src.cli import output
from src.cli.output import operator
from src.common.accounts.api_keys import create_api_key
from src.common.approvals.asking import Asked
from src.common.approvals.operations import execute_or_ask
from src.common.credits import ledger
from src.common.credits.operations import execute
from src.common.models.anchor_checkpoint import AnchorCheckpoint
from src.common.models.user import User
from tests.anchors.made import KEY, checkpoint_over
from tests.approvals.requests import NOTHING_ALONE
from tests.cli.conftest import Note, Result, RunCommand
from tests.cli.every_command import COMMAND_LINES, commands
from tests.cli.test_stripe import store
from tests.credits.books import grant, spend
from tests.models.examples import a_user
from tests.models.right_rows import RIGHT
from tests.notices.outbox import EVERYTHING, add_endpoint
from tests.stripe.loop import Loop, only_purchase
from tests.stripe.payments import make_event, make_session

WIDTH = 80
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")
NAMES_AN_INSTANT = re.compile(r".*_at|since|until|next_expiry")
WITHOUT_JSON = {
    "anchors prove": "a proof, which is JSON",
    "bench": "prints its figures as its own options say",
    **dict.fromkeys(
        ["db upgrade", "db downgrade", "db current", "db history", "db check"], "Alembic"
    ),
    "console link": "the link alone",
    "db adopt": "its steps",
    "db env": "lines for a .env file",
    "db grant-runtime": "a sentence",
    "db psql": "psql",
    "db start": "a sentence",
    "db stop": "a sentence",
    "db url": "the URL alone",
    "report": "a report, as --format says",
    "serve": "a server",
    "stripe serve": "a server",
    "user token": "the token alone",
    "worker": "logs",
}
"""Commands that answer nothing a program would take apart, and what they print."""
LISTS = {
    "api-key list": "",
    "credits refund": "--list",
    "notices endpoints list": "",
    "stripe events list": "",
    "stripe events replay": "{event}",
    "stripe unmatched list": "",
}
PAGES = {
    "anchors list": "--limit 1",
    "approvals list": "",
    "credits history": "{user} --limit 2",
    "credits holds list": "{user}",
    "notices list": "",
    "purchases list": "",
    "user find": "example",
    "user list": "",
}
RECORDS = {
    "api-key create": "--scopes credits:read --expires-in-days 9",
    "api-key revoke": "{key}",
    "approvals consent": "{asked}",
    "approvals refuse": "{asked}",
    "approvals show": "{asked}",
    "approvals withdraw": "{asked_here}",
    "credits adjust": "{user} 5 --reason test",
    "credits explain": "{user}",
    "credits grant": "{user} 5 --expires-at 2100-01-31",
    "credits holds release": "{user} {hold} --reason test",
    "credits import-opening-balances": "",
    "credits refund": "{purchase} --amount-cents 100",
    "credits reverse": "{user} 3 --reason test --dry-run",
    "credits show": "{user}",
    "credits spend": "{user} 5 --dry-run",
    "db chain": "",
    "db status": "",
    "doctor": "",
    "notices endpoints create": "https://example.com/hook",
    "notices endpoints delete": "{endpoint} --yes",
    "notices endpoints disable": "{endpoint}",
    "notices endpoints enable": "{endpoint}",
    "notices endpoints rotate-secret": "{endpoint}",
    "notices endpoints update": "{endpoint} --types credits.spent",
    "notices replay": "--endpoint {endpoint}",
    "purchases show": "{purchase}",
    "stripe events ignore": "{event}",
    "stripe events show": "{event}",
    "stripe reconcile": "--since 2026-01-31",
    "stripe unmatched resolve": "{payment} --note test",
    "user activate": "{user}",
    "user create": "grace@example.com",
    "user deactivate": "{user}",
    "user erase": "{user} --yes",
    "user set-type": "{user} member",
    "user show": "{user}",
}
DIAGNOSING = "doctor"
"""Its exit code is what it found: tests/doctor."""
ELSEWHERE = {
    *("anchors check", "anchors close", "anchors keygen", "notices tail", "verify"),
    *(f"shards {name}" for name in ("assign", "balance", "copy", "create", "list", "move")),
}
"""They print a line a notice, read files and snapshots of their own, or need groups of users:
tests/cli/test_anchors.py, tests/cli/test_verify.py, tests/notices/test_commands.py,
tests/sharding/test_commands.py, tests/sharding/test_citus.py."""
ANSWERS = [
    *LISTS.items(),
    *PAGES.items(),
    ("credits holds list", "--all"),
    *RECORDS.items(),
]

NAMED_OTHERWISE = {"key", "allocations"}
"""No field's name: it is `idempotency_key`, and the API tells nobody which lots a hold is from."""

Ask = Callable[..., Result]


@pytest.fixture
def ask(db: Session, loop: Loop, user: User, flashslides: RunCommand) -> Ask:
    """Run a command on a database where there is something of everything."""
    endpoint_id = add_endpoint(db, *EVERYTHING)
    loop.offline.pay(loop.session_of(loop.buy(user.user_id)))
    loop.deliver(loop.webhooks())
    loop.refund(only_purchase(db), 100)
    stranger = a_user(user_id="00000000-0000-4000-8000-000000000002")
    session = make_session(stranger, currency="eur")
    store(make_event(session, id="evt_" + "9" * 24))
    scopes = ("credits:read", "credits:spend")
    key = create_api_key(db, service_name="default", scopes=scopes)
    spent = {"actor": operator(), "reference": "a deck of slides"}
    execute(db, [spend(user.user_id, amount, **spent) for amount in (1, 2)])
    hold = ledger.open_hold(db, user.user_id, 3, expires_in_seconds=900, key="hold")
    asked, here = (
        execute_or_ask(db, grant(user.user_id, 9, actor=who, reference="sorry"), NOTHING_ALONE)
        for who in ("system:cli:somebody-else", operator())
    )
    assert isinstance(asked, Asked)
    assert isinstance(here, Asked)
    for number in (1, 2):
        note = KEY.sign(replace(checkpoint_over([]), number=number).text)
        db.add(AnchorCheckpoint(**RIGHT[AnchorCheckpoint] | {"number": number, "note": note}))
    db.commit()
    named = {
        "endpoint": str(endpoint_id),
        "asked": str(asked.approval.approval_id),
        "asked_here": str(here.approval.approval_id),
        "hold": str(hold.seq),
        "user": str(user.user_id),
        "purchase": str(only_purchase(db).transaction_id),
        "event": "evt_" + "9" * 24,
        "payment": session["id"],
        "key": str(key.record.key_id),
    }

    def run(name: str, arguments: str, *options: str) -> Result:
        words = [word.format(**named) for word in arguments.split()]
        return flashslides(*name.split(), *words, *options)

    return run


def test_every_answer_is_looked_at() -> None:
    """A new command with `--json` needs an entry here; one without it says why."""
    with_json = {
        name
        for name, command in commands().items()
        if any("--json" in parameter.opts for parameter in command.params)
    }
    assert with_json == LISTS.keys() | PAGES.keys() | RECORDS.keys() | ELSEWHERE
    assert with_json == COMMAND_LINES.keys() - WITHOUT_JSON.keys()


@pytest.mark.parametrize(("name", "arguments"), ANSWERS)
def test_json_has_one_shape(ask: Ask, name: str, arguments: str) -> None:
    """One thing is an object, several are a list of objects, a page has the list as `items`."""
    result = ask(name, arguments, "--json")
    assert result.exit_code in (0, 1) or name == DIAGNOSING, result.err
    answer = json.loads(result.out, object_pairs_hook=with_instants_in_utc)
    if name != "api-key create":  # its `key` is the key itself
        assert fields_of(answer) & NAMED_OTHERWISE == set()
    if name in PAGES:
        assert answer.keys() == {"items", "next_cursor"}
        answer = answer["items"]
    if name in PAGES or LISTS.get(name) == arguments:
        assert (type(answer), set(map(type, answer))) in [(list, {dict}), (list, set())]
        assert answer or name == "credits refund"
    else:
        assert isinstance(answer, dict)


@pytest.mark.parametrize(("name", "arguments"), ANSWERS)
@pytest.mark.parametrize("width", [WIDTH, None])
def test_people_s_lines_fit_a_terminal(
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
    note: Note,
    name: str,
    arguments: str,
    width: int | None,
) -> None:
    """Of 80 columns; only a word that is longer sticks out. Nothing is shortened, in a pipe too."""
    monkeypatch.setattr(output, "width", lambda: width)
    result = ask(name, arguments)
    assert result.exit_code in (0, 1) or name == DIAGNOSING, result.err
    assert "…" not in result.out
    lines = result.out.splitlines()
    note(
        f"{name} --list" if arguments == "--list" else name,
        f"{width} columns" if width else "pipe",
        result.exit_code,
        f"{len(lines)} lines of at most {max(map(cell_len, lines))}",
    )
    for line in lines:
        value = line.rpartition("  ")[2]
        assert width is None or cell_len(line) <= width or " " not in value


def with_instants_in_utc(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, in which every field whose name says so is an instant in UTC."""
    for name, value in fields:
        if NAMES_AN_INSTANT.fullmatch(name) and isinstance(value, str):
            assert INSTANT.fullmatch(value), (name, value)
    return dict(fields)


def fields_of(answer: Any) -> set[str]:
    """The names of all fields, at any depth."""
    names: set[str] = set()
    json.loads(json.dumps(answer), object_pairs_hook=lambda pairs: names.update(dict(pairs)))
    return names
