"""Webhooks: signed, delivered in order, tried again, and every fault on request."""

from collections import Counter

import pytest
import stripe

from src.offline_stripe import Faults, OfflineStripe, Secret, load_state
from src.offline_stripe.webhooks import RETRY_DELAYS_SECONDS
from tests.offline_stripe.shop import LIFE, SECRET, START, Clock, Shop


def faulty(faults: Faults) -> Shop:
    """A shop whose webhooks go wrong in this way, after 50 payments."""
    from src.offline_stripe import InProcessClient

    offline = OfflineStripe(seed="faults", clock=Clock())
    offline.add_endpoint("http://shop.test/webhook", secret=SECRET)
    offline.webhooks.faults = faults
    client = stripe.StripeClient("sk_test_1", http_client=InProcessClient(offline))
    shop = Shop(offline, client)
    for _ in range(50):
        shop.sell()
    return shop


def test_what_happened_is_delivered_in_order_once(shop: Shop) -> None:
    """Each event once; then nothing is pending."""
    shop.sell()
    events = shop.deliver()
    assert [event.type for event in events] == LIFE
    assert shop.deliver() == []
    assert {each["pending_webhooks"] for each in shop.offline.account.all("event")} == {0}


@pytest.mark.parametrize("status", [500, 400, 302, None])
def test_a_delivery_that_fails_is_tried_again_later(
    shop: Shop, clock: Clock, status: int | None
) -> None:
    """With growing pauses, as often as there are pauses, then given up; the event stays listed."""
    shop.client.v1.customers.create({})
    assert len(shop.deliver(status)) == 1
    for number, delay in enumerate(RETRY_DELAYS_SECONDS, start=2):
        assert shop.offline.webhooks.next_due_at() == clock.now + delay
        clock.now += delay - 1
        assert shop.deliver() == []
        clock.now += 1
        (delivery,) = shop.offline.webhooks.due()
        assert delivery.attempt == number
        shop.offline.webhooks.answered(delivery.delivery_id, status)
    assert shop.offline.webhooks.next_due_at() is None
    assert shop.client.v1.events.list().data[0].pending_webhooks == 1


def test_faults_are_what_was_asked_for() -> None:
    """None dropped or doubled but by chance, and the same ones again under the same seed."""
    assert len(faulty(Faults()).deliver()) == 300
    assert faulty(Faults(drop=1)).deliver() == []
    dropped = [event.id for event in faulty(Faults(drop=0.3)).deliver()]
    assert dropped == [event.id for event in faulty(Faults(drop=0.3)).deliver()]
    assert 100 < len(dropped) < 300
    doubled = Counter(event.id for event in faulty(Faults(duplicate=1)).deliver())
    assert set(doubled.values()) == {2}
    shuffled = [event.created for event in faulty(Faults(reorder=True)).deliver()]
    assert len(shuffled) == 300
    ids = [event.id for event in faulty(Faults(reorder=True)).deliver()]
    assert sorted(ids) == sorted(event.id for event in faulty(Faults()).deliver())
    assert ids != [event.id for event in faulty(Faults()).deliver()]


def test_delayed_events_come_later() -> None:
    """At a time of their own, none lost."""
    shop = faulty(Faults(delay=0.5, delay_seconds_max=60))
    at_once = len(shop.deliver())
    assert 50 < at_once < 250
    shop.offline.advance(60)
    assert at_once + len(shop.deliver()) == 300


def test_what_waits_while_paused_goes_out_afterwards(shop: Shop) -> None:
    """A receiver that is away for a while."""
    shop.offline.webhooks.is_paused = True
    shop.sell()
    assert (shop.deliver(), shop.offline.webhooks.next_due_at()) == ([], None)
    shop.offline.webhooks.is_paused = False
    assert shop.event_types() == LIFE


@pytest.mark.parametrize(
    ("secret", "accepted"),
    [
        (Secret.RIGHT, {"old"}),
        (Secret.WRONG, set[str]()),
        (Secret.ROTATING, {"old", "new"}),
        (Secret.ROTATED, {"new"}),
    ],
)
def test_secrets(shop: Shop, secret: Secret, accepted: set[str]) -> None:
    """Wrong, rotated, and both at once while it is being rotated."""
    shop.offline.webhooks.faults = Faults(secret=secret)
    shop.client.v1.customers.create({})
    (delivery,) = shop.offline.webhooks.due()
    endpoint = next(shop.offline.account.all("webhook_endpoint"))
    secrets = {"old": SECRET, "new": shop.offline.account.private(endpoint["id"])["next_secret"]}
    verified: set[str] = set()
    for name, each in secrets.items():
        try:
            stripe.Webhook.construct_event(
                delivery.body, delivery.headers["Stripe-Signature"], each, tolerance=10**10
            )
        except stripe.SignatureVerificationError:
            continue
        verified.add(name)
    assert verified == accepted


def test_the_signature_is_of_the_moment_of_sending(shop: Shop, clock: Clock) -> None:
    """A retry hours later is signed anew: the receiver's tolerance is five minutes."""
    shop.client.v1.customers.create({})
    (first,) = shop.offline.webhooks.due()
    assert f"t={START}," in first.headers["Stripe-Signature"]
    shop.offline.webhooks.answered(first.delivery_id, 500)
    clock.now += 7_200
    (again,) = shop.offline.webhooks.due()
    assert f"t={START + 7_200}," in again.headers["Stripe-Signature"]
    assert again.body == first.body


def test_endpoints_by_the_api(shop: Shop) -> None:
    """Made, shown without their secret, limited to some events, disabled, deleted."""
    endpoints = shop.client.v1.webhook_endpoints
    made = endpoints.create({"url": "http://other.test/", "enabled_events": ["charge.refunded"]})
    assert made.secret is not None
    shown = endpoints.retrieve(made.id)
    assert "secret" not in shown.to_dict()
    shop.client.v1.refunds.create({"charge": shop.sold()["id"]})
    urls = Counter(delivery.url for delivery in shop.offline.webhooks.due())
    assert urls["http://other.test/"] == 1
    assert urls["http://shop.test/webhook"] == 8
    endpoints.update(made.id, {"disabled": True})
    shop.client.v1.refunds.create({"charge": shop.sold()["id"]})
    assert {delivery.url for delivery in shop.offline.webhooks.due()} == {
        "http://shop.test/webhook"
    }
    endpoints.delete(made.id)
    assert [each.url for each in endpoints.list().data] == ["http://shop.test/webhook"]


def test_an_event_is_sent_again_on_request(shop: Shop) -> None:
    """As `stripe events resend` does."""
    shop.sell()
    events = shop.deliver()
    shop.client.raw_request("post", f"/v1/events/{events[0].id}/retry")
    assert [event.id for event in shop.deliver()] == [events[0].id]


def test_a_kept_account_goes_on_where_it_stopped(shop: Shop, clock: Clock) -> None:
    """Through its file: objects, keys, clock, and the deliveries that were not answered."""
    session = shop.sell()
    shop.offline.webhooks.due()
    again = OfflineStripe(clock=clock, state=load_state(shop.offline.dump()))
    again.webhooks.requeue()
    assert again.dump() == OfflineStripe(clock=clock, state=load_state(again.dump())).dump()
    assert [delivery.event_type for delivery in again.webhooks.due()] == LIFE
    assert again.get(session["id"]) == session
    with pytest.raises(ValueError, match="state"):
        load_state('{"a": 1}')
