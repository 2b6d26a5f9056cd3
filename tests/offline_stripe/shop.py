"""A shop on the offline Stripe: offers, payments, what arrives as webhooks."""

from dataclasses import dataclass
from typing import Any

import stripe

from src.offline_stripe import Object, OfflineStripe

SECRET = "whsec_of_the_shop"
START = 1_800_000_000
SUCCESS_URL = "https://shop.test/thanks?session={CHECKOUT_SESSION_ID}"
CANCEL_URL = "https://shop.test/basket"
LIFE = [
    "product.created",
    "price.created",
    "payment_intent.created",
    "charge.succeeded",
    "payment_intent.succeeded",
    "checkout.session.completed",
]
"""The events of an offer that is paid at once."""


class Clock:
    """Unix time that stands still."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        """What time it is."""
        return self.now


@dataclass(frozen=True)
class Shop:
    """What a shop does."""

    offline: OfflineStripe
    client: stripe.StripeClient

    def offer(self, amount: int = 500, **more: Any) -> stripe.checkout.Session:
        """A Checkout Session for one thing that costs `amount` cents."""
        price: Any = {"currency": "usd", "unit_amount": amount, "product_data": {"name": "Starter"}}
        parameters: Any = {
            "mode": "payment",
            "success_url": SUCCESS_URL,
            "cancel_url": CANCEL_URL,
            "line_items": [{"price_data": price, "quantity": 1}],
            **more,
        }
        return self.client.v1.checkout.sessions.create(parameters)

    def sell(self, amount: int = 500, method: str = "visa", **more: Any) -> Object:
        """A session that was paid with this test method; the session as it is now."""
        return self.offline.pay(self.offer(amount, **more).id, method)

    def charge_of(self, session: Object) -> Object:
        """The charge that paid a session."""
        intent = self.offline.get(session["payment_intent"])
        return self.offline.get(intent["latest_charge"])

    def sold(self, amount: int = 500, method: str = "visa") -> Object:
        """A charge that succeeded."""
        return self.charge_of(self.sell(amount, method))

    def deliver(self, status: int | None = 200) -> list[stripe.Event]:
        """Receive what is due, check its signature, answer with `status`."""
        received: list[stripe.Event] = []
        for delivery in self.offline.webhooks.due():
            event = stripe.Webhook.construct_event(
                delivery.body,
                delivery.headers["Stripe-Signature"],
                SECRET,
                tolerance=10**10,  # the shop's clock is not this machine's
            )
            received.append(event)
            self.offline.webhooks.answered(delivery.delivery_id, status)
        return received

    def event_types(self) -> list[str]:
        """The types of everything delivered now, in order."""
        return [event.type for event in self.deliver()]

    def balance(self) -> int:
        """What all balance transactions add up to, before fees."""
        return sum(each["amount"] for each in self.offline.account.all("balance_transaction"))
