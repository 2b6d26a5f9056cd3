"""Every object is as Stripe publishes it, and Stripe's library reads it."""

import pytest
import stripe

from src.common.stripe.offline import API_VERSION, METHODS
from src.common.stripe.offline.errors import StripeError
from tests.stripe.offline.published import differences
from tests.stripe.offline.shop import Shop


def live(shop: Shop) -> None:
    """Let everything happen that can."""
    for method in METHODS:
        session = shop.sell(700, method)
        if session["status"] == "open" and session["payment_intent"]:
            if shop.offline.get(session["payment_intent"])["status"] == "requires_action":
                shop.offline.authenticate(session["id"], passed=method != "threeDSecureRequired")
        elif session["payment_status"] == "unpaid":
            shop.offline.settle_payment(session["id"], succeeded=method == "sepa")
    for charge in list(shop.offline.account.all("charge")):
        if charge["paid"] and not charge["disputed"]:
            shop.client.v1.refunds.create({"charge": charge["id"], "amount": 300})
    for dispute in list(shop.offline.account.all("dispute")):
        if dispute["status"].startswith("warning"):
            shop.offline.decide_dispute(dispute["id"], "escalate")
        shop.offline.decide_dispute(dispute["id"], "win")
    invoiced = shop.sell(invoice_creation={"enabled": True})
    shop.client.v1.credit_notes.create(
        {"invoice": invoiced["invoice"], "amount": 100, "refund_amount": 100}
    )
    coupon = shop.client.v1.coupons.create({"percent_off": 20.0})
    shop.sell(discounts=[{"coupon": coupon.id}])
    customer = shop.client.v1.customers.create({"email": "ada@example.com"})
    shop.client.v1.payment_methods.attach("pm_card_visa", {"customer": customer.id})
    shop.client.v1.invoice_items.create({"customer": customer.id, "amount": 900})
    invoice = shop.client.v1.invoices.create(
        {"customer": customer.id, "pending_invoice_items_behavior": "include"}
    )
    shop.client.v1.invoices.pay(invoice.id)
    shop.client.v1.checkout.sessions.expire(shop.offer().id)


def test_every_object_is_as_published(shop: Shop) -> None:
    """No field is missing, unknown or of another type, in any kind, event or past state of it."""
    live(shop)
    objects = shop.offline.account.state.objects
    assert {
        name: found
        for kind, of_kind in objects.items()
        for name, each in of_kind.items()
        if (found := differences(each))
        for name in (f"{kind} {name}",)
    } == {}
    events = objects["event"].values()
    assert [found for event in events if (found := differences(event["data"]["object"]))] == []
    assert len(objects) >= 17


def test_the_comparison_sees_what_is_wrong(shop: Shop) -> None:
    """A field too many, too few, of the wrong type, at any depth, is found."""
    charge = shop.sold()
    assert differences(charge) == []
    assert differences({**charge, "amuont": 1}) == ["charge.amuont: unknown"]
    assert differences({**charge, "amount": "5"}) == ["charge.amount: '5' is no <class 'int'>"]
    without = {name: value for name, value in charge.items() if name != "paid"}
    assert differences(without) == ["charge.paid: missing"]
    assert differences({**charge, "outcome": {"type": 1}}) == [
        "charge.outcome.type: 1 is no <class 'str'>"
    ]


def test_every_kind_of_event_is_one_that_the_library_knows(shop: Shop) -> None:
    """And of the API version that the library is made for."""
    live(shop)
    types = {event.type for event in shop.deliver()}
    assert len(types) >= 30
    assert stripe.api_version == API_VERSION


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
