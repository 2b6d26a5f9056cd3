"""`flashslides stripe …`: the inbox, payments nobody was credited for."""

import asyncio
import json
import uuid

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from src.cli.reach import in_database
from src.common.models.stripe_event import StripeEvent
from src.common.models.user import User
from src.common.settings import get_settings
from src.common.stripe import inbox
from src.common.stripe.processing import Processor
from src.common.stripe.wire import parse_event
from tests.cli.conftest import RunCommand
from tests.models.examples import a_transaction, a_user
from tests.stripe.payments import make_event, make_session


def store(event: dict[str, object]) -> None:
    """Put an event into the inbox and process it."""
    body = json.dumps(event).encode()
    asyncio.run(Processor(in_database, None, get_settings()).receive(parse_event(body), body))


def test_the_inbox_and_the_unmatched_are_listed(flashslides: RunCommand, db: Session) -> None:
    """What came, what became of it, and why nobody was credited."""
    user = a_user()
    db.add(user)
    db.commit()
    wrong = make_event(make_session(user, currency="eur"), id="evt_wrong")
    store(wrong)
    store(make_event(make_session(user), "ping", id="evt_ping"))
    events = {
        row["event_id"]: row for row in flashslides("stripe", "events", "list", "--json").json
    }
    assert {name: row["status"] for name, row in events.items()} == {
        "evt_wrong": "unmatched",
        "evt_ping": "ignored",
    }
    (payment,) = flashslides("stripe", "unmatched", "list", "--json").json
    assert payment["stripe_object_id"] == wrong["data"]["object"]["id"]
    assert (payment["reason"], payment["event_id"]) == ("CURRENCY_MISMATCH", "evt_wrong")
    assert "eur" in flashslides("stripe", "unmatched", "list").out
    assert len(flashslides("stripe", "events", "list", "--limit", "1", "--json").json) == 1


def test_nothing_is_an_empty_list(flashslides: RunCommand) -> None:
    """A sentence for people, `[]` for programs."""
    for group in ("events", "unmatched"):
        assert flashslides("stripe", group, "list", "--json").json == []
        assert flashslides("stripe", group, "list").out.strip().endswith(".")


def test_an_event_is_shown_ignored_and_replayed(flashslides: RunCommand, db: Session) -> None:
    """By its id: what it says, given up, and settled all the same once the user is there."""
    user = a_user(user_id=uuid.UUID(int=9))
    store(make_event(make_session(user.user_id), id="evt_1"))
    shown = flashslides("stripe", "events", "show", "evt_1", "--json").json
    assert (shown["status"], shown["body"]["id"]) == ("unmatched", "evt_1")
    assert flashslides("stripe", "events", "ignore", "evt_1", "--json").json["status"] == "ignored"
    db.add(user)
    db.commit()
    [replayed] = flashslides("stripe", "events", "replay", "evt_1", "--json").json
    assert replayed["answer"] == "processed"
    assert flashslides("stripe", "events", "ignore", "evt_1").exit_code == 4
    assert flashslides("stripe", "events", "show", "evt_2").exit_code == 3
    assert flashslides("stripe", "events", "replay").exit_code == 2


def test_a_dead_event_whose_replay_fails_says_so(flashslides: RunCommand, db: Session) -> None:
    """Nobody to ask about the payment: it stays dead, and the row names today's error."""
    payment = {"id": "pi_1", "livemode": False, "status": "succeeded"}
    body = json.dumps(make_event(payment, "payment_intent.succeeded", id="evt_1")).encode()
    inbox.store_event(db, parse_event(body), body)
    db.execute(update(StripeEvent).values(status="dead", attempts=16, error="of long ago"))
    db.commit()
    replayed = flashslides("stripe", "events", "replay", "evt_1", "--json")
    [row] = replayed.json
    assert (row["answer"], row["status"]) == ("accepted", "dead")
    assert replayed.exit_code == 1
    assert row["error"].startswith("STRIPE_NOT_CONFIGURED")


@pytest.mark.parametrize("unreadable", [b"no JSON at all \xff", b"[]", b'{"id": "evt_1"}'])
def test_a_body_that_nobody_can_read_holds_up_no_other(
    flashslides: RunCommand, db: Session, unreadable: bytes
) -> None:
    """Its row says so, it can be shown, and the events beside it are settled."""
    user = a_user()
    db.add(user)
    db.commit()
    for number in range(3):
        body = json.dumps(make_event(make_session(user), id=f"evt_{number}")).encode()
        inbox.store_event(db, parse_event(body), body)
    db.execute(update(StripeEvent).where(StripeEvent.event_id == "evt_1").values(body=unreadable))
    db.execute(update(StripeEvent).values(status="dead"))
    db.commit()
    replayed = flashslides("stripe", "events", "replay", "--status", "dead", "--json")
    assert replayed.exit_code == 1
    answers = {row["event_id"]: (row["answer"], row["status"]) for row in replayed.json}
    assert answers == {
        "evt_0": ("processed", "processed"),
        "evt_1": ("accepted", "dead"),
        "evt_2": ("processed", "processed"),
    }
    shown = flashslides("stripe", "events", "show", "evt_1", "--json").json
    assert shown["error"].startswith("WEBHOOK_PAYLOAD_INVALID")
    assert "evt_1" in flashslides("stripe", "events", "show", "evt_1").out


