"""Webhooks: endpoints, and which event goes to whom, when, how often and signed with what.

Nothing here sends anything: `due` says what to send now, `answered` takes what the receiver said.
Whoever sends is `sender.py`, or a test.
"""

import json
import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import stripe

from src.offline_stripe.account import API_VERSION, Account, Object
from src.offline_stripe.catalog import merged_metadata, metadata_of
from src.offline_stripe.errors import invalid
from src.offline_stripe.listing import matches, page

RETRY_DELAYS_SECONDS = (1, 5, 25, 125, 625, 3_125, 15_625, 78_125)
"""Backoff; Stripe's own takes up to three days and is not published to the second."""
_WRONG_SECRET = "whsec_of_somebody_else"  # noqa: S105  it is meant to be wrong


class Secret(StrEnum):
    """What deliveries are signed with."""

    RIGHT = "right"
    WRONG = "wrong"
    """As a forger would."""
    ROTATING = "rotating"
    """With the old and a new secret, two `v1=`, as Stripe does while one is rotated out."""
    ROTATED = "rotated"
    """With the new secret alone: who knows only the old one must refuse."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong on the way, by chance; the chances are per event and endpoint, 0 to 1."""

    drop: float = 0
    duplicate: float = 0
    delay: float = 0
    delay_seconds_max: int = 600
    reorder: bool = False
    """What is due at the same time goes out in any order."""
    secret: Secret = Secret.RIGHT


@dataclass(frozen=True)
class Delivery:
    """One request to make: POST `body` to `url` with `headers`."""

    delivery_id: str
    event_id: str
    event_type: str
    url: str
    body: bytes
    headers: dict[str, str]
    attempt: int


class Webhooks:
    """The queue of deliveries of one account."""

    def __init__(self, account: Account) -> None:
        self.faults = Faults()
        self.is_paused = False
        """Deliveries wait, and go out when this is False again."""
        self._account = account
        self._random = random.Random(account.state.seed)  # noqa: S311  chance under a seed, no secret
        account.listeners.append(self._queue_event)

    def due(self) -> list[Delivery]:
        """Take what is to be sent now out of the queue, in the order to send it."""
        if self.is_paused:
            return []
        now = self._account.now()
        queue = self._account.state.deliveries
        taken = [each for each in queue if not each["sent"] and each["due"] <= now]
        if self.faults.reorder:
            self._random.shuffle(taken)
        for each in taken:
            each["sent"] = True
        ready = [self._prepare(each, now) for each in taken]
        return [each for each in ready if each is not None]

    def next_due_at(self) -> int | None:
        """When something is to be sent next, Unix time."""
        if self.is_paused:
            return None
        times = [each["due"] for each in self._account.state.deliveries if not each["sent"]]
        return min(times, default=None)

    def answered(self, delivery_id: str, status: int | None) -> None:
        """What came back: an HTTP status, or None if nobody answered. Not 2xx is tried again."""
        queue = self._account.state.deliveries
        entry = next((each for each in queue if each["id"] == delivery_id), None)
        if entry is None:
            return
        entry["answers"].append(status)
        succeeded = status is not None and 200 <= status < 300  # noqa: PLR2004  that is 2xx
        retries = len(entry["answers"])
        if not succeeded and retries <= len(RETRY_DELAYS_SECONDS):
            entry |= {"sent": False, "due": self._account.now() + RETRY_DELAYS_SECONDS[retries - 1]}
            return
        queue.remove(entry)
        event = self._account.find("event", entry["event"])
        if event is not None and succeeded:
            event["pending_webhooks"] = max(0, event["pending_webhooks"] - 1)

    def requeue(self) -> None:
        """Send again what was taken but never answered (after a stop)."""
        for each in self._account.state.deliveries:
            each["sent"] = False

    def _queue_event(self, event: Object) -> None:
        for endpoint in self._account.all("webhook_endpoint"):
            if not _wants(endpoint, event["type"]):
                continue
            faults = self.faults
            if self._random.random() < faults.drop:
                continue
            copies = 2 if self._random.random() < faults.duplicate else 1
            for _ in range(copies):
                due = event["created"]
                if self._random.random() < faults.delay:
                    due += self._random.randint(1, faults.delay_seconds_max)
                _enqueue(self._account, event, endpoint, due)

    def _prepare(self, entry: Object, now: int) -> Delivery | None:
        event = self._account.find("event", entry["event"])
        endpoint = self._account.find("webhook_endpoint", entry["endpoint"])
        if event is None or endpoint is None or endpoint.get("deleted"):
            self._account.state.deliveries.remove(entry)
            return None
        body = json.dumps(event, indent=2)
        return Delivery(
            delivery_id=entry["id"],
            event_id=event["id"],
            event_type=event["type"],
            url=endpoint["url"],
            body=body.encode(),
            headers={
                "Content-Type": "application/json; charset=utf-8",
                "Stripe-Signature": self._signature(endpoint["id"], body, now),
                "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
            },
            attempt=len(entry["answers"]) + 1,
        )

    def _signature(self, endpoint_id: str, body: str, now: int) -> str:
        private = self._account.private(endpoint_id)
        mode = self.faults.secret
        secrets: dict[Secret, list[str]] = {
            Secret.RIGHT: [private["secret"]],
            Secret.WRONG: [_WRONG_SECRET],
            Secret.ROTATING: [private["secret"], private["next_secret"]],
            Secret.ROTATED: [private["next_secret"]],
        }
        headers = [_sign(body, secret, now) for secret in secrets[mode]]
        return ",".join([headers[0], *(each.split(",", 1)[1] for each in headers[1:])])


