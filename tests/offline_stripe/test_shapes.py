"""Every object is as Stripe publishes it, and Stripe's library reads it."""

import json

import pytest
import stripe

from src.offline_stripe import (
    API_VERSION,
    Object,
    OfflineStripe,
    Request,
    Response,
    StripeError,
)
from src.offline_stripe.routes import ROUTES
from tests.offline_stripe.life import Address, address_of, live
from tests.offline_stripe.published import api_version, differences, one_reading
from tests.offline_stripe.shop import Shop


@pytest.fixture
def answers(
    offline: OfflineStripe, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[Address, Object]]:
    """The address and body of every answer that is no error, as they are given."""
    found: list[tuple[Address, Object]] = []
    handle = offline.handle

    def recorded(request: Request) -> Response:
        response = handle(request)
        if response.status == 200:
            address = address_of(request.method, request.path)
            found.append((address, json.loads(response.body)))
        return response

    monkeypatch.setattr(offline, "handle", recorded)
    return found


@one_reading
def test_every_object_is_as_published(shop: Shop, answers: list[tuple[Address, Object]]) -> None:
    """No field is missing, unknown, null or of a value that Stripe does not know.

    In what every address answers, what is kept, and every event, whose type is one of Stripe's for
    its object.
    """
    live(shop)
    kept = [
        each for of_kind in shop.offline.account.state.objects.values() for each in of_kind.values()
    ]
    answered = [
        body for address, body in answers if address[1] != ("payment_pages", "{}")
    ]  # that one is of no type: it is between Stripe and its own page
    assert {found for each in (*kept, *answered) for found in differences(each)} == set()
    assert {address for address, _ in answers} == set(ROUTES)
    assert len({each["type"] for each in kept if each["object"] == "event"}) >= 40


@one_reading
def test_the_comparison_sees_what_is_wrong(shop: Shop) -> None:
    """A field too many, too few, null or of a wrong type or word, at any depth; a wrong event."""
    charge = shop.sold()
    assert differences(charge) == []
    assert differences({**charge, "amuont": 1}) == ["charge.amuont: unknown"]
    assert differences({**charge, "amount": "5"}) == ["charge.amount: '5' is no number"]
    assert differences({**charge, "paid": 1}) == ["charge.paid: 1 is no boolean"]
    assert differences({**charge, "amount": None}) == ["charge.amount: None is no number"]
    without = {name: value for name, value in charge.items() if name != "paid"}
    assert differences(without) == ["charge.paid: missing"]
    (status,) = differences({**charge, "status": "paid"})
    assert status.startswith("charge.status: 'paid' is none of")
    billing = {**charge["billing_details"], "address": {**charge["billing_details"]["address"]}}
    del billing["address"]["city"]
    assert differences({**charge, "billing_details": billing}) == [
        "charge.billing_details.address.city: missing"
    ]
    listed = {"object": "list", "data": [{**charge, "amuont": 1}]}
    assert differences(listed) == ["charge.amuont: unknown"]
    event = shop.offline.account.emit("charge.succeeded", charge)
    assert differences({**event, "type": "charge.paid"}) == ["event: 'charge.paid'"]
    assert differences({**event, "type": "refund.created"}) != []


@one_reading
def test_stripe_s_types_are_of_the_version_that_is_imitated() -> None:
    """In its Python library and in the types that are compared with."""
    assert stripe.api_version == api_version() == API_VERSION


def test_what_stripe_expands_is_expanded(shop: Shop) -> None:
    """Through several objects, in lists, and what is there only when asked for."""
    session = shop.sell()
    found = shop.client.v1.checkout.sessions.retrieve(
        session["id"], {"expand": ["payment_intent.latest_charge.refunds", "line_items"]}
    )
    assert isinstance(found.payment_intent, stripe.PaymentIntent)
    assert isinstance(found.payment_intent.latest_charge, stripe.Charge)
    assert found.payment_intent.latest_charge.refunds is not None
    assert found.line_items is not None
    assert found.line_items.data[0].amount_total == 500
    listed = shop.client.v1.payment_intents.list({"expand": ["data.latest_charge"]})
    assert isinstance(listed.data[0].latest_charge, stripe.Charge)
    with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
        shop.client.v1.checkout.sessions.retrieve(session["id"], {"expand": ["nonsense"]})


def test_what_is_not_there_is_said_in_stripe_s_way(shop: Shop) -> None:
    """404 where the address names it, 400 and the parameter's name elsewhere."""
    with pytest.raises(stripe.InvalidRequestError) as missing:
        shop.client.v1.charges.retrieve("ch_nothing")
    assert (missing.value.http_status, missing.value.code) == (404, "resource_missing")
    with pytest.raises(stripe.InvalidRequestError) as missing:
        shop.offer(customer="cus_nothing")
    assert (missing.value.http_status, missing.value.param) == (400, "customer")
    with pytest.raises(StripeError, match="ch_nothing"):
        shop.offline.open_dispute("ch_nothing")
