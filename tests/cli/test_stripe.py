"""`flashslides stripe …`: the inbox, payments nobody was credited for."""

import asyncio
import json

from sqlalchemy.orm import Session

from src.cli.reach import in_database
from src.common.settings import get_settings
from src.common.stripe.processing import Processor
from src.common.stripe.wire import parse_event
from tests.cli.conftest import RunCommand
from tests.models.examples import a_user
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
