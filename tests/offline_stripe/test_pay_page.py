"""The pay page, clicked through: every way a payment can go, by the forms it shows."""

import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from src.html_pages import money
from src.offline_stripe import OfflineStripe, Request, Response
from src.offline_stripe.pay_page import CHOICES
from src.offline_stripe.site import answer
from tests.offline_stripe.shop import CANCEL_URL, Clock, Shop


class Buttons(HTMLParser):
    """What the page offers: the values of its buttons and radio buttons, and its labels."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.actions: list[str] = []
        self.methods: list[str] = []
        self.checked: list[str] = []
        self.events: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the controls."""
        named = dict(attrs)
        if tag == "button":
            self.actions.append(str(named["value"]))
        if named.get("type") == "radio":
            self.methods.append(str(named["value"]))
            self.checked += [str(named["value"])] * ("checked" in named)
        if named.get("name") == "event":
            self.events.append(str(named["value"]))


def ask(offline: OfflineStripe, url: str, **form: str) -> Response:
    """Look at a page, or press one of its buttons."""
    parts = urlsplit(url)
    method = "POST" if form else "GET"
    body = urlencode(form).encode()
    return answer(offline, Request(method, parts.path, query=parts.query, body=body))


def look(offline: OfflineStripe, url: str) -> str:
    """A page's HTML."""
    return ask(offline, url).body.decode()


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
    assert Buttons(again.body.decode()).actions == ["refund", "dispute", "resend"]
    assert ask(shop.offline, f"/c/pay/{session.id}", action="pay").status == 400


def test_a_promotion_code_is_entered_before_it_is_paid(shop: Shop) -> None:
    """Where the session takes one: the page shows what it takes off, and asks for no other."""
    coupon = shop.client.v1.coupons.create({"percent_off": 20})
    promotion: Any = {"promotion": {"type": "coupon", "coupon": coupon.id}, "code": "SUMMER"}
    shop.client.v1.promotion_codes.create(promotion)
    assert "enter_code" not in Buttons(look(shop.offline, f"/c/pay/{shop.offer().id}")).actions
    url = f"/c/pay/{shop.offer(allow_promotion_codes=True).id}"
    assert Buttons(look(shop.offline, url)).actions == ["enter_code", "pay", "cancel"]
    wrong = ask(shop.offline, url, action="enter_code", promotion_code="WINTER")
    assert (wrong.status, b"This code is invalid." in wrong.body) == (400, True)
    assert ask(shop.offline, url, action="enter_code", promotion_code="summer").status == 303
    page = look(shop.offline, url)
    assert Buttons(page).actions == ["pay", "cancel"]
    assert "1.00 USD" in page
    assert "Pay 4.00 USD" in page
    ask(shop.offline, url, action="pay", method="visa")
    at_once = shop.offer(allow_promotion_codes=True).id
    ask(shop.offline, f"/c/pay/{at_once}", method="visa", promotion_code="summer")
    assert shop.offline.get(at_once)["amount_total"] == 400
    assert [each["amount"] for each in shop.offline.account.all("charge")] == [400, 400]


@pytest.mark.parametrize(
    ("amount", "currency", "written"),
    [
        (500, "jpy", "500 JPY"),
        (1_234_567, "jpy", "1,234,567 JPY"),
        (5_000, "kwd", "5.000 KWD"),
        (123_456, "usd", "1,234.56 USD"),
        (5, "EUR", "0.05 EUR"),
        (5, "xyz", "0.05 XYZ"),
        (-1_050, "usd", "-10.50 USD"),
    ],
)
def test_an_amount_is_written_with_its_currency_s_decimals(
    amount: int, currency: str, written: str
) -> None:
    """Some have none, some have three."""
    assert money(amount, currency) == written


def test_the_page_asks_for_yen_in_whole_ones(shop: Shop) -> None:
    """As the shop meant it."""
    price: Any = {"currency": "jpy", "unit_amount": 500, "product_data": {"name": "Starter"}}
    session = shop.offer(line_items=[{"price_data": price, "quantity": 1}])
    assert "Pay 500 JPY" in look(shop.offline, str(session.url))


@pytest.mark.parametrize(
    "form",
    [
        {"method[x]": "visa"},
        {"method": "gold"},
        {"action[x]": "pay"},
        {"email[a]": "b"},
        {"email": "ada"},
        {"promotion_code[x]": "y"},
        {"pay": "now"},
    ],
    ids=str,
)
def test_a_form_that_is_not_the_page_s_pays_nothing(shop: Shop, form: dict[str, str]) -> None:
    """It is refused, on a page that says what is wrong."""
    session = shop.offer(allow_promotion_codes=True)
    refused = ask(shop.offline, f"/c/pay/{session.id}", **form)
    assert (refused.status, b"This cannot be done" in refused.body) == (400, True)
    assert shop.offline.get(session.id)["payment_status"] == "unpaid"


def test_a_form_that_is_not_the_page_s_authenticates_nothing(shop: Shop) -> None:
    """3-D Secure of a payment without a session is not answered by it."""
    asked: Any = {"amount": 500, "currency": "usd", "confirm": True}
    asked["payment_method"] = "pm_card_authenticationRequired"
    intent = shop.client.v1.payment_intents.create(asked)
    url = f"/authenticate/{intent.id}"
    assert ask(shop.offline, url, **{"action[x]": "authenticate"}).status == 400
    assert shop.offline.get(intent.id)["status"] == "requires_action"


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


