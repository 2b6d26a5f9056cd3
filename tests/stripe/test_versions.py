"""What events of each API version since 2018 tell: an endpoint keeps the version it was made with.

Every field we read that moved, was renamed or came later, in each of its shapes
(docs.stripe.com/changelog, docs.stripe.com/upgrades).
"""

import json
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.models.stripe_reversal import StripeReversal
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.models.user import User
from src.common.stripe.inbox import EventAnswer
from src.common.stripe.wire import Charge, Invoice, PaymentIntent
from src.common.stripe.wire_money_back import CreditNote, Dispute, Refund
from src.offline_stripe import Delivery
from tests.credits.books import booked_balance, check_books
from tests.stripe.loop import Loop, only_purchase
from tests.stripe.payments import make_event
from tests.stripe.test_invoices import LONG_AGO, buy_with_invoice, credit

NOTE: dict[str, Any] = {"id": "cn_x", "livemode": False, "currency": "usd", "status": "issued"}

# Of a credit note of 200 cents: the version's shape, what no refund carries, whether that is told.
NOTES: dict[str, tuple[dict[str, Any], int, bool]] = {
    "2019, paid back outside Stripe": (
        {"type": "post_payment", "amount": 200, "out_of_band_amount": 200, "refund": None},
        200,
        True,
    ),
    "2019, before out_of_band_amount, by a refund": (
        {"type": "post_payment", "amount": 200, "refund": "re_x"},
        0,
        True,
    ),
    "2019, to the customer's balance": (
        {"type": "post_payment", "amount": 200, "customer_balance_transaction": "cbtxn_x"},
        200,
        True,
    ),
    "2019, of an open invoice": ({"type": "pre_payment", "amount": 200, "refund": None}, 0, True),
    "2020, a refund and the rest outside Stripe": (
        {"type": "post_payment", "amount": 200, "out_of_band_amount": 50, "refund": "re_x"},
        50,
        True,
    ),
    "2020, a refund and the rest to the balance": (
        {
            "type": "post_payment",
            "amount": 200,
            "out_of_band_amount": None,
            "refund": {"id": "re_x", "object": "refund"},
            "customer_balance_transaction": "cbtxn_x",
        },
        0,
        False,
    ),
    "2024, by a refund": (
        {
            "type": "post_payment",
            "amount": 200,
            "post_payment_amount": 200,
            "out_of_band_amount": None,
            "refund": "re_x",
        },
        0,
        True,
    ),
    "2024, a part of it of what was still open": (
        {"type": "mixed", "amount": 300, "post_payment_amount": 200, "refund": None},
        200,
        True,
    ),
    "2025-03-31, by refunds in part": (
        {
            "type": "post_payment",
            "amount": 200,
            "post_payment_amount": 200,
            "refunds": [{"amount_refunded": 80, "refund": "re_x"}, {"amount_refunded": 70}],
        },
        50,
        True,
    ),
    "2025-03-31, by none": (
        {"type": "post_payment", "amount": 200, "post_payment_amount": 200, "refunds": []},
        200,
        True,
    ),
}


@pytest.mark.parametrize(("shape", "expected", "is_told"), NOTES.values(), ids=NOTES.keys())
def test_a_credit_note_of_any_version_takes_what_no_refund_carries(
    shape: dict[str, Any],
    expected: int,
    is_told: bool,  # noqa: FBT001  a column of the table
) -> None:
    """Where a shape does not tell, Stripe is asked; where it cannot be, nothing is taken twice."""
    note = CreditNote.model_validate(NOTE | shape)
    reversal = note.as_reversal(payment_intent_id="pi_x")
    assert (reversal.amount_cents, reversal.status) == (expected, "issued")
    assert note.tells_all is is_told


def of_2024(note: dict[str, Any]) -> dict[str, Any]:
    """A credit note as versions before 2025-03-31 have it."""
    old = {name: value for name, value in note.items() if name != "refunds"}
    return old | {"refund": note["refunds"][0]["refund"] if note["refunds"] else None}


def of_2019(note: dict[str, Any]) -> dict[str, Any]:
    """And as versions before `post_payment_amount`."""
    later = ("post_payment_amount", "pre_payment_amount")
    return {name: value for name, value in of_2024(note).items() if name not in later}


def delivery(obj: dict[str, Any], event_type: str) -> Delivery:
    """An event about the object."""
    event = make_event(obj, event_type, api_version="2019-12-03")
    body = json.dumps(event).encode()
    return Delivery("d", event["id"], event["type"], "http://test", body, {}, 1)


@pytest.mark.parametrize("shape", [of_2019, of_2024], ids=lambda each: each.__name__)
@pytest.mark.parametrize("how", ["refund_amount", "out_of_band_amount"])
def test_an_old_credit_note_takes_once_and_reconciliation_agrees(
    db: Session, loop: Loop, user: User, shape: Any, how: str
) -> None:
    """200 of 500 cents, with its refund's own events or without; nothing is left to mend."""
    invoice, events = buy_with_invoice(loop, user)
    loop.deliver(events.values())
    note_id, told = credit(loop, invoice, **{how: 200})
    told.pop("credit_note.created")
    old = delivery(shape(loop.offline.get(note_id)), "credit_note.created")
    loop.deliver([old, *told.values(), old])
    assert booked_balance(db, user.user_id) == 300
    assert only_purchase(db).refunded_cents == 200
    findings = loop.reconcile(LONG_AGO, repairs=True).findings
    assert [each for each in findings if not each["object"].startswith("evt_")] == []
    check_books(db)


