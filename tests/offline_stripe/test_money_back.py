"""Refunds and disputes: never more back than was paid, and the books add up."""

from typing import Any

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st

from src.offline_stripe import InProcessClient, OfflineStripe, StripeError
from tests.offline_stripe.shop import Clock, Shop

ENDS = ("succeeded", "failed", "canceled")


@given(
    paid=st.integers(50, 1_000),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("refund"), st.integers(1, 1_000)),
            st.tuples(st.sampled_from(ENDS), st.integers(0, 5)),
        ),
        max_size=12,
    ),
)
def test_refunds_add_up(paid: int, steps: list[tuple[str, int]]) -> None:
    """After any refunds and what became of them: the charge says the sum, the books agree."""
    offline = OfflineStripe(clock=Clock())
    client = stripe.StripeClient("sk_test_1", http_client=InProcessClient(offline))
    shop = Shop(offline, client)
    charge = shop.sold(paid, "pendingRefund")
    for action, number in steps:
        refunds = list(offline.account.all("refund"))
        before = charge["amount_refunded"]
        if action == "refund":
            fits = number <= paid - before
            try:
                client.v1.refunds.create({"charge": charge["id"], "amount": number})
            except stripe.InvalidRequestError:
                assert not fits
            else:
                assert fits
        elif number < len(refunds):
            ended = refunds[number]["status"] in {"failed", "canceled", action}
            try:
                offline.settle_refund(refunds[number]["id"], action)
            except StripeError:
                assert ended
            else:
                assert not ended
    counting = [
        each["amount"]
        for each in offline.account.all("refund")
        if each["status"] in {"pending", "succeeded"}
    ]
    assert charge["amount_refunded"] == sum(counting) <= paid
    assert charge["refunded"] is (sum(counting) == paid)
    assert shop.balance() == paid - sum(counting)


def test_refund_events(shop: Shop) -> None:
    """Created and refunded first; then updated, and failed."""
    charge = shop.sold(method="pendingRefund")
    shop.deliver()
    refund = shop.client.v1.refunds.create({"charge": charge["id"], "amount": 200})
    assert (refund.status, refund.pending_reason) == ("pending", "processing")
    assert shop.event_types() == ["refund.created", "charge.refunded"]
    shop.offline.settle_refund(refund.id, "succeeded")
    assert shop.event_types() == ["refund.updated", "charge.refund.updated"]
    shop.offline.settle_refund(refund.id, "failed")
    assert shop.event_types() == ["refund.updated", "charge.refund.updated", "refund.failed"]


def test_a_refund_that_fails(shop: Shop) -> None:
    """Stripe's card whose refunds fail: the charge is as if nothing was refunded."""
    charge = shop.sold(method="refundFail")
    refund = shop.client.v1.refunds.create({"charge": charge["id"]})
    assert shop.client.v1.refunds.retrieve(refund.id).status == "failed"
    assert (charge["amount_refunded"], charge["refunded"], shop.balance()) == (0, False, 500)


def test_refusals(shop: Shop) -> None:
    """All refunded, more than is left, charged back, nothing paid, nothing named."""
    refunds = shop.client.v1.refunds
    charge = shop.sold()
    with pytest.raises(stripe.InvalidRequestError, match=r"\$5.01.*\$5.00") as refused:
        refunds.create({"charge": charge["id"], "amount": 501})
    assert refused.value.param == "amount"
    refunds.create({"charge": charge["id"]})
    with pytest.raises(stripe.InvalidRequestError) as refused:
        refunds.create({"charge": charge["id"]})
    assert refused.value.code == "charge_already_refunded"
    disputed = shop.sold(method="createDispute")
    with pytest.raises(stripe.InvalidRequestError) as refused:
        refunds.create({"charge": disputed["id"]})
    assert refused.value.code == "charge_disputed"
    unpaid = shop.client.v1.payment_intents.create({"amount": 50, "currency": "usd"})
    with pytest.raises(stripe.InvalidRequestError, match="successful charge"):
        refunds.create({"payment_intent": unpaid.id})
    with pytest.raises(stripe.InvalidRequestError, match="payment_intent or charge"):
        refunds.create({})


def test_an_inquiry_becomes_a_dispute_and_is_won(shop: Shop) -> None:
    """Money leaves when the inquiry escalates and comes back when the dispute is won."""
    charge = shop.sold(method="createDisputeInquiry")
    assert shop.event_types()[-2:] == ["charge.dispute.created", "checkout.session.completed"]
    dispute = next(shop.offline.account.all("dispute"))
    assert (dispute["status"], shop.balance()) == ("warning_needs_response", 500)
    assert charge["disputed"] is True
    shop.offline.decide_dispute(dispute["id"], "escalate")
    assert (dispute["status"], shop.balance()) == ("needs_response", 0)
    assert shop.event_types() == ["charge.dispute.updated", "charge.dispute.funds_withdrawn"]
    evidence = {"evidence": {"uncategorized_text": "winning_evidence"}}
    shop.client.v1.disputes.update(dispute["id"], evidence)  # type: ignore[arg-type]
    assert (dispute["status"], shop.balance()) == ("won", 500)
    assert shop.event_types() == [
        "charge.dispute.updated",
        "charge.dispute.closed",
        "charge.dispute.funds_reinstated",
    ]


def test_a_dispute_is_lost(shop: Shop) -> None:
    """By the bank or by giving up: the money stays away, unless it is reinstated later."""
    for gives_up in (False, True):
        before = shop.balance()
        dispute = shop.offline.open_dispute(shop.sold()["id"], amount=200)
        shop.deliver()
        if gives_up:
            shop.client.v1.disputes.close(dispute["id"])
        else:
            shop.offline.decide_dispute(dispute["id"], "lose")
        assert dispute["status"] == "lost"
        assert shop.event_types() == ["charge.dispute.closed"]
        with pytest.raises(StripeError):
            shop.offline.decide_dispute(dispute["id"], "win")
        assert shop.balance() == before + 300
        shop.offline.decide_dispute(dispute["id"], "reinstate")
        assert shop.balance() == before + 500
        assert shop.event_types() == ["charge.dispute.funds_reinstated"]
        with pytest.raises(StripeError):
            shop.offline.decide_dispute(dispute["id"], "reinstate")


def test_an_inquiry_is_closed_without_money_moving(shop: Shop) -> None:
    """And the charge may still be refunded while it is open."""
    charge = shop.sold()
    dispute = shop.offline.open_dispute(charge["id"], inquiry=True)
    shop.client.v1.refunds.create({"charge": charge["id"], "amount": 100})
    shop.client.v1.disputes.close(dispute["id"])
    assert (dispute["status"], shop.balance()) == ("warning_closed", 400)


@pytest.mark.parametrize(
    ("amount", "currency", "written"),
    [
        (123_456, "usd", "$1,234.56"),
        (500, "jpy", "¥500"),
        (50, "chf", "0.50 chf"),
        (5_120, "kwd", "5.120 kwd"),
    ],
)
def test_a_refusal_writes_amounts_in_their_currency(
    shop: Shop, amount: int, currency: str, written: str
) -> None:
    """With as many decimals as it has."""
    asked: Any = {"amount": amount, "currency": currency, "payment_method": "pm_card_visa"}
    intents: Any = shop.client.v1.payment_intents
    paid = intents.create({**asked, "confirm": True})
    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.client.v1.refunds.create({"payment_intent": paid.id, "amount": amount + 1})
    assert f"unrefunded amount on charge ({written})" in str(refused.value)
