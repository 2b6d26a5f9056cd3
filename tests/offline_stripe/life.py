"""A shop's life on the offline Stripe, in which everything happens that can, at every address."""

from typing import Any

import pytest
import stripe

from src.offline_stripe import METHODS
from src.offline_stripe.routes import ROUTES
from tests.offline_stripe.shop import Shop

Address = tuple[str, tuple[str, ...]]


def live(shop: Shop) -> None:
    """Let everything happen that can."""
    sell_by_every_method(shop)
    sell_for_less(shop)
    refund_and_dispute(shop)
    invoice(shop)
    send_invoices(shop)
    charge_directly(shop)
    keep_methods(shop)
    pay_out(shop)
    keep_a_catalog(shop)
    keep_customers(shop)
    listen(shop)
    move_time(shop)
    look_everywhere(shop)


def address_of(method: str, path: str) -> Address:
    """The address of the offline Stripe's that a path is one of."""
    segments = path.split("/")[2:]
    found = [
        (known, pattern)
        for known, pattern in ROUTES
        if known == method
        and len(pattern) == len(segments)
        and all(expected in ("{}", each) for expected, each in zip(pattern, segments, strict=True))
    ]
    return min(found, key=lambda address: address[1].count("{}"))


def ask(shop: Shop, method: str, path: str, **parameters: Any) -> Any:
    """An answer to what Stripe's library has no method for, or needs none."""
    return shop.client.raw_request(method, path, **parameters).data


def sell_by_every_method(shop: Shop) -> None:
    """Sessions paid, declined, authenticated, settled later, given away, expired."""
    sessions = shop.client.v1.checkout.sessions
    for method in METHODS:
        session = shop.sell(700, method)
        if session["status"] == "open" and session["payment_intent"]:
            if shop.offline.get(session["payment_intent"])["status"] == "requires_action":
                shop.offline.authenticate(session["id"], passed=method != "threeDSecureRequired")
        elif session["payment_status"] == "unpaid":
            shop.offline.settle_payment(session["id"], succeeded=method != "sepaFails")
    sessions.expire(shop.offer().id)
    offered = shop.offer(allowed_payment_method_types=["card"])
    sessions.update(offered.id, {"metadata": {"seen": "yes"}})
    sessions.line_items.list(offered.id)
    sessions.retrieve(offered.id, {"expand": ["line_items"]})
    ask(shop, "get", f"/v1/payment_pages/{offered.id}")
    ask(shop, "post", f"/v1/payment_pages/{offered.id}/confirm", payment_method="pm_card_visa")


def sell_for_less(shop: Shop) -> None:
    """With coupons and promotion codes, which are changed, used up and deleted."""
    v1 = shop.client.v1
    coupon = v1.coupons.create({"percent_off": 20.0, "max_redemptions": 2})
    v1.coupons.update(coupon.id, {"name": "Summer"})
    code = v1.promotion_codes.create({"promotion": {"type": "coupon", "coupon": coupon.id}})
    v1.promotion_codes.update(code.id, {"metadata": {"for": "all"}})
    shop.offline.pay(shop.offer(allow_promotion_codes=True).id, promotion_code=code.code)
    shop.sell(discounts=[{"promotion_code": code.id}])
    free = v1.coupons.create({"amount_off": 9_999, "currency": "usd"})
    shop.sell(discounts=[{"coupon": free.id}])
    v1.coupons.retrieve(free.id, {"expand": ["applies_to"]})
    v1.coupons.delete(free.id)