def create(account: Account, parameters: Object) -> Object:
    """`POST /v1/webhook_endpoints`; only this answer shows the secret."""
    url = parameters["url"]
    if not url.startswith(("http://", "https://")):
        raise invalid("Invalid URL: An explicit scheme (such as https) must be provided.", "url")
    version = parameters.get("api_version")
    if version not in (None, API_VERSION):
        raise invalid(f"The offline Stripe has events of {API_VERSION} only", "api_version")
    endpoint = add_endpoint(
        account,
        url,
        secret=account.new_id("whsec", 32),
        api_version=version,
        enabled_events=parameters["enabled_events"],
        description=parameters.get("description"),
        metadata=metadata_of(parameters),
    )
    return {**endpoint, "secret": account.private(endpoint["id"])["secret"]}


def add_endpoint(account: Account, url: str, *, secret: str, **fields: Any) -> Object:
    """An endpoint that gets every event, unless `enabled_events` says which."""
    endpoint = account.add(
        {
            "id": account.new_id("we"),
            "object": "webhook_endpoint",
            "api_version": None,
            "application": None,
            "created": account.now(),
            "description": None,
            "enabled_events": ["*"],
            "livemode": False,
            "metadata": {},
            "status": "enabled",
            "url": url,
            **fields,
        }
    )
    account.private(endpoint["id"]).update(secret=secret, next_secret=account.new_id("whsec", 32))
    return endpoint


def update(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/webhook_endpoints/{id}`."""
    endpoint = account.get("webhook_endpoint", object_id)
    names = ("url", "enabled_events", "description")
    fields = {name: parameters[name] for name in names if name in parameters}
    if "disabled" in parameters:
        fields["status"] = "disabled" if parameters["disabled"] else "enabled"
    return account.change(endpoint, metadata=merged_metadata(endpoint, parameters), **fields)


def delete(account: Account, _parameters: Object, object_id: str) -> Object:
    """`DELETE /v1/webhook_endpoints/{id}`."""
    endpoint = account.get("webhook_endpoint", object_id)
    endpoint.clear()
    endpoint |= {"id": object_id, "object": "webhook_endpoint", "deleted": True}
    return endpoint


def list_endpoints(account: Account, parameters: Object) -> Object:
    """`GET /v1/webhook_endpoints`."""
    found = (each for each in account.all("webhook_endpoint") if matches(each, parameters))
    return page(found, parameters, "/v1/webhook_endpoints")


def list_events(account: Account, parameters: Object) -> Object:
    """`GET /v1/events`: by type (`charge.*` too), types, time and whether they were delivered."""
    account.forget_old_events()
    kind, kinds = parameters.pop("type", None), parameters.pop("types", None)
    delivered = parameters.pop("delivery_success", None)
    if kind and kinds:
        raise invalid("You may only specify one of these parameters: type, types.", "types")
    wanted = [kind] if kind else kinds or ["*"]
    found = (
        each
        for each in account.all("event")
        if any(_is_of(each["type"], name) for name in wanted)
        and delivered in (None, each["pending_webhooks"] == 0)
        and matches(each, parameters)
    )
    return page(found, parameters, "/v1/events")


def retry_event(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/events/{id}/retry`: send it again now, whatever became of it before."""
    event = account.get("event", object_id)
    wanted = parameters.get("webhook_endpoint")
    if wanted:
        account.get("webhook_endpoint", wanted, "webhook_endpoint")
    for endpoint in account.all("webhook_endpoint"):
        if not endpoint.get("deleted") and wanted in (None, endpoint["id"]):
            _enqueue(account, event, endpoint, account.now())
    return event


def _enqueue(account: Account, event: Object, endpoint: Object, due: int) -> None:
    event["pending_webhooks"] += 1
    account.state.deliveries.append(
        {
            "id": account.new_id("whdl"),
            "event": event["id"],
            "endpoint": endpoint["id"],
            "due": due,
            "sent": False,
            "answers": [],
        }
    )


def _wants(endpoint: Object, event_type: str) -> bool:
    if endpoint.get("deleted") or endpoint["status"] != "enabled":
        return False
    return any(_is_of(event_type, name) for name in endpoint["enabled_events"])


def _is_of(event_type: str, name: str) -> bool:
    return name in ("*", event_type) or (name.endswith(".*") and event_type.startswith(name[:-1]))


def _sign(body: str, secret: str, now: int) -> str:
    header: str = stripe.WebhookSignature.generate_signature_header(body, secret, now)
    return header
