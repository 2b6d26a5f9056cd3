"""An offline Stripe in this process, and Stripe's own library on it."""

import pytest
import stripe

from src.offline_stripe import InProcessClient, OfflineStripe
from tests.offline_stripe.shop import SECRET, Clock, Shop


@pytest.fixture
def clock() -> Clock:
    """Time that only passes when told."""
    return Clock()


@pytest.fixture
def offline(clock: Clock) -> OfflineStripe:
    """A fresh account with one webhook endpoint."""
    made = OfflineStripe(seed="tests", clock=clock)
    made.add_endpoint("http://shop.test/webhook", secret=SECRET)
    return made


@pytest.fixture
def client(offline: OfflineStripe) -> stripe.StripeClient:
    """Stripe's library, which does not know."""
    return stripe.StripeClient("sk_test_shop", http_client=InProcessClient(offline))


@pytest.fixture
def shop(offline: OfflineStripe, client: stripe.StripeClient) -> Shop:
    """What a shop does with it."""
    return Shop(offline, client)
