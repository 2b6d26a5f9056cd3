"""Commands about one user answer for users of every group; lists are of all of them."""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from src.cli.reach import in_database
from src.common.database import SessionLocal
from src.common.models import User
from src.common.purchases import unmatched
from src.common.purchases.rules import Mismatch, Reason
from src.common.routing import routed_to
from src.common.settings import get_settings
from src.common.stripe.processing import Processor
from src.common.stripe.wire import parse_event
from src.local_postgres import ConnectionParameters
from tests.cli.conftest import RunCommand, data_folder, run_command
from tests.sharding.conftest import GROUPS
from tests.sharding.people import balance_of, user_of
from tests.sharding.service import switch_triggers_off
from tests.stripe.payments import make_event, make_session, to_body

__all__ = ["data_folder", "run_command"]

Answer = Callable[..., Any]


@pytest.fixture
def people(groups: ConnectionParameters) -> list[tuple[uuid.UUID, str]]:
    """A user of each group with 100 credits, and their e-mail."""
    assert groups
    emails = [f"{group}@example.com" for group in GROUPS]
    return [
        (user_of(group, 100, email=email), email)
        for group, email in zip(GROUPS, emails, strict=True)
    ]


@pytest.fixture
def answer(run_command: RunCommand) -> Answer:
    """What a command prints with --json, once it has succeeded."""

    def run(*arguments: str) -> Any:
        result = run_command(*arguments, "--json")
        assert result.exit_code == 0, result.err
        return result.json

    return run


def buy(*users: uuid.UUID) -> list[str]:
    """A purchase for each, settled as its event is; the sessions' ids."""
    sessions = [make_session(each) for each in users]
    processor = Processor(in_database, None, get_settings())

    async def settle() -> None:
        for session in sessions:
            body = to_body(make_event(session))
            assert await processor.receive(parse_event(body), body) == "processed"

    asyncio.run(settle())
    return [session["id"] for session in sessions]


def paged(answer: Answer, *arguments: str) -> Iterator[Any]:
    """All items of a list, two at a time."""
    cursor: tuple[str, ...] = ()
    while True:
        page = answer(*arguments, "--limit", "2", *cursor)
        assert len(page["items"]) <= 2
        yield from page["items"]
        if page["next_cursor"] is None:
            return
        cursor = ("--cursor", page["next_cursor"])


def test_a_user_of_any_group_is_shown_and_changed(
    people: list[tuple[uuid.UUID, str]], answer: Answer
) -> None:
    """By e-mail or id, whatever the group."""
    for user_id, email in people:
        for name in (email.upper(), str(user_id)):
            assert answer("user", "show", name)["user_id"] == str(user_id)
        assert answer("user", "deactivate", email)["is_active"] is False
        assert answer("user", "activate", str(user_id))["is_active"] is True
        assert answer("user", "set-type", email, "member")["user_type"] == "member"
    erased = answer("user", "erase", people[3][1], "--yes")
    assert erased["email"] == f"erased+{people[3][0]}@invalid"
    assert answer("user", "show", str(people[3][0]))["email"] == erased["email"]


def test_credits_of_a_user_of_any_group_are_shown_and_moved(
    people: list[tuple[uuid.UUID, str]], answer: Answer
) -> None:
    """Shown, explained, spent, granted, adjusted, held and undone: in the user's own group."""
    for user_id, email in people:
        assert answer("credits", "show", email)["balance"] == 100
        spent = answer("credits", "spend", email, "30", "--key", "one")
        assert answer("credits", "spend", str(user_id), "30", "--key", "one")["replayed"]
        assert answer("credits", "grant", email, "5", "--key", "two")["balance"] == 75
        seq = str(spent["seq"])
        undone = answer("credits", "reverse", email, seq, "--reason", "wrong", "--key", "three")
        assert undone["balance"] == 105
        foreseen = answer("credits", "adjust", email, "-5", "--reason", "a look", "--dry-run")
        assert foreseen["balance"] == 100
        entries = answer("credits", "history", email)["items"]
        assert [each["kind"] for each in entries] == ["reversal", "grant", "spend", "grant"]
        assert answer("credits", "explain", email)["agrees"]
    assert [balance_of(user_id) for user_id, _ in people] == [105] * len(people)


def test_nobody_of_this_name_is_said(
    people: list[tuple[uuid.UUID, str]], run_command: RunCommand
) -> None:
    """With the error and exit code of ever."""
    assert people
    for name in ("nobody@example.com", str(uuid.uuid4())):
        for arguments in (("user", "show"), ("credits", "show"), ("credits", "history")):
            result = run_command(*arguments, name)
            assert (result.exit_code, result.out) == (3, "")
            assert "USER_NOT_FOUND" in result.err


