"""The same request with the same key is done once, as Stripe promises."""

from typing import Any

import pytest
import stripe

from src.offline_stripe import InProcessClient, OfflineStripe, Trouble, TroubleKind
from tests.offline_stripe.shop import Clock, Shop

DAY_SECONDS = 86_400


def test_a_repeated_request_is_answered_as_before(shop: Shop) -> None:
    """One customer, the same answer, marked as replayed; also after the object has changed."""
    first = shop.client.v1.customers.create({"name": "Ada"}, {"idempotency_key": "k"})
    shop.client.v1.customers.update(first.id, {"name": "Grace"})
    again = shop.client.v1.customers.create({"name": "Ada"}, {"idempotency_key": "k"})
    assert (again.id, again.name) == (first.id, "Ada")
    assert len(list(shop.offline.account.all("customer"))) == 1
    assert again.last_response is not None
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert first.last_response is not None
    assert "Idempotent-Replayed" not in first.last_response.headers
    assert again.last_response.headers["Original-Request"] == first.last_response.request_id


def test_another_request_with_the_key_is_an_error(shop: Shop) -> None:
    """Other parameters, or another address."""
    shop.client.v1.customers.create({"name": "Ada"}, {"idempotency_key": "k"})
    with pytest.raises(stripe.IdempotencyError):
        shop.client.v1.customers.create({"name": "Eve"}, {"idempotency_key": "k"})
    with pytest.raises(stripe.IdempotencyError):
        shop.client.v1.products.create({"name": "Ada"}, {"idempotency_key": "k"})


def test_what_failed_validation_does_not_use_the_key_up(shop: Shop) -> None:
    """The request may be mended and sent with the same key."""
    with pytest.raises(stripe.InvalidRequestError):
        shop.offer(amount=-1)
    with pytest.raises(stripe.InvalidRequestError):
        shop.client.v1.refunds.create({"charge": "ch_nothing"}, {"idempotency_key": "k"})
    charge = shop.sold()
    refund = shop.client.v1.refunds.create({"charge": charge["id"]}, {"idempotency_key": "k"})
    assert refund.amount == 500


def test_what_was_refused_stays_refused(shop: Shop) -> None:
    """A declined payment, an over-refund: carried out, so the key answers the same error."""
    parameters: Any = {
        "amount": 500,
        "currency": "usd",
        "confirm": True,
        "payment_method": "pm_card_chargeDeclined",
    }
    for _ in range(2):
        with pytest.raises(stripe.CardError) as declined:
            shop.client.v1.payment_intents.create(parameters, {"idempotency_key": "k"})
        assert declined.value.code == "card_declined"
    assert len(list(shop.offline.account.all("charge"))) == 1


def test_a_key_is_free_again_after_a_day(shop: Shop, clock: Clock) -> None:
    """And not a second earlier."""
    first = shop.client.v1.customers.create({"name": "Ada"}, {"idempotency_key": "k"})
    clock.now += DAY_SECONDS - 1
    again = shop.client.v1.customers.create({"name": "Ada"}, {"idempotency_key": "k"})
    assert again.id == first.id
    clock.now += 1
    other = shop.client.v1.customers.create({"name": "Eve"}, {"idempotency_key": "k"})
    assert other.id != first.id


@pytest.mark.parametrize("kind", list(TroubleKind))
def test_the_library_s_retries_make_one_object(offline: OfflineStripe, kind: TroubleKind) -> None:
    """Through rate limits, errors and lost answers: its own key sees to it."""
    client = stripe.StripeClient(
        "sk_test_shop", http_client=InProcessClient(offline), max_network_retries=3
    )
    offline.troubles.add(Trouble(kind, times=2, delay_seconds=90 * (kind is TroubleKind.SLOW)))
    if kind is TroubleKind.RATE_LIMIT:
        with pytest.raises(stripe.RateLimitError):  # the library leaves these to its caller
            client.v1.customers.create({"name": "Ada"})
        offline.troubles.clear()
    customer = client.v1.customers.create({"name": "Ada"})
    assert [each["id"] for each in offline.account.all("customer")] == [customer.id]
