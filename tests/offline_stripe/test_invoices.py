"""Invoices come to their items, and are asked for as Stripe asks."""

from typing import Any

import pytest
import stripe

from src.offline_stripe.errors import StripeError
from tests.offline_stripe.shop import START, Clock, Shop

PAID = ["invoice_payment.paid", "invoice.paid", "invoice.payment_succeeded"]


@pytest.fixture
def customer(shop: Shop) -> str:
    """Somebody with an address and a card."""
    made = shop.client.v1.customers.create({"email": "ada@example.com"}).id
    shop.client.v1.payment_methods.attach("pm_card_visa", {"customer": made})
    return made


def bill(shop: Shop, customer: str, **more: Any) -> stripe.Invoice:
    """A draft of one item of 900."""
    shop.client.v1.invoice_items.create({"customer": customer, "amount": 900})
    asked: Any = {"customer": customer, "pending_invoice_items_behavior": "include", **more}
    return shop.client.v1.invoices.create(asked)


def taken(shop: Shop) -> list[int]:
    """The amounts of the charges that succeeded."""
    charges = shop.offline.account.all("charge")
    return [each["amount"] for each in charges if each["status"] == "succeeded"]


def test_a_draft_comes_to_its_items(shop: Shop, customer: str) -> None:
    """Also to those that are added, changed and taken away; a finalized one stays as it is."""
    v1: Any = shop.client.v1
    draft = bill(shop, customer)
    price = v1.prices.create({"currency": "usd", "unit_amount": 50, "product_data": {"name": "P"}})
    more: Any = {"customer": customer, "invoice": draft.id, "pricing": {"price": price.id}}
    item = v1.invoice_items.create({**more, "quantity": 3})
    assert v1.invoices.retrieve(draft.id).amount_due == 900 + 150
    lines = v1.invoices.line_items.list(draft.id).data
    assert [(each.amount, each.quantity) for each in lines] == [(900, 1), (150, 3)]
    (first,) = (
        each.id for each in v1.invoice_items.list({"limit": 100}).data if each.amount == 900
    )
    v1.invoice_items.update(first, {"amount": 800})
    v1.invoice_items.delete(item.id)
    assert v1.invoices.finalize_invoice(draft.id).total == 800
    with pytest.raises(stripe.InvalidRequestError, match="cannot be changed"):
        v1.invoice_items.update(first, {"amount": 1})
    with pytest.raises(stripe.InvalidRequestError, match="takes no more items"):
        v1.invoice_items.create(more)


def test_a_preview_is_what_would_be(shop: Shop, customer: str) -> None:
    """Of waiting items and those given along; nothing is kept, no event is made."""
    v1 = shop.client.v1
    v1.invoice_items.create({"customer": customer, "amount": 900})
    shop.deliver()
    seen = v1.invoices.create_preview(
        {"customer": customer, "invoice_items": [{"amount": 100, "currency": "usd"}]}
    )
    assert (seen.total, seen.status, seen.id.startswith("upcoming_in_")) == (1_000, "draft", True)
    assert (v1.invoices.list().data, shop.event_types()) == ([], [])
    assert len(v1.invoice_items.list({"pending": True}).data) == 1
    with pytest.raises(stripe.InvalidRequestError, match="no subscriptions"):
        v1.invoices.create_preview({"customer": customer, "subscription": "sub_1"})


def test_an_invoice_is_sent_to_who_has_an_address(shop: Shop, customer: str) -> None:
    """And is due on a day; it may be paid elsewhere."""
    v1 = shop.client.v1
    sent = bill(shop, customer, collection_method="send_invoice", days_until_due=7)
    assert sent.due_date == START + 7 * 86_400
    shop.deliver()
    assert v1.invoices.send_invoice(sent.id).status == "open"
    assert shop.event_types() == ["invoice.finalized", "invoice.sent"]
    paid = v1.invoices.pay(sent.id, {"paid_out_of_band": True})
    assert (paid.status, shop.event_types()) == ("paid", PAID[1:])
    nobody = v1.customers.create({}).id
    for wrong, param in (
        (
            {"customer": nobody, "collection_method": "send_invoice", "days_until_due": 1},
            "customer",
        ),
        ({"customer": customer, "collection_method": "send_invoice"}, "days_until_due"),
        ({"customer": customer, "days_until_due": 1}, "days_until_due"),
    ):
        parameters: Any = wrong
        with pytest.raises(stripe.InvalidRequestError) as refused:
            v1.invoices.create(parameters)
        assert refused.value.param == param
    with pytest.raises(stripe.InvalidRequestError, match="collection_method=send_invoice"):
        v1.invoices.send_invoice(bill(shop, customer).id)