def test_a_newcomer_is_made_in_some_group(
    groups: ConnectionParameters, answer: Answer, run_command: RunCommand
) -> None:
    """And is found there; the e-mail is taken in all groups."""
    assert groups
    made = answer("user", "create", "new@example.com")
    assert answer("user", "show", "new@example.com")["user_id"] == made["user_id"]
    assert "EMAIL_TAKEN" in run_command("user", "create", "NEW@example.com").err


def test_lists_are_of_all_groups_in_one_order(
    people: list[tuple[uuid.UUID, str]], answer: Answer
) -> None:
    """Users, purchases and open holds: each once, a page after the other."""
    users = [user_id for user_id, _ in people]
    buy(*users)
    for user_id, email in people:
        with routed_to(user_id), SessionLocal.begin() as session:
            # as they are listed: by time
            switch_triggers_off(session)
            user = session.get_one(User, user_id)
            user.created_at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(
                days=users.index(user_id)
            )
        assert answer("credits", "spend", email, "1", "--key", "x")["balance"] == 599
    found = [each["user_id"] for each in paged(answer, "user", "list")]
    assert found == [str(each) for each in reversed(users)]
    assert [each["user_id"] for each in paged(answer, "user", "find", "g0003@")] == [str(users[2])]
    bought = [each["user_id"] for each in paged(answer, "purchases", "list")]
    assert bought == [str(each) for each in reversed(users)]
    of_one = answer("purchases", "list", "--user", people[4][1])["items"]
    assert [each["user_id"] for each in of_one] == [str(users[4])]
    shown = answer("purchases", "show", of_one[0]["stripe_session_id"])
    assert shown["user_id"] == str(users[4])
    assert answer("purchases", "show", of_one[0]["transaction_id"])["entries"]


def test_an_unmatched_payment_is_listed_and_credited_in_its_user_s_group(
    people: list[tuple[uuid.UUID, str]], answer: Answer
) -> None:
    """Of somebody whom the payment names, and of somebody whom the operator names."""
    ada, bob = people[1], people[6]
    sessions = [make_session(each[0], amount_subtotal=1, amount_total=1) for each in (ada, bob)]
    with SessionLocal.begin() as session:
        for each in sessions:
            event = parse_event(to_body(make_event(each)))
            assert event.id
            from src.common.stripe.wire import CheckoutSession

            payment = CheckoutSession.model_validate(each).as_payment()
            unmatched.note(session, payment, Mismatch(Reason.AMOUNT_MISMATCH, "too little"), "t")
    listed = answer("stripe", "unmatched", "list")
    assert {each["stripe_object_id"] for each in listed} == {each["id"] for each in sessions}
    first = ("stripe", "unmatched", "resolve", sessions[0]["id"], "--note", "fine", "--credit")
    assert answer(*first)["user_id"] == str(ada[0])
    second = ("stripe", "unmatched", "resolve", sessions[1]["id"], "--note", "fine", "--credit")
    assert answer(*second, "--user", people[2][1])["user_id"] == str(people[2][0])
    assert [balance_of(each[0]) for each in (ada, bob, people[2])] == [600, 100, 600]
    assert answer("stripe", "unmatched", "list") == []


def test_verify_goes_through_all_groups(
    people: list[tuple[uuid.UUID, str]], answer: Answer, run_command: RunCommand
) -> None:
    """In one process or several; one user, a sample; and names whose books differ."""
    for arguments in ((), ("--jobs", "2")):
        assert answer("verify", *arguments)["users"] == len(GROUPS)
    assert answer("verify", "--sample", "3")["users"] == 3
    assert answer("verify", "--user", people[5][1])["users"] == 1
    with routed_to(people[5][0]), SessionLocal.begin() as session:
        switch_triggers_off(session)
        session.execute(text("UPDATE credit_lots SET remaining = remaining - 1"))
    found = run_command("verify", "--json")
    assert found.exit_code == 1
    assert {each["user_id"] for each in found.json["first"]} == {str(people[5][0])}
    assert found.json["users"] == len(GROUPS)


def test_the_worker_is_done_with_every_group_once(
    people: list[tuple[uuid.UUID, str]], run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`worker --once` ends with 0, and with 1 where a user of any group cannot be booked."""

    def stay_with_the_tests(_number: int, _handler: object) -> None:
        """Signals are theirs."""

    monkeypatch.setattr("src.cli.worker.signal.signal", stay_with_the_tests)
    assert run_command("worker", "--once").exit_code == 0
    with routed_to(people[7][0]), SessionLocal.begin() as session:
        session.execute(
            text(
                "INSERT INTO credit_booking_failures (user_id, credits_version, error_type,"
                " message, attempts, first_failed_at, last_failed_at, next_attempt_at)"
                " SELECT user_id, credits_version, 'A', 'b', 1, now(), now(),"
                " now() + interval '1 hour' FROM users"
            )
        )
    assert run_command("worker", "--once").exit_code == 1
