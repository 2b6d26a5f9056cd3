"""A Stripe that only lists: paid Checkout Sessions and their PaymentIntents, made beforehand.

It costs next to nothing to ask, unlike the offline Stripe: what is measured is who asks.
"""

import json
import threading
import uuid
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from benchmarks.calls.webhooks import event_of

Lists = Mapping[str, Sequence[Mapping[str, Any]]]
"""By path, newest first."""
_SESSIONS, _PAYMENTS = "/v1/checkout/sessions", "/v1/payment_intents"


def paid(user_ids: Sequence[uuid.UUID], count: int, env: str) -> tuple[list[str], Lists]:
    """Events of so many payments, and the same payments as Stripe lists them: two objects each."""
    events = [event_of(user_ids[n % len(user_ids)], uuid.uuid4().hex, env) for n in range(count)]
    sessions = [json.loads(each)["data"]["object"] for each in events]
    payments = [_payment(each) for each in sessions]
    expanded = [
        each | {"payment_intent": payment} for each, payment in zip(sessions, payments, strict=True)
    ]
    return events, {_SESSIONS: expanded, _PAYMENTS: payments}


def _payment(session: Mapping[str, Any]) -> dict[str, Any]:
    amount = session["amount_total"]
    return {
        "id": session["payment_intent"],
        "object": "payment_intent",
        "amount": amount,
        "amount_received": amount,
        "created": 1_800_000_000,
        "currency": session["currency"],
        "latest_charge": session["payment_intent"].replace("pi_", "ch_"),
        "livemode": False,
        "metadata": session["metadata"],
        "payment_method_types": ["card"],
        "status": "succeeded",
    }


@contextmanager
def listing(lists: Lists) -> Generator[str]:
    """Serve them on loopback until the block ends; yields the address."""
    server = _Server(lists)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Pages:
    """Each list's pages, by what Stripe's clients ask for."""

    def __init__(self, lists: Lists) -> None:
        self._lists = lists
        self._places = {
            (path, each["id"]): place
            for path, objects in lists.items()
            for place, each in enumerate(objects)
        }
        self._sessions_of = {
            each["payment_intent"]["id"]: each for each in lists.get(_SESSIONS, ())
        }

    def page(self, path: str, asked: Mapping[str, Sequence[str]]) -> bytes:
        """The page that was asked for, or the session of a PaymentIntent."""
        if "payment_intent" in asked:
            found = [self._sessions_of[asked["payment_intent"][0]]]
            return _as_list(path, found, has_more=False)
        first, limit = 0, int(asked["limit"][0])
        if "starting_after" in asked:
            first = self._places[path, asked["starting_after"][0]] + 1
        objects = self._lists.get(path, ())
        following = first + limit
        return _as_list(path, objects[first:following], has_more=following < len(objects))


def _as_list(path: str, objects: Sequence[Mapping[str, Any]], *, has_more: bool) -> bytes:
    page = {"object": "list", "data": objects, "has_more": has_more, "url": path}
    return json.dumps(page, indent=2).encode()


class _Server(ThreadingHTTPServer):
    """Any free port of loopback's."""

    def __init__(self, lists: Lists) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages = _Pages(lists)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET of a list."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer a page."""
        url = urlsplit(self.path)
        assert isinstance(self.server, _Server)  # noqa: S101  who made this handler
        body = self.server.pages.page(url.path, parse_qs(url.query))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as the base names it
        """Say nothing."""
