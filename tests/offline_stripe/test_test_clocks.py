"""A test clock that is moved on makes due what would be due by then."""

import pytest
import stripe

from tests.offline_stripe.shop import START, Shop

HOUR = 3_600


def test_time_passes_for_sessions_and_invoices_of_its_customer(shop: Shop) -> None:
    """A session expires, an invoice is finalized and paid; the clock says when it is ready."""
    v1 = shop.client.v1
    clock = v1.test_helpers.test_clocks.create({"frozen_time": START, "name": "A day"})
    customer = v1.customers.create({"test_clock": clock.id, "payment_method": "pm_card_visa"}).id
    session = shop.offer(customer=customer)
    v1.invoice_items.create({"customer": customer, "amount": 900})
    invoice = v1.invoices.create(
        {
            "customer": customer,
            "pending_invoice_items_behavior": "include",
            "auto_advance": True,
        }
    )
    assert invoice.test_clock == clock.id
    shop.deliver()
    advanced = v1.test_helpers.test_clocks.advance(clock.id, {"frozen_time": START + 24 * HOUR})
    assert advanced.status == "advancing"
    ready = v1.test_helpers.test_clocks.retrieve(clock.id)
    assert (ready.status, ready.frozen_time) == ("ready", START + 24 * HOUR)
    assert v1.checkout.sessions.retrieve(session.id).status == "expired"
    assert v1.invoices.retrieve(invoice.id).status == "paid"
    events = shop.event_types()
    assert events[0] == "test_helpers.test_clock.advancing"
    assert events[-1] == "test_helpers.test_clock.ready"
    assert {"checkout.session.expired", "invoice.paid"} <= set(events)


def test_a_clock_goes_forward_only(shop: Shop) -> None:
    """And takes its customers along when it is deleted."""
    clocks = shop.client.v1.test_helpers.test_clocks
    clock = clocks.create({"frozen_time": START})
    customer = shop.client.v1.customers.create({"test_clock": clock.id})
    with pytest.raises(stripe.InvalidRequestError) as refused:
        clocks.advance(clock.id, {"frozen_time": START})
    assert refused.value.param == "frozen_time"
    clocks.delete(clock.id)
    assert shop.client.v1.customers.retrieve(customer.id).deleted is True
    with pytest.raises(stripe.InvalidRequestError, match="No such test_clock"):
        clocks.retrieve(clock.id)
    with pytest.raises(stripe.InvalidRequestError, match="No such test_clock"):
        shop.client.v1.customers.create({"test_clock": clock.id})
