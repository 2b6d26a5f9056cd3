"""Whoever asks a replica is told who answered: over HTTP, at the command line, in the console."""

import datetime as dt
import json
import uuid
from typing import Any

import pytest
from sqlalchemy import text

from src.common.accounts.api_keys import Scope
from src.common.async_database import dispose_async_db
from src.common.async_replicas import dispose_async_replicas
from src.common.database import SessionLocal
from src.common.doctor import replica
from src.common.doctor.catalogue import named
from src.common.doctor.checks import Status
from src.common.doctor.context import Context
from src.common.doctor.examination import Examined, examine
from src.common.settings import get_settings
from src.console.permissions import Role
from tests.api.test_database_trouble import metric
from tests.cli.conftest import RunCommand
from tests.fixtures.api import Api, error_type_of, make_api_key
from tests.fixtures.console import Console
from tests.fixtures.standbys import Pair
from tests.replicas.conftest import SettingsOf, give, user_with, wait_for_received

pytestmark = pytest.mark.xdist_group("pair of servers: surfaces")

SCOPES = (Scope.CREDITS_READ, Scope.CREDITS_SPEND, Scope.USERS_READ, Scope.REPORTS_READ)
MAY_LAG = (
    "/user/{user_id}/credits/entries",
    "/user/{user_id}/credits/explain",
    "/user/{user_id}/transactions",
    "/reports/liability",
)
NEVER = (
    "/user/{user_id}/credits",
    "/user/{user_id}/credits/holds",
    "/user/{user_id}",
)


async def test_over_http_an_answer_says_who_gave_it_and_as_of_when(
    served: Api, replicated: Pair
) -> None:
    """Where a replica was asked for; and nothing of the kind where none was."""
    user_id = user_with(100)
    token = await make_api_key(*SCOPES)
    replicated.catch_up()
    for path in MAY_LAG:
        here = path.format(user_id=user_id)
        answer = await served.get(here, token, params={"read": "replica"})
        assert (answer.status_code, answer.headers["X-Read-From"]) == (200, "replica"), path
        assert dt.datetime.fromisoformat(answer.headers["X-Read-As-Of"]).tzinfo is not None
        assert float(answer.headers["X-Read-Lag-Seconds"]) >= 0
        plain = await served.get(here, token)
        assert not [name for name in plain.headers if name.startswith("x-read-")], path
        assert plain.content == answer.content or path.endswith(("explain", "liability"))


async def test_what_one_decides_by_is_never_a_replica_s(served: Api, replicated: Pair) -> None:
    """Asked for or not: balance, holds and profile are those of now."""
    user_id = user_with(100)
    token = await make_api_key(*SCOPES)
    with replicated.paused():
        give(user_id, 7)
        for path in NEVER:
            answer = await served.get(
                path.format(user_id=user_id), token, params={"read": "replica"}
            )
            assert answer.status_code == 200
            assert "X-Read-From" not in answer.headers
        balance = await served.get(NEVER[0].format(user_id=user_id), token, params={"read": "x"})
        assert balance.json()["balance"] == 107