def refund_and_dispute(shop: Shop) -> None:
    """What was sold is paid back, a refund is changed and cancelled, disputes are decided."""
    v1 = shop.client.v1
    for charge in list(shop.offline.account.all("charge")):
        if charge["paid"] and not charge["disputed"]:
            refund = v1.refunds.create({"charge": charge["id"], "amount": 300})
            v1.refunds.update(refund.id, {"metadata": {"why": "asked"}})
            v1.charges.retrieve(charge["id"], {"expand": ["refunds"]})
            ask(shop, "get", f"/v1/charges/{charge['id']}/refunds")
    waiting = v1.refunds.create({"charge": shop.sold()["id"]})
    shop.offline.get(waiting.id)["status"] = "requires_action"
    v1.refunds.cancel(waiting.id)
    for dispute in list(shop.offline.account.all("dispute")):
        if dispute["status"].startswith("warning"):
            shop.offline.decide_dispute(dispute["id"], "escalate")
        v1.disputes.update(dispute["id"], {"evidence": {"customer_name": "Ada"}})
        shop.offline.decide_dispute(dispute["id"], "win")
    v1.disputes.close(shop.offline.open_dispute(shop.sold()["id"])["id"])


def invoice(shop: Shop) -> None:
    """Invoices of sessions and of items, paid and voided; credit notes of both."""
    v1 = shop.client.v1
    invoiced = shop.sell(invoice_creation={"enabled": True})["invoice"]
    v1.credit_notes.create({"invoice": invoiced, "amount": 100, "refund_amount": 100})
    v1.invoices.retrieve(invoiced, {"expand": ["payments"]})
    customer = v1.customers.create({"email": "ada@example.com"})
    v1.payment_methods.attach("pm_card_visa", {"customer": customer.id})
    included: Any = {"customer": customer.id, "pending_invoice_items_behavior": "include"}
    for wanted in ("pay", "void"):
        v1.invoice_items.create({"customer": customer.id, "amount": 900})
        made = v1.invoices.create(included)
        v1.invoices.finalize_invoice(made.id)
        if wanted == "pay":
            v1.invoices.pay(made.id)
        else:
            note = v1.credit_notes.create({"invoice": made.id, "amount": 100})
            v1.credit_notes.update(note.id, {"memo": "Sorry"})
            v1.credit_notes.line_items.list(note.id)
            v1.credit_notes.void_credit_note(note.id)
            v1.invoices.void_invoice(made.id)


def send_invoices(shop: Shop) -> None:
    """Items that are changed and deleted; invoices previewed, sent, given up, authenticated."""
    v1: Any = shop.client.v1
    customer = v1.customers.create({"email": "bob@example.com"}).id
    price = v1.prices.create({"currency": "usd", "unit_amount": 800, "product_data": {"name": "P"}})
    item = v1.invoice_items.create({"customer": customer, "pricing": {"price": price.id}})
    v1.invoice_items.update(item.id, {"description": "Slides"})
    v1.invoice_items.delete(v1.invoice_items.create({"customer": customer, "amount": 5}).id)
    v1.invoices.create_preview({"customer": customer, "invoice_items": [{"amount": 100}]})
    asking: Any = {"customer": customer, "pending_invoice_items_behavior": "include"}
    v1.invoices.delete(v1.invoices.create(asking).id)
    due: Any = {"collection_method": "send_invoice", "days_until_due": 7}
    sent = v1.invoices.create({**asking, **due})
    v1.invoices.update(sent.id, {"description": "Slides"})
    v1.invoices.send_invoice(sent.id)
    v1.invoices.line_items.list(sent.id)
    v1.invoices.mark_uncollectible(sent.id)
    v1.invoice_items.create({"customer": customer, "amount": 900})
    asked = v1.invoices.create(asking)
    with pytest.raises(stripe.CardError):
        v1.invoices.pay(asked.id, {"payment_method": "pm_card_authenticationRequired"})
    (waiting,) = (
        each["id"]
        for each in shop.offline.account.all("payment_intent")
        if each["customer"] == customer
    )
    shop.offline.authenticate(waiting)


def charge_directly(shop: Shop) -> None:
    """PaymentIntents without a session: confirmed, captured, cancelled, changed."""
    intents: Any = shop.client.v1.payment_intents
    asked: Any = {"amount": 500, "currency": "usd"}
    made = intents.create({**asked, "capture_method": "manual"})
    intents.update(made.id, {"amount": 600})
    intents.confirm(made.id, {"payment_method": "pm_card_visa"})
    intents.capture(made.id)
    intents.cancel(intents.create(asked).id)
    paid = intents.create({**asked, "payment_method": "pm_card_visa", "confirm": True})
    shop.client.v1.charges.update(str(paid.latest_charge), {"description": "Credits"})
    reserved = intents.create({**asked, "capture_method": "manual"})
    intents.confirm(reserved.id, {"payment_method": "pm_card_visa"})
    shop.client.v1.charges.capture(shop.offline.get(reserved.id)["latest_charge"], {"amount": 400})