def test_a_draft_that_advances_is_finalized_and_paid_an_hour_later(
    shop: Shop, customer: str, clock: Clock
) -> None:
    """By itself; others wait."""
    advancing, waiting = bill(shop, customer, auto_advance=True), bill(shop, customer)
    shop.deliver()
    clock.now += 3_600
    assert shop.client.v1.invoices.retrieve(advancing.id).status == "paid"
    assert shop.client.v1.invoices.retrieve(waiting.id).status == "draft"
    assert [each for each in shop.event_types() if each.startswith("invoice")] == [
        "invoice.finalized",
        *PAID,
    ]


def test_a_payment_that_asks_for_authentication_pays_once_it_is_given(
    shop: Shop, customer: str
) -> None:
    """Until then the invoice is open, and says what it waits for."""
    v1 = shop.client.v1
    asked = bill(shop, customer)
    shop.deliver()
    with pytest.raises(stripe.CardError) as waiting:
        v1.invoices.pay(asked.id, {"payment_method": "pm_card_authenticationRequired"})
    assert waiting.value.code == "invoice_payment_intent_requires_action"
    assert shop.event_types()[-2:] == ["invoice.payment_failed", "invoice.payment_action_required"]
    intent = v1.payment_intents.list({"customer": customer}).data[0].id
    shop.offline.authenticate(intent)
    assert v1.invoices.retrieve(asked.id).status == "paid"
    assert shop.event_types()[-3:] == PAID


def test_what_is_over_stays_so(shop: Shop, customer: str) -> None:
    """Drafts are deleted and their items wait again; open ones are given up or voided."""
    v1 = shop.client.v1
    v1.invoices.delete(bill(shop, customer).id)
    assert len(v1.invoice_items.list({"pending": True}).data) == 1
    asked: Any = {"customer": customer, "pending_invoice_items_behavior": "include"}
    given_up = v1.invoices.create(asked)
    v1.invoices.finalize_invoice(given_up.id)
    with pytest.raises(stripe.InvalidRequestError, match="only delete"):
        v1.invoices.delete(given_up.id)
    assert v1.invoices.mark_uncollectible(given_up.id).status == "uncollectible"
    voided = v1.invoices.void_invoice(given_up.id)
    assert (voided.status, voided.status_transitions.voided_at) == ("void", START)
    with pytest.raises(stripe.InvalidRequestError, match="only void"):
        v1.invoices.void_invoice(given_up.id)


@pytest.mark.parametrize("succeeded", [True, False])
def test_a_bank_debit_pays_its_invoice_once(shop: Shop, customer: str, *, succeeded: bool) -> None:
    """Days later. Until then nothing else is charged, nor is it given up; after a failure it is."""
    invoices: Any = shop.client.v1.invoices
    asked = bill(shop, customer).id
    assert invoices.pay(asked, {"payment_method": "pm_card_sepa"}).status == "open"
    with pytest.raises(stripe.InvalidRequestError, match="on its way"):
        invoices.pay(asked, {"payment_method": "pm_card_visa"})
    with pytest.raises(stripe.InvalidRequestError, match="on its way"):
        invoices.pay(asked, {"paid_out_of_band": True})
    with pytest.raises(stripe.InvalidRequestError, match="on its way"):
        invoices.void_invoice(asked)
    (intent,) = shop.offline.account.all("payment_intent")
    shop.deliver()
    shop.offline.settle_payment(intent["id"], succeeded=succeeded)
    told = [each for each in shop.event_types() if each.startswith("invoice")]
    assert told == (PAID if succeeded else ["invoice.payment_failed"])
    if not succeeded:
        invoices.pay(asked)
    assert invoices.retrieve(asked).status == "paid"
    assert taken(shop) == [900]


def test_an_invoice_is_charged_by_one_payment(shop: Shop, customer: str) -> None:
    """A card that works takes the place of one that asks for 3-D Secure."""
    v1: Any = shop.client.v1
    asked = bill(shop, customer).id
    with pytest.raises(stripe.CardError):
        v1.invoices.pay(asked, {"payment_method": "pm_card_authenticationRequired"})
    assert v1.invoices.pay(asked).status == "paid"
    (intent,) = shop.offline.account.all("payment_intent")
    with pytest.raises(StripeError, match="succeeded"):
        shop.offline.authenticate(intent["id"])
    assert taken(shop) == [900]


