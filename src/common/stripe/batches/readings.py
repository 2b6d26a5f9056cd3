"""What an event says without anybody being asked: the first question about it, and its answer.

The same reading as everybody's (`lookup.py`), with nobody there to answer: an event that asks
anything but whether its payment is known is left to the road that asks.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass

import structlog
from pydantic import ValidationError

from src.common.purchases.rules import Payment
from src.common.settings import Settings
from src.common.stripe.lookup import Facts, Lookup
from src.common.stripe.unasked import StripeNeeded, UnaskedGateway
from src.common.stripe.wire import AnyEvent

logger = structlog.get_logger(__name__)

_ADD_NOTHING_TO_A_KNOWN_PAYMENT = frozenset({"payment_intent.succeeded", "charge.succeeded"})
_NOBODY = UnaskedGateway()


class _KnownNeeded(Exception):
    """Whether a payment is known has to be looked up."""

    def __init__(self, payment_intent_id: str, account: str | None) -> None:
        self.payment_intent_id = payment_intent_id
        self.account = account


@dataclass(frozen=True, slots=True)
class Reading:
    """An event, and what settling it takes; where all is None it is ignored."""

    event: AnyEvent
    body: bytes
    payment: Payment | None = None
    """What was paid."""
    known_payment_intent_id: str | None = None
    """The payment that it adds nothing to, if that was credited."""

    @property
    def name(self) -> str:
        """What it is about, as the payment's lock calls it."""
        if self.payment is not None:
            return self.payment.payment_intent_id or self.payment.stripe_session_id
        return self.known_payment_intent_id or f"{self.event.livemode}:{self.event.id}"

    @property
    def names(self) -> frozenset[str]:
        """All that its payment is called: two events that share one do not travel together."""
        if self.payment is None:
            return frozenset([self.name])
        names = (self.payment.stripe_session_id, self.payment.payment_intent_id)
        return frozenset(each for each in names if each is not None)

    @property
    def user_id(self) -> uuid.UUID | None:
        """Whom it may credit."""
        return None if self.payment is None else self.payment.user_id


async def read(event: AnyEvent, body: bytes, settings: Settings) -> Reading | None:
    """How to settle this event together with others; None where it has to go by itself."""
    lookup = Lookup(_NOBODY, _is_known, settings.stripe_livemode, settings.connected_accounts)
    try:
        facts = await lookup.facts_of(event)
    except _KnownNeeded as asked:
        if event.snapshot_type not in _ADD_NOTHING_TO_A_KNOWN_PAYMENT:
            return None
        return Reading(event, body, known_payment_intent_id=asked.payment_intent_id)
    except (StripeNeeded, ValidationError):
        return None
    except Exception as error:  # noqa: BLE001  an edge: by itself it is stored, and its row says why
        logger.warning("Event cannot be read", event_id=event.id, error=type(error).__name__)
        return None
    return Reading(event, body) if facts is None else _of_one_payment(event, body, facts)


def _of_one_payment(event: AnyEvent, body: bytes, facts: Facts) -> Reading | None:
    if facts.reversals or facts.ended or len(facts.payments) != 1:
        return None
    [payment] = facts.payments
    if payment.invoice_id is not None:  # it has a second lock (`settle_payment`)
        return None
    return Reading(event, body, payment)


async def _is_known(payment_intent_id: str, account: str | None) -> bool:
    raise _KnownNeeded(payment_intent_id, account)


def apart(readings: Iterable[Reading], number_max: int) -> tuple[list[int], list[int]]:
    """The places of those that may travel together, and of those that share a name with one."""
    names: set[str] = set()
    together: list[int] = []
    others: list[int] = []
    for place, reading in enumerate(readings):
        mine = {*reading.names, reading.event.id}
        may_travel = len(together) < number_max and names.isdisjoint(mine)
        (together if may_travel else others).append(place)
        names |= mine
    return together, others