def test_a_note_whose_parts_are_not_told_is_read_at_stripe(
    db: Session, loop: Loop, user: User
) -> None:
    """A refund carries some, the customer's balance got the rest, and the old shape says no sum."""
    invoice, events = buy_with_invoice(loop, user)
    loop.deliver(events.values())
    note_id, _ = credit(loop, invoice, refund_amount=200)
    note = loop.offline.get(note_id)
    note["refunds"][0]["amount_refunded"] = 150  # as Stripe has it
    old = of_2019(note) | {"customer_balance_transaction": "cbtxn_x"}
    loop.deliver([delivery(old, "credit_note.created")])
    kept = db.get_one(StripeReversal, (False, note_id))
    assert kept.amount_cents == 50


SESSION_SHAPES: dict[str, tuple[str, ...]] = {
    "2019-05-16": (
        *("mode", "payment_status", "status", "currency"),
        *("amount_subtotal", "amount_total", "total_details"),
    ),
    "2020-03-02": ("payment_status", "status", "currency", "amount_total", "total_details"),
    "2020-08-27": ("total_details", "status"),
    "2022-08-01": (),
}


@pytest.mark.parametrize("lacks", SESSION_SHAPES.values(), ids=SESSION_SHAPES.keys())
@pytest.mark.parametrize("discount", [0, 100])
def test_a_session_of_any_version_is_credited_by_its_one_event(
    db: Session, loop: Loop, user: User, lacks: tuple[str, ...], discount: int
) -> None:
    """What a version does not tell of a session, Stripe does."""
    page = loop.buy(user.user_id)
    session_id = loop.session_of(page)
    loop.offline.pay(session_id)
    session = loop.offline.get(session_id)
    if discount:
        session["amount_total"] -= discount
        session["total_details"]["amount_discount"] = discount
        loop.offline.get(session["payment_intent"])["amount_received"] -= discount
    told = {name: value for name, value in session.items() if name not in lacks}
    [answer] = loop.deliver([delivery(told, "checkout.session.completed")])
    reasons = [each.reason for each in db.scalars(select(UnmatchedPayment))]
    if discount:  # which the order does not allow: it is judged by all the figures
        assert (answer, reasons) == (EventAnswer.UNMATCHED, ["AMOUNT_MISMATCH"])
    else:
        assert (answer, reasons) == (EventAnswer.PROCESSED, [])
        assert booked_balance(db, user.user_id) == 500


def test_a_payment_names_its_invoice_in_the_old_place() -> None:
    """`payment_intent.invoice`, `charge.invoice` and `invoice.payment_intent`, until 2025-03-31."""
    of_payment = {"id": "pi_x", "livemode": False, "status": "succeeded", "invoice": "in_x"}
    payment = PaymentIntent.model_validate(of_payment).as_payment()
    assert (payment.mode, payment.invoice_id, payment.stripe_session_id) == (
        "invoice",
        "in_x",
        "in_x",
    )
    charge = Charge.model_validate({"id": "ch_x", "livemode": False, "invoice": {"id": "in_x"}})
    assert charge.as_payment_intent("pi_x").invoice == "in_x"
    invoice = {"id": "in_x", "livemode": False, "payment_intent": {"id": "pi_x", "amount": 5}}
    assert Invoice.model_validate(invoice).payment_intent == "pi_x"


@pytest.mark.parametrize(
    ("shape", "taken"),
    [
        ({"amount": 500, "captured": True, "paid": True}, 500),  # until 2020
        ({"amount": 500, "amount_captured": 100, "captured": True, "paid": True}, 100),
    ],
)
def test_a_charge_of_any_version_tells_what_was_taken(shape: dict[str, Any], taken: int) -> None:
    """Before 2020 a captured charge had no `amount_captured`."""
    told = Charge.model_validate({"id": "ch_x", "livemode": False, "currency": "usd"} | shape)
    payment = told.as_payment_intent("pi_x")
    assert (payment.amount_received, payment.has_succeeded) == (taken, True)


def test_refunds_and_disputes_of_2018_name_the_charge_only() -> None:
    """Their `payment_intent` came in 2019; the charge is asked for it."""
    refund = Refund.model_validate({"id": "re_x", "amount": 1, "currency": "usd", "charge": "ch_x"})
    assert (refund.payment_intent, refund.charge) == (None, "ch_x")
    told = {"id": "dp_x", "livemode": False, "amount": 1, "currency": "usd", "charge": "ch_x"}
    dispute = Dispute.model_validate(told | {"status": "charge_refunded"})  # until 2020
    assert (dispute.payment_intent, dispute.charge) == (None, "ch_x")
    assert dispute.as_reversal().status == "inquiry"


@pytest.mark.parametrize("name", ["refund", "dispute"])
def test_the_charge_of_an_old_reversal_leads_to_its_payment(
    db: Session, loop: Loop, user: User, name: str
) -> None:
    """Without a PaymentIntent in the event, the credits go back all the same."""
    session_id = loop.session_of(loop.buy(user.user_id))
    loop.offline.pay(session_id)
    loop.deliver(loop.webhooks())
    if name == "refund":
        loop.refund_at_stripe(session_id, 200)
    else:
        loop.offline.open_dispute(loop.charge_of(session_id), amount=200)
    event_type = "refund.created" if name == "refund" else "charge.dispute.created"
    obj = dict(next(iter(loop.offline.account.all(name))))
    del obj["payment_intent"]
    assert loop.deliver([delivery(obj, event_type)]) == [EventAnswer.PROCESSED]
    assert booked_balance(db, user.user_id) == 300