async def test_a_client_that_sends_back_what_it_was_told_sees_its_own_write(
    served: Api, replicated: Pair
) -> None:
    """The header of a write's answer, a balance's ETag, or the number alone."""
    user_id = user_with(100)
    token = await make_api_key(*SCOPES)
    entries = MAY_LAG[0].format(user_id=user_id)

    async def read(after: str | None) -> tuple[str, int]:
        headers = {} if after is None else {"X-Read-After": after}
        answer = await served.get(entries, token, params={"read": "replica"}, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.headers["X-Read-From"], len(answer.json()["items"])

    with replicated.paused():
        spent = await served.call(
            "POST",
            f"/user/{user_id}/credits/spend",
            token,
            json={"amount": 5},
            headers={"Idempotency-Key": "slides"},
        )
        assert spent.headers["X-Read-After"] == str(spent.json()["seq"]) == "2"
        balance = await served.get(NEVER[0].format(user_id=user_id), token)
        assert balance.headers["X-Read-After"] == str(balance.json()["version"]) == "2"
        etag = balance.headers["ETag"]
        assert await read(None) == await read("1") == ("replica", 1)
        for told in (spent.headers["X-Read-After"], etag, f"W/{etag}", '"2"'):
            assert await read(told) == ("primary", 2)
    assert await read(etag) == ("replica", 2)


async def test_what_cannot_be_understood_is_named(served: Api) -> None:
    """422 for the header and for the parameter."""
    token = await make_api_key(*SCOPES)
    path = MAY_LAG[0].format(user_id=uuid.uuid4())
    for request, field in (
        ({"params": {"read": "somewhere"}}, "query.read"),
        (
            {"params": {"read": "replica"}, "headers": {"X-Read-After": "now"}},
            "header.x-read-after",
        ),
    ):
        answer = await served.get(path, token, **request)
        assert (answer.status_code, error_type_of(answer)) == (422, "VALIDATION_ERROR")
        assert field in answer.text.lower()


async def test_a_stranger_is_one_at_the_primary_too(served: Api) -> None:
    """404 is the primary's word."""
    token = await make_api_key(*SCOPES)
    for path in MAY_LAG[:3]:
        answer = await served.get(
            path.format(user_id=uuid.uuid4()), token, params={"read": "replica"}
        )
        assert (answer.status_code, error_type_of(answer)) == (404, "USER_NOT_FOUND")


async def test_a_scrape_tells_of_the_replica(
    served: Api, replicated: Pair, settings_of: SettingsOf
) -> None:
    """Whether it answers, as a standby, and how far it is behind."""
    name = f'replica="{replicated.standby.host}:{replicated.standby.port}"'
    assert await metric(served, f"flashslides_replica_up{{{name}}}") == 1
    replicated.catch_up()
    assert 0 <= await metric(served, f"flashslides_replica_lag_seconds{{{name}}}") < float("inf")
    await dispose_async_db()
    await dispose_async_replicas()
    settings_of(port=replicated.primary.port)
    name = f'replica="{replicated.primary.host}:{replicated.primary.port}"'
    assert await metric(served, f"flashslides_replica_up{{{name}}}") == 0
    assert await metric(served, f"flashslides_replica_lag_seconds{{{name}}}") == float("inf")


async def test_the_consoles_lists_are_read_from_it_and_noted_at_the_primary(
    served: Api, replicated: Pair
) -> None:
    """Where the setting says so; each page says as of when."""
    user_with(100)
    browser = Console(served.client)
    await browser.sign_in(Role.ADMIN)
    replicated.catch_up()
    before = replicated.on_primary("SELECT count(*) FROM console_actions")
    for path in ("/users", "/payments", "/reports/liability?time_zone=UTC", "/"):
        page = await browser.get(path)
        assert page.status_code == 200, path
        assert "Read from a replica, as of" in page.text, path
    assert replicated.on_primary("SELECT count(*) FROM console_actions") == before + 2
    for path in ("/unmatched", "/inbox", "/approvals"):
        assert "Read from a replica" not in (await browser.get(path)).text, path


COMMANDS = (
    "credits history {user_id} --from-replica",
    "credits explain {user_id} --from-replica --json",
    "purchases list --user {user_id} --from-replica",
    "user list --from-replica --limit 1",
    "user find {user_id} --from-replica",
    "report liability --from-replica",
    "report movements --format json --from-replica",
    "verify --from-replica",
    "verify --from-replica --user {user_id} --json",
    "verify --from-replica --sample 1",
    "doctor debts --from-replica",
    "doctor debts --from-replica --json",
)


@pytest.mark.parametrize("line", COMMANDS)
async def test_a_command_says_on_stderr_who_answered(
    line: str, replicated: Pair, run_command: RunCommand
) -> None:
    """And prints the same as of the primary."""
    user_id = user_with(100)
    replicated.catch_up()
    words = line.format(user_id=user_id).split()
    found = run_command(*words)
    assert found.exit_code == 0, found.err
    assert "Read from the replica, as of 20" in found.err
    words.remove("--from-replica")
    plain = run_command(*words)
    assert "replica" not in plain.err
    if "--json" in words:
        assert json.loads(plain.out) == without_read_from(found.out)
    elif words[0] != "report":  # which says of when it is
        assert plain.out == found.out


def without_read_from(printed: str) -> dict[str, Any]:
    """What a replica's answer says as JSON besides who gave it, and as of when."""
    answer: dict[str, Any] = json.loads(printed)
    told = answer.pop("read_from")
    assert (told["source"], told["because"]) == ("replica", None)
    assert dt.datetime.fromisoformat(told["as_of"]) <= dt.datetime.now(dt.UTC)
    assert told["lag_seconds"] >= 0
    return answer


@pytest.mark.parametrize(
    "line", ["credits history {user_id}", "purchases list --user {user_id}", "user find {user_id}"]
)
async def test_a_list_says_so_in_its_json(
    line: str, replicated: Pair, run_command: RunCommand
) -> None:
    """Only where a replica was asked for; all else is the same."""
    user_id = user_with(100)
    replicated.catch_up()
    words = line.format(user_id=user_id).split()
    found = run_command(*words, "--json", "--from-replica")
    assert json.loads(run_command(*words, "--json").out) == without_read_from(found.out)


async def test_a_command_says_why_the_primary_answered(
    replicated: Pair, run_command: RunCommand, settings_of: SettingsOf
) -> None:
    """One limit for all of them; the answer is the primary's."""
    settings_of(lag_max_seconds=0)
    user_id = user_with(100)
    with replicated.paused():
        give(user_id, 7)
        wait_for_received(replicated)
        for words in (f"credits history {user_id} --json", "verify"):
            found = run_command(*words.split(), "--from-replica")
            assert found.exit_code == 0
            assert "Read from the primary: the replica is" in found.err
            assert "behind, and may be 0 s." in found.err
        history = run_command("credits", "history", str(user_id), "--json", "--from-replica")
        answer = json.loads(history.out)
        assert len(answer["items"]) == 2
        assert (answer["read_from"]["source"], answer["read_from"]["because"]) == (
            "primary",
            "lagging",
        )


async def test_books_that_a_replica_lacks_are_not_said_to_balance(
    replicated: Pair, run_command: RunCommand
) -> None:
    """Nobody has looked at them there; the primary has them."""
    user_with(100)
    with replicated.paused():
        user_id = user_with(100)
        found = run_command("verify", "--from-replica", "--user", str(user_id), "--json")
    assert "Read from the replica" in found.err
    assert (found.exit_code, json.loads(found.out)["users"]) == (0, 1)


async def test_verify_shares_a_replica_among_processes(
    replicated: Pair, run_command: RunCommand
) -> None:
    """Each has a connection of its own, to the replica as well: the primary sees none of them."""
    user_with(100)
    replicated.catch_up()
    found = run_command("verify", "--from-replica", "--jobs", "2")
    assert (found.exit_code, "All books balance." in found.out) == (0, True)


async def test_without_a_replica_the_option_is_refused(
    replicated: Pair, run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever wants to spare the primary is told that nothing would."""
    assert replicated
    monkeypatch.delenv("DATABASE_REPLICA_HOST")
    get_settings.cache_clear()
    for words in ("verify", "report liability", "doctor debts", "user list"):
        found = run_command(*words.split(), "--from-replica")
        assert found.exit_code == 2
        assert "--from-replica: DATABASE_REPLICA_HOST is not set" in found.err


def looked_at() -> Examined:
    """What doctor says of the replica."""
    context = Context()
    try:
        [examined] = examine(named(["read-replica"]), context)
    finally:
        context.close()
    return examined


async def test_doctor_knows_the_replicas_state(
    replicated: Pair, settings_of: SettingsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of its troubles has its own sentence and next step."""
    replicated.catch_up()
    assert looked_at().status is Status.OK
    assert "s behind, of 1e+06 s that it may be" in looked_at().seen
    settings_of(lag_max_seconds=60)
    found = looked_at()
    assert (found.status, "sign of life after 1800 s" in found.seen) == (Status.WARN, True)
    assert "wal_receiver_timeout = '60s'" in str(found.next)
    settings_of(lag_max_seconds=1_000_000)
    with replicated.paused():
        assert (looked_at().status, "replay is paused" in looked_at().seen) == (Status.WARN, True)
    with replicated.disconnected():
        found = looked_at()
        assert (found.status, "receives nothing" in found.seen) == (Status.WARN, True)
    with monkeypatch.context() as patch:
        patch.setattr(replica, "_CLUSTER", text("SELECT pg_is_in_recovery()"))
        assert (looked_at().status, "of another primary" in looked_at().seen) == (Status.FAIL, True)
    settings_of(port=replicated.primary.port)
    assert (looked_at().status, "is no standby" in looked_at().seen) == (Status.FAIL, True)
    settings_of(port=1)
    assert (looked_at().status, "does not answer" in looked_at().seen) == (Status.WARN, True)
    monkeypatch.delenv("DATABASE_REPLICA_HOST")
    get_settings.cache_clear()
    assert looked_at().status is Status.SKIPPED


async def test_a_role_that_may_not_look_at_the_receiver_is_told_what_to_grant(
    replicated: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then the replica counts as old as its last commit: nobody can vouch for it."""
    role, password = f"role_{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    replicated.on_primary(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
    replicated.catch_up()
    monkeypatch.setenv("DATABASE_USER", role)
    monkeypatch.setenv("DATABASE_PASSWORD", password)
    get_settings.cache_clear()
    found = looked_at()
    assert (found.status, found.next is not None) == (Status.UNKNOWN, True)
    assert "pg_read_all_stats" in str(found.next)
    replicated.on_primary(f"GRANT pg_read_all_stats TO {role}")
    replicated.catch_up()
    assert looked_at().status is Status.OK


async def test_verifying_goes_on_at_the_primary_where_a_replica_gives_up(
    replicated: Pair, settings_of: SettingsOf
) -> None:
    """Batch by batch: one that recovery cancels is no error, and no gap."""
    from src.common.credits.verification.verify import verify
    from src.common.replicas import ReplicaSessionLocal

    user_with(100)
    settings_of(port=1)  # away since a moment ago
    users = replicated.on_primary("SELECT count(*) FROM users")
    *_, report = verify(ReplicaSessionLocal, otherwise=SessionLocal)
    assert (report.users, report.differences) == (users, 0)