def test_the_card_that_was_chosen_stays_chosen(shop: Shop) -> None:
    """After a decline, and after 3-D Secure came to nothing; the first one is before any choice."""
    url = f"/c/pay/{shop.offer().id}"
    assert Buttons(look(shop.offline, url)).checked == ["visa"]
    ask(shop.offline, url, method="chargeDeclinedInsufficientFunds")
    assert Buttons(look(shop.offline, url)).checked == ["chargeDeclinedInsufficientFunds"]
    ask(shop.offline, url, method="authenticationRequired")
    ask(shop.offline, url, action="fail_authentication")
    assert Buttons(look(shop.offline, url)).checked == ["authenticationRequired"]
    assert ask(shop.offline, url, method="amex").status == 303
    other = f"/c/pay/{shop.offer().id}"
    ask(shop.offline, other, method="chargeDeclinedLostCard")  # which a program may name
    assert Buttons(look(shop.offline, other)).checked == ["visa"]


def test_the_page_says_what_is_bought_and_for_whom(shop: Shop) -> None:
    """Line items, total, the customer's e-mail, whoever said it, and the shop's reference."""
    pens: Any = {"currency": "usd", "unit_amount": 150, "product_data": {"name": "<Pens>"}}
    session = shop.offer(
        line_items=[{"price_data": pens, "quantity": 3}],
        client_reference_id="order-7",
        customer_email="ada@example.com",
    )
    page = look(shop.offline, f"/c/pay/{session.id}")
    for words in ("3 × &lt;Pens&gt;", "4.50 USD", "ada@example.com", "order-7"):  # noqa: RUF001
        assert words in page
    customer = shop.client.v1.customers.create({"email": "grace@example.com"})
    session = shop.offer(customer=customer.id)
    assert "grace@example.com" in look(shop.offline, f"/c/pay/{session.id}")
    anonymous = shop.offer()
    assert "<dt>For</dt>" not in look(shop.offline, f"/c/pay/{anonymous.id}")
    ask(shop.offline, f"/c/pay/{anonymous.id}", method="visa", email="eve@example.com")
    assert "eve@example.com" in look(shop.offline, f"/c/pay/{anonymous.id}")


def test_what_is_paid_can_be_refunded_once(shop: Shop) -> None:
    """All that is left; then the page says so, and offers it no more."""
    session = shop.sell()
    url = f"/c/pay/{session['id']}"
    shop.client.v1.refunds.create({"charge": shop.charge_of(session)["id"], "amount": 200})
    assert "Refund 3.00 USD" in look(shop.offline, url)
    done = ask(shop.offline, url, action="refund")
    assert (done.status, done.headers["Location"]) == (303, f"{url}?done=refund")
    assert shop.charge_of(session)["amount_refunded"] == 500
    page = look(shop.offline, done.headers["Location"])
    assert "<p role=status>The money goes back.</p>" in page
    assert "2.00 USD (succeeded), 3.00 USD (succeeded)" in page
    assert Buttons(page).actions == ["dispute", "resend"]
    refused = ask(shop.offline, url, action="refund")
    assert refused.status == 400
    assert f'<a href="{url}">' in refused.body.decode()


def test_what_is_paid_can_be_disputed_once(shop: Shop) -> None:
    """The bank has the money; the page says so, and offers it no more."""
    session = shop.sell()
    url = f"/c/pay/{session['id']}"
    done = ask(shop.offline, url, action="dispute")
    assert shop.charge_of(session)["disputed"]
    page = look(shop.offline, done.headers["Location"])
    assert "5.00 USD (needs_response)" in page
    assert "dispute" not in Buttons(page).actions
    assert ask(shop.offline, url, action="dispute").status == 400


def test_a_sessions_events_are_sent_again(shop: Shop) -> None:
    """Its own, by their buttons; another's is refused, and nothing is sent."""
    session, other = shop.sell(), shop.sell()
    shop.deliver()
    url = f"/c/pay/{session['id']}"
    [event] = Buttons(look(shop.offline, url)).events
    assert ask(shop.offline, url, action="resend", event=event).status == 303
    assert [each.id for each in shop.deliver()] == [event]
    [foreign] = Buttons(look(shop.offline, f"/c/pay/{other['id']}")).events
    assert ask(shop.offline, url, action="resend", event=foreign).status == 400
    assert shop.deliver() == []


@pytest.mark.parametrize("action", ["refund", "dispute", "resend"])
def test_what_nobody_has_paid_can_not_be_undone(shop: Shop, action: str) -> None:
    """An open session has no money to give back and no event."""
    session = shop.offer()
    url = f"/c/pay/{session.id}"
    ask(shop.offline, url, method="chargeDeclined")
    assert ask(shop.offline, url, action=action, event="evt_1").status == 400
    assert "<p role=status>" not in look(shop.offline, f"{url}?done=<b>")


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


@pytest.mark.parametrize(
    ("action", "status", "then"),
    [
        ("settle", "paid", ["refund", "dispute", "resend", "resend"]),
        ("fail", "unpaid", ["resend", "resend"]),
    ],
)
def test_a_delayed_payment(shop: Shop, action: str, status: str, then: list[str]) -> None:
    """To the success page at once; the page then lets one decide what the bank says.

    What came in may be paid back, what failed may not; either has two events to send again.
    """
    session = shop.offer()
    url = f"/c/pay/{session.id}"
    led = ask(shop.offline, url, action="pay", method="sepa")
    assert led.headers["Location"].startswith("https://shop.test/thanks")
    assert shop.offline.get(session.id)["payment_status"] == "unpaid"
    assert Buttons(ask(shop.offline, url).body.decode()).actions == ["settle", "fail"]
    ask(shop.offline, url, action=action)
    assert shop.offline.get(session.id)["payment_status"] == status
    assert Buttons(ask(shop.offline, url).body.decode()).actions == then


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
