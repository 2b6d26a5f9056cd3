"""`flashslides stripe …`: test payments, the inbox, payments nobody was credited for."""

import asyncio
import json
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from sqlalchemy.orm import Session

from src.cli.reach import in_database
from src.common.settings import get_settings
from src.common.stripe import inbox
from src.common.stripe.processing import Processor
from src.common.stripe.signatures import verify_signature
from src.common.stripe.wire import parse_event
from src.local_postgres import free_port
from tests.cli.conftest import RunCommand
from tests.models.examples import a_user
from tests.stripe.payments import make_event, make_session


class Receiver(HTTPServer):
    """A service that keeps what it is sent and answers as told."""

    answer: tuple[int, str] = (200, '{"status": "processed"}')
    received: list[tuple[str, str | None, bytes]]

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Keep the request, answer as told."""
        assert isinstance(self.server, Receiver)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, self.headers["Stripe-Signature"], body))
        status, text = self.server.answer
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def receiver() -> Generator[Receiver]:
    """A service on loopback."""
    with Receiver(("127.0.0.1", 0), _Handler) as server:
        server.received = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def buyer(db: Session) -> str:
    """The e-mail of a user."""
    db.add(a_user(email="ada@example.com"))
    db.commit()
    return "ada@example.com"


def store(event: dict[str, object]) -> None:
    """Put an event into the inbox and process it."""
    body = json.dumps(event).encode()
    asyncio.run(Processor(in_database, None, get_settings()).receive(parse_event(body), body))


def test_a_payment_is_a_signed_event(
    flashslides: RunCommand,
    buyer: str,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Signed with the configured secret, about the chosen package; the answer is printed."""
    from src.common.settings import get_settings

    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_new,whsec_old")
    get_settings.cache_clear()
    arguments = ("--package", "2500", "--url", receiver.url, "--json")
    result = flashslides("stripe", "pay", buyer, *arguments)
    ((path, signature, body),) = receiver.received
    assert path == "/api/v1/webhook"
    verify_signature(body, signature, ["whsec_new"])
    event = parse_event(body)
    assert event.data.object["metadata"]["package_id"] == "2500"
    assert result.json == {
        "event_id": event.id,
        "session_id": event.object_id,
        "answer": "processed",
    }
    assert "whsec" not in result.out + result.err


@pytest.mark.parametrize(("status", "exit_code"), [(500, 75), (503, 75), (400, 2), (404, 2)])
def test_a_payment_that_is_refused_is_no_success(
    flashslides: RunCommand, buyer: str, receiver: Receiver, status: int, exit_code: int
) -> None:
    """A script sees the failure in the exit code, a person in the sentence."""
    receiver.answer = (status, '{"detail": {"error_type": "SOME_TYPE"}}')
    result = flashslides("stripe", "pay", buyer, "--url", receiver.url, "--json")
    assert (result.exit_code, result.out) == (exit_code, "")
    assert str(status) in result.err
    assert "SOME_TYPE" in result.err


def test_a_service_that_is_none_of_ours_is_named(
    flashslides: RunCommand, buyer: str, receiver: Receiver
) -> None:
    """Some other program's 200 is no payment."""
    receiver.answer = (200, "<html>")
    result = flashslides("stripe", "pay", buyer, "--url", receiver.url)
    assert (result.exit_code, result.out) == (75, "")


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "nonsense", "http://"])
def test_without_a_service_the_sentence_says_how_to_start_it(
    flashslides: RunCommand, buyer: str, url: str
) -> None:
    """Exit code 75: try again once it runs."""
    result = flashslides("stripe", "pay", buyer, "--url", url.format(port=free_port()))
    assert (result.exit_code, result.out) == (75, "")
    assert "flashslides serve" in result.err


def test_who_or_what_is_unknown_is_not_found(flashslides: RunCommand, buyer: str) -> None:
    """Exit code 3 for the user, the package and the event."""
    for arguments, error_type in (
        (("pay", "nobody@example.com"), "USER_NOT_FOUND"),
        (("pay", buyer, "--package", "501"), "PACKAGE_NOT_FOUND"),
        (("resend", "evt_nothing"), "EVENT_NOT_FOUND"),
    ):
        result = flashslides("stripe", *arguments)
        assert (result.exit_code, result.out) == (3, "")
        assert error_type in result.err


def test_a_stored_event_is_sent_again_byte_for_byte(
    flashslides: RunCommand, db: Session, buyer: str, receiver: Receiver
) -> None:
    """The body of the inbox, newly signed."""
    assert buyer
    body = b'{"id":"evt_1",  "type":"x","created":1,"livemode":false,"data":{"object":{}}}'
    inbox.store_event(db, parse_event(body), body)
    db.commit()
    result = flashslides("stripe", "resend", "evt_1", "--url", receiver.url, "--json")
    assert result.json == {"event_id": "evt_1", "answer": "processed"}
    assert receiver.received[0][2] == body


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