def keep_methods(shop: Shop) -> None:
    """Payment methods made, charged, kept by a customer, changed and given up."""
    v1 = shop.client.v1
    method = v1.payment_methods.create({"type": "card", "card": {"token": "tok_visa"}})
    v1.payment_intents.create({"amount": 500, "currency": "usd", "payment_method": method.id})
    customer = v1.customers.create({})
    v1.payment_methods.attach(method.id, {"customer": customer.id})
    v1.payment_methods.update(method.id, {"billing_details": {"name": "Ada"}})
    v1.customers.payment_methods.list(customer.id)
    v1.customers.payment_methods.retrieve(customer.id, method.id)
    v1.payment_methods.detach(method.id)


def pay_out(shop: Shop) -> None:
    """To the bank: paid, failed, cancelled."""
    shop.sell(5_000, "bypassPending")
    payouts = shop.client.v1.payouts
    made = [payouts.create({"amount": 1_000, "currency": "usd"}).id for _ in range(3)]
    payouts.update(made[0], {"metadata": {"for": "rent"}})
    payouts.cancel(made[1])
    shop.offline.settle_payout(made[2], "failed")
    shop.offline.advance(2 * 86_400)


def keep_a_catalog(shop: Shop) -> None:
    """Products and prices."""
    v1 = shop.client.v1
    product = v1.products.create(
        {"name": "Pro", "default_price_data": {"currency": "usd", "unit_amount": 900}}
    )
    v1.products.update(product.id, {"description": "More"})
    price = v1.prices.create({"currency": "usd", "unit_amount": 800, "product": product.id})
    v1.prices.update(price.id, {"nickname": "old"})
    v1.products.delete(v1.products.create({"name": "Mistake"}).id)


def keep_customers(shop: Shop) -> None:
    """Made, renamed, deleted."""
    customers = shop.client.v1.customers
    ada = customers.create({"name": "Ada", "individual_name": "Ada", "business_name": "Engines"})
    customers.update(ada.id, {"business_name": "", "phone": "+431"})
    customers.delete(ada.id)
    customers.retrieve(ada.id)


def listen(shop: Shop) -> None:
    """Webhook endpoints made, changed and deleted; an event sent again."""
    endpoints = shop.client.v1.webhook_endpoints
    made = endpoints.create({"url": "https://shop.test/2", "enabled_events": ["charge.succeeded"]})
    endpoints.update(made.id, {"disabled": True})
    endpoints.delete(made.id)
    event = next(shop.offline.account.all("event"))
    ask(shop, "post", f"/v1/events/{event['id']}/retry")


def move_time(shop: Shop) -> None:
    """A test clock is made, moved on, and deleted."""
    clocks = shop.client.v1.test_helpers.test_clocks
    now = shop.offline.account.now()
    made = clocks.create({"frozen_time": now})
    shop.client.v1.customers.create({"test_clock": made.id})
    clocks.advance(made.id, {"frozen_time": now + 60})
    clocks.delete(clocks.create({"frozen_time": now}).id)


def look_everywhere(shop: Shop) -> None:
    """Every list, and one object of each kind by its id."""
    for method, pattern in ROUTES:
        if method != "GET" or "{}" in pattern:
            continue
        path = f"/v1/{'/'.join(pattern)}"
        words = {"query": "metadata['a']:null"} if pattern[-1] == "search" else {}
        listed = ask(shop, "get", path, **words)
        if ("GET", (*pattern, "{}")) in ROUTES and listed["object"] == "list":
            ask(shop, "get", f"{path}/{listed['data'][0]['id']}")
