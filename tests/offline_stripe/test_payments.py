"""What each way of paying leads to, and the events it makes, in Stripe's order."""

import pytest
import stripe

from src.offline_stripe import OfflineStripe, Request, StripeError
from src.offline_stripe.due import SETTLED_AFTER_SECONDS
from tests.offline_stripe.shop import Clock, Shop

PAID = [
    "payment_intent.created",
    "charge.succeeded",
    "payment_intent.succeeded",
    "checkout.session.completed",
]


def test_a_paid_session(shop: Shop) -> None:
    """Complete and paid; its PaymentIntent appears only now; customer and metadata are kept."""
    customer = shop.client.v1.customers.create({"email": "ada@example.com"})
    session = shop.offer(customer=customer.id, metadata={"a": "b"}, client_reference_id="o-1")
    assert (session.status, session.payment_status, session.payment_intent) == (
        "open",
        "unpaid",
        None,
    )
    shop.deliver()
    paid = shop.offline.pay(session.id)
    assert (paid["status"], paid["payment_status"], paid["url"]) == ("complete", "paid", None)
    assert (paid["metadata"], paid["client_reference_id"]) == ({"a": "b"}, "o-1")
    assert paid["customer_details"]["email"] == "ada@example.com"
    assert shop.event_types() == PAID
    assert shop.charge_of(paid)["customer"] == customer.id
    with pytest.raises(StripeError, match="no longer open"):
        shop.offline.pay(session.id)


def test_a_declined_card_leaves_the_session_open(shop: Shop) -> None:
    """A second card pays the same PaymentIntent."""
    session = shop.offer()
    shop.deliver()
    failed = shop.offline.pay(session.id, "chargeDeclined")
    assert (failed["status"], failed["payment_status"]) == ("open", "unpaid")
    assert shop.event_types() == [
        "payment_intent.created",
        "charge.failed",
        "payment_intent.payment_failed",
    ]
    intent = failed["payment_intent"]
    assert shop.offline.get(intent)["last_payment_error"]["decline_code"] == "generic_decline"
    paid = shop.offline.pay(session.id)
    assert (paid["payment_intent"], paid["payment_status"]) == (intent, "paid")
    assert shop.event_types() == PAID[1:]


@pytest.mark.parametrize("passed", [True, False])
def test_authentication(shop: Shop, *, passed: bool) -> None:
    """3-D Secure passed: paid. Failed: open, and another card may be tried."""
    session = shop.sell(method="authenticationRequired")
    assert session["status"] == "open"
    intent = shop.offline.get(session["payment_intent"])
    assert intent["next_action"]["redirect_to_url"]["url"].endswith(f"/authenticate/{intent['id']}")
    shop.deliver()
    shop.offline.authenticate(session["id"], passed=passed)
    assert (session["payment_status"] == "paid") is passed
    assert shop.event_types() == (PAID[1:] if passed else ["payment_intent.payment_failed"])
    with pytest.raises(StripeError):
        shop.offline.authenticate(session["id"])


@pytest.mark.parametrize("succeeded", [True, False])
def test_a_delayed_payment(shop: Shop, *, succeeded: bool) -> None:
    """Complete but unpaid first; paid, or failed, days later."""
    session = shop.offer()
    shop.deliver()
    shop.offline.pay(session.id, "sepa")
    found = shop.offline.get(session.id)
    assert (found["status"], found["payment_status"]) == ("complete", "unpaid")
    assert shop.event_types()[-1] == "checkout.session.completed"
    shop.offline.settle_payment(session.id, succeeded=succeeded)
    assert found["payment_status"] == ("paid" if succeeded else "unpaid")
    assert shop.event_types() == (
        ["charge.succeeded", "payment_intent.succeeded", "checkout.session.async_payment_succeeded"]
        if succeeded
        else [
            "charge.failed",
            "payment_intent.payment_failed",
            "checkout.session.async_payment_failed",
        ]
    )


def test_sessions_expire(shop: Shop, clock: Clock) -> None:
    """When asked, and by themselves a day later; then nobody can pay."""
    asked, left = shop.offer(), shop.offer()
    shop.client.v1.checkout.sessions.expire(asked.id)
    clock.now += 86_400
    shop.offline.advance(0)
    assert {shop.offline.get(each.id)["status"] for each in (asked, left)} == {"expired"}
    assert shop.event_types().count("checkout.session.expired") == 2
    with pytest.raises(stripe.InvalidRequestError):
        shop.client.v1.checkout.sessions.expire(asked.id)
    with pytest.raises(StripeError):
        shop.offline.pay(left.id)


def test_a_coupon_and_nothing_left_to_pay(shop: Shop) -> None:
    """The total is what is charged; at 0 there is no PaymentIntent at all."""
    half = shop.client.v1.coupons.create({"percent_off": 50.0})
    session = shop.sell(501, discounts=[{"coupon": half.id}])
    assert (session["amount_subtotal"], session["amount_total"]) == (501, 250)
    assert shop.charge_of(session)["amount"] == 250
    free = shop.client.v1.coupons.create({"amount_off": 9_999, "currency": "usd"})
    given = shop.sell(500, discounts=[{"coupon": free.id}])
    assert (given["amount_total"], given["payment_status"]) == (0, "no_payment_required")
    assert (given["status"], given["payment_intent"]) == ("complete", None)


