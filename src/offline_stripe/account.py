"""The one account there is: its objects, ids, clock and events.

Everything is plain JSON, so that an account can be kept in a file and taken up again.
"""

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from src.offline_stripe.errors import missing_object

API_VERSION = "2026-10-28.endive"
EVENT_DAYS = 30
Object = dict[str, Any]
EventListener = Callable[[Object], None]

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_DAY_SECONDS = 86_400

DEFAULTS: Object = {
    "adaptive_pricing": False,
    "automatic_tax": False,
    "managed_payments": False,
    "payment_method_types": ["card", "sepa_debit"],
    "tax_behavior": "exclusive",
    "tax_percent": "0",
}
"""What an account decides where a request leaves it open."""


@dataclass
class State:
    """All that an account is made of; what is in `private` is never shown to a client."""

    seed: str
    sequence: int = 0
    clock_offset_seconds: int = 0
    objects: dict[str, dict[str, Object]] = field(default_factory=dict[str, dict[str, Object]])
    """By kind (`charge`, `refund` …) and id, in the order they were made."""
    private: dict[str, Object] = field(default_factory=dict[str, Object])
    replies: dict[str, Object] = field(default_factory=dict[str, Object])
    deliveries: list[Object] = field(default_factory=list[Object])
    restricted_keys: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """The permissions of keys that have not all of them."""
    defaults: Object = field(default_factory=dict[str, Any])
    """What somebody changed of `DEFAULTS`."""


class Account:
    """What every operation works on."""

    def __init__(self, state: State, *, clock: Callable[[], float], public_url: str) -> None:
        self.state = state
        self.public_url = public_url
        self.listeners: list[EventListener] = []
        self.request_id: str | None = None
        self.key: str | None = None
        """The key of the request that is being answered."""
        self.idempotency_key: str | None = None
        self._clock = clock

    @property
    def defaults(self) -> Object:
        """What the account decides where a request leaves it open."""
        return DEFAULTS | self.state.defaults

    def now(self) -> int:
        """Unix time here, seconds."""
        return int(self._clock()) + self.state.clock_offset_seconds

    def new_id(self, prefix: str, length: int = 24) -> str:
        """An id that only the seed and the number of ids before it decide."""
        self.state.sequence += 1
        seed = f"{self.state.seed}:{self.state.sequence}"
        number = int.from_bytes(hashlib.sha512(seed.encode()).digest())
        letters: list[str] = []
        while len(letters) < length:
            number, digit = divmod(number, len(_ALPHABET))
            letters.append(_ALPHABET[digit])
        return f"{prefix}_{''.join(letters)}"

    def add(self, obj: Object) -> Object:
        """Keep a new object."""
        self.state.objects.setdefault(obj["object"], {})[obj["id"]] = obj
        return obj

    def all(self, kind: str) -> Iterator[Object]:
        """The objects of a kind, in the order they were made."""
        return iter(self.state.objects.get(kind, {}).values())

    def find(self, kind: str, object_id: str) -> Object | None:
        """The object, or None."""
        return self.state.objects.get(kind, {}).get(object_id)

    def get(self, kind: str, object_id: str, param: str | None = None) -> Object:
        """The object itself, not a copy.

        Raises:
            StripeError: resource_missing.
        """
        found = self.find(kind, object_id)
        if found is None or found.get("deleted"):
            raise missing_object(kind.rsplit(".", maxsplit=1)[-1], object_id, param)
        return found

    def anything(self, object_id: str) -> Object | None:
        """The object of this id, whatever it is."""
        for objects in self.state.objects.values():
            if object_id in objects:
                return objects[object_id]
        return None

    def private(self, object_id: str) -> Object:
        """What we alone know of an object."""
        return self.state.private.setdefault(object_id, {})

    def emit(self, event_type: str, obj: Object, before: Object | None = None) -> Object:
        """Make an event: the object as it is now, and what was different `before`."""
        data: Object = {"object": copy.deepcopy(obj)}
        if before is not None:
            data["previous_attributes"] = {
                name: value for name, value in before.items() if obj.get(name) != value
            }
        event = self.add(
            {
                "id": self.new_id("evt"),
                "object": "event",
                "api_version": API_VERSION,
                "created": self.now(),
                "data": data,
                "livemode": False,
                "pending_webhooks": 0,
                "request": {"id": self.request_id, "idempotency_key": self.idempotency_key},
                "type": event_type,
            }
        )
        for listener in self.listeners:
            listener(event)
        return event

    def change(
        self,
        obj: Object,
        event_type: str | None = None,
        *,
        unset: Iterable[str] = (),
        **fields: Any,
    ) -> Object:
        """Set fields of an object, take those of `unset` away, and say so in an event."""
        before = copy.deepcopy(obj)
        obj.update(fields)
        for name in unset:
            obj.pop(name, None)
        if event_type is not None:
            self.emit(event_type, obj, before)
        return obj

    def forget_old_events(self) -> None:
        """Stripe lists events of the last 30 days."""
        events = self.state.objects.get("event", {})
        oldest = self.now() - EVENT_DAYS * _DAY_SECONDS
        for event_id in [each["id"] for each in events.values() if each["created"] < oldest]:
            del events[event_id]
