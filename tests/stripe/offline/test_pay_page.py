"""The pay page, clicked through: every way a payment can go, by the forms it shows."""

import re
from html.parser import HTMLParser
from urllib.parse import urlencode, urlsplit

import pytest

from src.common.stripe.offline import OfflineStripe, Request, Response
from src.common.stripe.offline.pay_page import CHOICES
from src.common.stripe.offline.site import answer
from tests.stripe.offline.shop import CANCEL_URL, Clock, Shop


class Buttons(HTMLParser):
    """What the page offers: the values of its buttons and radio buttons, and its labels."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.actions: list[str] = []
        self.methods: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the controls."""
        named = dict(attrs)
        if tag == "button":
            self.actions.append(str(named["value"]))
        if named.get("type") == "radio":
            self.methods.append(str(named["value"]))


def ask(offline: OfflineStripe, url: str, **form: str) -> Response:
    """Look at a page, or press one of its buttons."""
    path = urlsplit(url).path
    method = "POST" if form else "GET"
    return answer(offline, Request(method, path, body=urlencode(form).encode()))


def test_success(shop: Shop) -> None:
    """The customer is led to the shop's success page, which is told the session."""
    session = shop.offer(customer_email="ada@example.com")
    assert session.url is not None
    page = ask(shop.offline, session.url).body.decode()
    assert "5.00 USD" in page
    assert "ada@example.com" in page
    buttons = Buttons(page)
    assert buttons.actions == ["pay", "cancel"]
    assert buttons.methods == [choice.method for choice in CHOICES]
    done = ask(shop.offline, session.url, action="pay", method="visa", email="eve@example.com")
    assert (done.status, done.headers["Location"]) == (
        303,
        f"https://shop.test/thanks?session={session.id}",
    )
    paid = shop.offline.get(session.id)
    assert (paid["payment_status"], paid["customer_details"]["email"]) == (
        "paid",
        "eve@example.com",
    )
    again = ask(shop.offline, f"/c/pay/{session.id}")
    assert Buttons(again.body.decode()).actions == []
    assert ask(shop.offline, f"/c/pay/{session.id}", action="pay").status == 400


def test_cancelled(shop: Shop) -> None:
    """Back to the shop; the session stays open and may still be paid."""
    session = shop.offer()
    back = ask(shop.offline, f"/c/pay/{session.id}", action="cancel")
    assert (back.status, back.headers["Location"]) == (303, CANCEL_URL)
    assert shop.offline.get(session.id)["status"] == "open"


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("chargeDeclined", "Your card was declined."),
        ("chargeDeclinedInsufficientFunds", "Your card has insufficient funds."),
    ],
)
def test_declined(shop: Shop, method: str, words: str) -> None:
    """The page says why, and another card may be tried."""
    url = f"/c/pay/{shop.offer().id}"
    refused = ask(shop.offline, url, action="pay", method=method)
    assert (refused.status, refused.headers["Location"]) == (303, url)
    page = ask(shop.offline, url).body.decode()
    assert f"<p role=alert>{words}</p>" in page
    assert "pay" in Buttons(page).actions


@pytest.mark.parametrize("action", ["authenticate", "fail_authentication"])
def test_three_d_secure(shop: Shop, action: str) -> None:
    """The page asks; yes leads to the shop, no back to the choice of cards."""
    session = shop.offer()
    url = f"/c/pay/{session.id}"
    ask(shop.offline, url, action="pay", method="authenticationRequired")
    asked = ask(shop.offline, url).body.decode()
    assert Buttons(asked).actions == ["authenticate", "fail_authentication"]
    intent = shop.offline.get(shop.offline.get(session.id)["payment_intent"])
    redirect = intent["next_action"]["redirect_to_url"]["url"]
    assert ask(shop.offline, redirect).headers["Location"] == url
    led = ask(shop.offline, url, action=action)
    passed = action == "authenticate"
    assert led.headers["Location"].startswith("https://shop.test" if passed else url)
    assert (shop.offline.get(session.id)["payment_status"] == "paid") is passed


@pytest.mark.parametrize(("action", "status"), [("settle", "paid"), ("fail", "unpaid")])
def test_a_delayed_payment(shop: Shop, action: str, status: str) -> None:
    """To the success page at once; the page then lets one decide what the bank says."""
    session = shop.offer()
    url = f"/c/pay/{session.id}"
    led = ask(shop.offline, url, action="pay", method="sepa")
    assert led.headers["Location"].startswith("https://shop.test/thanks")
    assert shop.offline.get(session.id)["payment_status"] == "unpaid"
    assert Buttons(ask(shop.offline, url).body.decode()).actions == ["settle", "fail"]
    ask(shop.offline, url, action=action)
    assert shop.offline.get(session.id)["payment_status"] == status
    assert Buttons(ask(shop.offline, url).body.decode()).actions == []


@pytest.mark.parametrize(("method", "status"), [("sepa", "paid"), ("sepaFails", "unpaid")])
def test_a_bank_answers_by_itself_after_three_minutes(
    shop: Shop, clock: Clock, method: str, status: str
) -> None:
    """And a pending refund arrives; not a second earlier."""
    session = shop.sell(method=method)
    charge = shop.sold(method="pendingRefund")
    refund = shop.client.v1.refunds.create({"charge": charge["id"]})
    shop.deliver()
    clock.now += 179
    shop.offline.advance(0)
    assert shop.event_types() == []
    clock.now += 1
    shop.offline.advance(0)
    outcome = "succeeded" if status == "paid" else "failed"
    assert f"checkout.session.async_payment_{outcome}" in shop.event_types()
    assert session["payment_status"] == status
    assert shop.client.v1.refunds.retrieve(refund.id).status == "succeeded"


def test_three_d_secure_without_a_session(shop: Shop) -> None:
    """A PaymentIntent's own page leads back to where its maker wants."""
    intent = shop.client.v1.payment_intents.create(
        {
            "amount": 500,
            "currency": "usd",
            "confirm": True,
            "payment_method": "pm_card_threeDSecure2Required",
            "return_url": "https://shop.test/back",
        }
    )
    url = f"/authenticate/{intent.id}"
    assert Buttons(ask(shop.offline, url).body.decode()).actions[0] == "authenticate"
    led = ask(shop.offline, url, action="authenticate")
    assert led.headers["Location"] == "https://shop.test/back"
    assert shop.offline.get(intent.id)["status"] == "succeeded"


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(shop: Shop) -> None:
    """No script, no foreign address, what a customer wrote is shown as text."""
    session = shop.offer(customer_email='"><script>alert(1)</script>@example.com')
    page = ask(shop.offline, f"/c/pay/{session.id}")
    text = page.body.decode()
    assert "<script" not in text
    assert re.findall(r"(?:src|href)=", text) == []
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "<html lang=en>" in text


def test_addresses(shop: Shop) -> None:
    """The start page lists the sessions; an unknown one is said to be so."""
    session = shop.offer()
    assert f"/c/pay/{session.id}" in ask(shop.offline, "/").body.decode()
    assert ask(shop.offline, "/c/pay/cs_test_nothing").status == 404
    assert ask(shop.offline, "/authenticate/pi_nothing").status == 404