def test_an_invoice_is_made_where_asked_for(shop: Shop) -> None:
    """Paid, tied to the session's PaymentIntent through an invoice payment."""
    session = shop.sell(invoice_creation={"enabled": True})
    invoice = shop.client.v1.invoices.retrieve(session["invoice"], {"expand": ["payments"]})
    assert (invoice.status, invoice.amount_paid) == ("paid", 500)
    assert invoice.payments is not None
    assert invoice.payments.data[0].payment.payment_intent == session["payment_intent"]
    assert {"invoice.paid", "checkout.session.completed"} <= set(shop.event_types())


def test_intents_by_hand(shop: Shop) -> None:
    """Created, confirmed, captured, cancelled; a declined one says why."""
    intents = shop.client.v1.payment_intents
    paid = intents.create(
        {"amount": 700, "currency": "USD", "confirm": True, "payment_method": "pm_card_visa"}
    )
    assert (paid.status, paid.currency, paid.amount_received) == ("succeeded", "usd", 700)
    held = intents.create({"amount": 700, "currency": "usd", "capture_method": "manual"})
    intents.confirm(held.id, {"payment_method": "pm_card_visa"})
    taken = intents.capture(held.id, {"amount_to_capture": 600})
    assert (taken.status, taken.amount_received) == ("succeeded", 600)
    left = intents.create({"amount": 700, "currency": "usd"})
    assert intents.cancel(left.id).status == "canceled"
    with pytest.raises(stripe.InvalidRequestError) as late:
        intents.cancel(left.id)
    assert late.value.code == "payment_intent_unexpected_state"
    with pytest.raises(stripe.CardError) as asked:
        intents.create(
            {
                "amount": 700,
                "currency": "usd",
                "confirm": True,
                "off_session": True,
                "payment_method": "pm_card_authenticationRequired",
            }
        )
    assert asked.value.code == "authentication_required"
    assert asked.value.http_status == 402


def test_seed_and_clock_decide_everything() -> None:
    """The same requests on the same seed make the same account, to the letter."""

    def account(seed: str) -> str:
        offline = OfflineStripe(seed=seed, clock=Clock())
        offline.add_endpoint("http://shop.test/webhook", secret="whsec_1")
        form = b"amount=500&currency=usd&confirm=true&payment_method=pm_card_createDispute"
        headers = {"authorization": "Bearer sk_test_1"}
        offline.handle(Request("POST", "/v1/payment_intents", headers=headers, body=form))
        return offline.dump()

    assert account("same") == account("same")
    assert account("same") != account("other")


def test_an_open_payment_is_changed_without_an_event(shop: Shop) -> None:
    """Amount, currency and the rest until it is on its way; then its description alone."""
    intents = shop.client.v1.payment_intents
    made = intents.create({"amount": 500, "currency": "usd"})
    shop.deliver()
    changed = intents.update(made.id, {"amount": 700, "currency": "EUR", "description": "More"})
    assert (changed.amount, changed.currency, changed.description) == (700, "eur", "More")
    assert shop.event_types() == []
    intents.confirm(made.id, {"payment_method": "pm_card_visa"})
    later = intents.update(made.id, {"receipt_email": "", "metadata": {"a": "b"}})
    assert later.metadata.to_dict() == {"a": "b"}
    with pytest.raises(stripe.InvalidRequestError) as late:
        intents.update(made.id, {"amount": 800})
    assert late.value.code == "payment_intent_unexpected_state"
    assert intents.retrieve(made.id).amount == 700


def test_a_bank_debit_that_comes_in_may_be_disputed_at_once(shop: Shop, clock: Clock) -> None:
    """As Stripe's test account of that kind is, three minutes later."""
    session = shop.sell(method="sepaDisputed")
    shop.deliver()
    clock.now += 180
    shop.offline.advance(0)
    assert session["payment_status"] == "paid"
    assert shop.charge_of(session)["disputed"] is True
    assert shop.event_types() == [
        *PAID[1:3],
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
        "checkout.session.async_payment_succeeded",
    ]


def test_what_cannot_settle_stops_nothing_else(shop: Shop) -> None:
    """It is tried once; other payments settle, and requests are answered."""
    stuck = shop.sell(method="sepa")
    stuck["status"] = "expired"
    other = shop.sell(method="sepa")
    shop.offline.advance(SETTLED_AFTER_SECONDS)
    assert shop.client.v1.checkout.sessions.retrieve(other["id"]).payment_status == "paid"
    stuck["status"] = "complete"
    shop.offline.advance(SETTLED_AFTER_SECONDS)
    assert stuck["payment_status"] == "unpaid"
    assert shop.offline.settle_payment(stuck["id"])["payment_status"] == "paid"


def test_a_session_s_payment_is_made_on_its_page_alone(shop: Shop) -> None:
    """A request that confirms it is refused, so nothing is charged beside the session."""
    intent = shop.sell(method="chargeDeclined")["payment_intent"]
    with pytest.raises(stripe.InvalidRequestError, match="session's page"):
        shop.client.v1.payment_intents.confirm(intent, {"payment_method": "pm_card_visa"})
    assert shop.offline.get(intent)["status"] == "requires_payment_method"