def test_events_are_selected_by_type_status_and_time(flashslides: RunCommand, db: Session) -> None:
    """Each option leaves out what it does not name."""
    assert db
    store(make_event(make_session(uuid.UUID(int=9)), id="evt_1"))
    store(make_event(make_session(uuid.UUID(int=9)), "ping", id="evt_2"))

    def listed(*options: str) -> set[str]:
        rows = flashslides("stripe", "events", "list", "--json", *options).json
        return {row["event_id"] for row in rows}

    assert listed() == {"evt_1", "evt_2"}
    assert listed("--type", "ping") == {"evt_2"}
    assert listed("--status", "unmatched") == {"evt_1"}
    assert listed("--since", "2099-01-01") == set()
    assert listed("--until", "2099-01-01") == {"evt_1", "evt_2"}
    assert flashslides("stripe", "events", "list", "--status", "lost").exit_code == 2


def test_an_unmatched_payment_is_resolved_once(flashslides: RunCommand, db: Session) -> None:
    """With a note, by whoever ran the command; then it is neither listed nor resolved again."""
    assert db
    event = make_event(make_session(uuid.UUID(int=9)), id="evt_1")
    store(event)
    name = event["data"]["object"]["id"]
    resolve = ("stripe", "unmatched", "resolve", name, "--note", "paid back by hand")
    assert flashslides(*resolve, "--json").json["status"] == "resolved"
    assert flashslides("stripe", "unmatched", "list", "--json").json == []
    assert flashslides(*resolve).exit_code == 4
    assert flashslides("stripe", "unmatched", "resolve", "cs_0", "--note", "x").exit_code == 3


def test_a_purchase_without_credits_gets_them_by_command(
    flashslides: RunCommand, db: Session
) -> None:
    """TRANSACTION_WITHOUT_CREDIT is settled with `--credit`."""
    user = a_user()
    session = make_session(uuid.UUID(int=8))
    user.user_id = uuid.UUID(int=8)
    db.add(user)
    db.flush()
    db.add(a_transaction(user_id=user.user_id, stripe_session_id=session["id"]))
    db.commit()
    store(make_event(session))
    command = ("stripe", "unmatched", "resolve", session["id"], "--note", "credited", "--credit")
    assert flashslides(*command).exit_code == 0
    db.expire_all()
    assert user.credits_balance == 500


def test_a_payment_of_nobody_is_credited_to_whom_somebody_names(
    flashslides: RunCommand, db: Session
) -> None:
    """By e-mail; more than the manual limit takes `--yes`; the event told again adds nothing."""
    user = a_user(email="ada@example.com")
    db.add(user)
    db.commit()
    event = make_event(make_session(uuid.UUID(int=9)), id="evt_1")
    store(event)
    name = event["data"]["object"]["id"]
    command = ("stripe", "unmatched", "resolve", name, "--note", "hers", "--user", user.email)
    assert "credit:" in flashslides(*command).err
    many = (*command, "--credit", "--credits", "100001")
    refused = flashslides(*many)
    assert (refused.exit_code, "CREDITS_MANUAL_LIMIT" in refused.err) == (2, True)
    credited = flashslides(*command, "--credit", "--json").json
    assert (credited["credits"], credited["status"]) == (500, "resolved")
    db.add(a_user(user_id=uuid.UUID(int=9)))
    db.commit()
    flashslides("stripe", "events", "replay", "evt_1")
    db.expire_all()
    assert (user.credits_balance, db.get_one(User, uuid.UUID(int=9)).credits_balance) == (500, 0)
    assert flashslides("stripe", "unmatched", "list", "--json").json == []


def test_without_a_key_there_is_nothing_to_reconcile_with(
    flashslides: RunCommand, db: Session
) -> None:
    """Exit code 78, a wrong configuration, and the setting's name."""
    assert db
    result = flashslides("stripe", "reconcile", "--since", "2026-11-01")
    assert result.exit_code == 78
    assert "STRIPE_SECRET_KEY" in result.err