@pytest.mark.parametrize("end", ["void", "elsewhere"])
def test_what_need_not_be_paid_is_not_charged_any_more(shop: Shop, customer: str, end: str) -> None:
    """Its payment that waits for 3-D Secure is cancelled."""
    v1: Any = shop.client.v1
    asked = bill(shop, customer).id
    with pytest.raises(stripe.CardError):
        v1.invoices.pay(asked, {"payment_method": "pm_card_authenticationRequired"})
    if end == "void":
        v1.invoices.void_invoice(asked)
    else:
        v1.invoices.pay(asked, {"paid_out_of_band": True})
    (intent,) = shop.offline.account.all("payment_intent")
    assert intent["status"] == "canceled"


def test_a_payment_confirmed_by_a_request_pays_its_invoice(shop: Shop, customer: str) -> None:
    """After a card was declined."""
    v1: Any = shop.client.v1
    asked = bill(shop, customer).id
    with pytest.raises(stripe.CardError):
        v1.invoices.pay(asked, {"payment_method": "pm_card_chargeDeclined"})
    (intent,) = shop.offline.account.all("payment_intent")
    v1.payment_intents.confirm(intent["id"], {"payment_method": "pm_card_visa"})
    assert v1.invoices.retrieve(asked).status == "paid"


@pytest.mark.parametrize("amount", [-900, 49, 100_000_000])
def test_an_invoice_comes_to_what_can_be_charged(shop: Shop, customer: str, amount: int) -> None:
    """Otherwise it stays a draft, and no money moves."""
    v1: Any = shop.client.v1
    v1.invoice_items.create({"customer": customer, "amount": amount})
    asked: Any = {"customer": customer, "pending_invoice_items_behavior": "include"}
    draft = v1.invoices.create(asked).id
    with pytest.raises(stripe.InvalidRequestError) as refused:
        v1.invoices.pay(draft)
    assert refused.value.param == "amount"
    assert v1.invoices.retrieve(draft).status == "draft"
    assert taken(shop) == []


def test_an_invoice_that_comes_to_nothing_is_paid_when_it_is_finalized(
    shop: Shop, customer: str
) -> None:
    """And asks for no card."""
    v1: Any = shop.client.v1
    nobody = v1.customers.create({}).id
    for customer_id, act in ((customer, v1.invoices.finalize_invoice), (nobody, v1.invoices.pay)):
        draft = v1.invoices.create({"customer": customer_id})
        shop.deliver()
        assert act(draft.id).status == "paid"
        assert shop.event_types() == ["invoice.finalized", *PAID[1:]]
    assert taken(shop) == []


def test_what_a_credit_note_leaves_is_too_little_to_charge(shop: Shop, customer: str) -> None:
    """Refused, and the invoice stays open."""
    v1: Any = shop.client.v1
    asked = v1.invoices.finalize_invoice(bill(shop, customer).id).id
    v1.credit_notes.create({"invoice": asked, "amount": 890})
    with pytest.raises(stripe.InvalidRequestError, match=r"at least \$0.50"):
        v1.invoices.pay(asked)
    assert (v1.invoices.retrieve(asked).status, taken(shop)) == ("open", [])


def test_an_invoice_has_one_currency(shop: Shop, customer: str) -> None:
    """Items of another one wait for another invoice."""
    v1: Any = shop.client.v1
    v1.invoice_items.create({"customer": customer, "amount": 700, "currency": "eur"})
    draft = bill(shop, customer)
    assert (draft.currency, draft.total) == ("eur", 700)
    assert [each.amount for each in v1.invoice_items.list({"pending": True}).data] == [900]
    dollars: Any = {"amount": 100, "currency": "usd"}
    with pytest.raises(stripe.InvalidRequestError, match="The invoice is in eur"):
        v1.invoice_items.create({"customer": customer, "invoice": draft.id, **dollars})
    preview: Any = {"customer": customer, "currency": "eur", "invoice_items": [dollars]}
    with pytest.raises(stripe.InvalidRequestError, match="The invoice is in eur"):
        v1.invoices.create_preview(preview)
    other: Any = {"pending_invoice_items_behavior": "include", "currency": "USD"}
    assert v1.invoices.create({"customer": customer, **other}).total == 900
