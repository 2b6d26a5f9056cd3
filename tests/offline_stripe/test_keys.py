"""Restricted keys do what they were given, and are told by name what they were not."""

import pytest
import stripe

from src.offline_stripe import InProcessClient, OfflineStripe, load_state
from tests.offline_stripe.shop import Clock, Shop
from tests.offline_stripe.test_control import control

KEY = "rk_test_secret1234"


def restricted_to(shop: Shop, *permissions: str) -> stripe.StripeClient:
    """A client whose key has these permissions."""
    shop.offline.restrict_key(KEY, permissions)
    return stripe.StripeClient(KEY, http_client=InProcessClient(shop.offline))


def test_what_is_not_given_is_refused_by_name(shop: Shop) -> None:
    """403, as Stripe says it, with the key masked."""
    client = restricted_to(shop, "rak_dispute_read")
    with pytest.raises(stripe.PermissionError) as caught:
        client.v1.charges.list()
    error = caught.value
    assert (error.http_status, error.json_body["error"]["type"]) == (403, "invalid_request_error")  # type: ignore[index]  # plain JSON
    assert error.json_body["error"]["code"] == "more_permissions_required"  # type: ignore[index]  # plain JSON
    assert "Having the 'rak_charge_read' permission would allow" in str(error.user_message)
    assert KEY not in str(error.user_message)
    assert client.v1.disputes.list().data == []


def test_who_may_write_may_read_and_not_the_other_way_round(shop: Shop) -> None:
    """Refunds belong to charges."""
    charge = shop.charge_of(shop.sell())["id"]
    reader = restricted_to(shop, "rak_charge_read")
    with pytest.raises(stripe.PermissionError, match="rak_charge_write"):
        reader.v1.refunds.create({"charge": charge})
    writer = restricted_to(shop, "rak_charge_write")
    assert writer.v1.refunds.create({"charge": charge}).status == "succeeded"
    assert len(writer.v1.refunds.list().data) == 1


def test_what_is_expanded_wants_its_own_permission(shop: Shop) -> None:
    """Reading a session is not reading its payment."""
    session = shop.sell()["id"]
    client = restricted_to(shop, "rak_checkout_session_read")
    assert client.v1.checkout.sessions.retrieve(session).payment_status == "paid"
    with pytest.raises(stripe.PermissionError, match="rak_payment_intent_read"):
        client.v1.checkout.sessions.retrieve(session, {"expand": ["payment_intent"]})
    with pytest.raises(stripe.PermissionError, match="rak_payment_intent_read"):
        client.v1.checkout.sessions.list({"expand": ["data.payment_intent"]})


def test_other_keys_may_everything(shop: Shop) -> None:
    """A restricted key is one that somebody restricted."""
    restricted_to(shop)
    for key in ("sk_test_1", "rk_test_other"):
        client = stripe.StripeClient(key, http_client=InProcessClient(shop.offline))
        assert client.v1.charges.list().data == []


def test_restrictions_are_asked_for_over_http_and_kept(shop: Shop, clock: Clock) -> None:
    """In the state too; a permission that there is not is refused."""
    address = "keys/restrict"
    form = {"key": KEY, "permissions[0]": "rak_event_read"}
    assert control(shop.offline, address, **form)[0] == 200
    again = OfflineStripe(state=load_state(shop.offline.dump()), clock=clock)
    client = stripe.StripeClient(KEY, http_client=InProcessClient(again))
    assert client.v1.events.list().data == []
    with pytest.raises(stripe.PermissionError):
        client.v1.charges.list()
    for wrong in ({"key": KEY, "permissions[0]": "rak_all"}, {"key": "sk_test_1"}):
        assert control(shop.offline, address, **wrong)[0] == 400
