"""Lists are newest first, complete through their cursors, and filtered as asked."""

from typing import Any

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st

from src.offline_stripe import InProcessClient, OfflineStripe
from tests.offline_stripe.shop import START, Clock, Shop


def customers(gaps: list[int]) -> tuple[OfflineStripe, stripe.StripeClient, list[str]]:
    """A shop with one customer after each gap of so many seconds; their ids, newest first."""
    clock = Clock()
    offline = OfflineStripe(clock=clock)
    client = stripe.StripeClient("sk_test_1", http_client=InProcessClient(offline))
    ids: list[str] = []
    for gap in gaps:
        clock.now += gap
        ids.append(client.v1.customers.create({}).id)
    return offline, client, ids[::-1]


@given(gaps=st.lists(st.integers(0, 3), max_size=12), limit=st.integers(1, 5))
def test_pages_hold_everything_once(gaps: list[int], limit: int) -> None:
    """Forwards and backwards, whatever the size of a page and however many share a second."""
    _, client, ids = customers(gaps)
    pages = client.v1.customers.list({"limit": limit})
    assert [each.id for each in pages.auto_paging_iter()] == ids
    if ids:
        backwards = client.v1.customers.list({"limit": limit, "ending_before": ids[-1]})
        assert [each.id for each in backwards.auto_paging_iter()] == ids[:-1][::-1]


@given(gaps=st.lists(st.integers(0, 3), max_size=12), low=st.integers(0, 9), high=st.integers(0, 9))
def test_created_filters(gaps: list[int], low: int, high: int) -> None:
    """`gte` and `lt` together are a half-open window."""
    offline, client, ids = customers(gaps)
    window: Any = {"gte": START + low, "lt": START + high}
    listed = client.v1.customers.list({"created": window, "limit": 100})
    assert [each.id for each in listed.data] == [
        name for name in ids if START + low <= offline.get(name)["created"] < START + high
    ]


async def test_the_async_library_pages_too(shop: Shop) -> None:
    """Same cursors."""
    ids = [(await shop.client.v1.customers.create_async({})).id for _ in range(5)]
    listed = await shop.client.v1.customers.list_async({"limit": 2})
    assert [each.id async for each in listed.auto_paging_iter()] == ids[::-1]


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": 101}, {"starting_after": "cus_x"}])
def test_a_wrong_page_is_refused(shop: Shop, wrong: dict[str, object]) -> None:
    """Outside 1 to 100, or after what is not there."""
    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.client.v1.customers.list(wrong)  # type: ignore[arg-type]  # that is what is tested
    assert refused.value.param == next(iter(wrong))


def test_filters_by_relation(shop: Shop) -> None:
    """What reconciliation asks: the session, charges, refunds, disputes of one payment."""
    other, session = shop.sell(), shop.sell()
    intent = session["payment_intent"]
    charge = shop.charge_of(session)
    shop.offline.open_dispute(charge["id"], inquiry=True)
    shop.client.v1.refunds.create({"payment_intent": intent, "amount": 1})
    shop.client.v1.refunds.create({"payment_intent": other["payment_intent"]})
    v1 = shop.client.v1
    found = v1.checkout.sessions.list({"payment_intent": intent}).data
    assert [each.id for each in found] == [session["id"]]
    for listed in (
        v1.charges.list({"payment_intent": intent}),
        v1.refunds.list({"payment_intent": intent}),
        v1.refunds.list({"charge": charge["id"]}),
        v1.disputes.list({"charge": charge["id"]}),
        v1.disputes.list({"payment_intent": intent}),
    ):
        assert len(listed.data) == 1


def test_a_filter_is_not_ignored(shop: Shop) -> None:
    """Where no object has what it asks for, none is listed."""
    shop.sold()
    v1 = shop.client.v1
    assert len(v1.charges.list().data) == 1
    assert v1.charges.list({"transfer_group": "none"}).data == []
    assert v1.balance_transactions.list({"payout": "po_1"}).data == []


def test_events_are_listed_by_type_and_for_thirty_days(shop: Shop, clock: Clock) -> None:
    """One type, several, all of a family; and not for ever."""
    charge = shop.sold()
    clock.now += 86_400
    shop.client.v1.refunds.create({"charge": charge["id"]})

    def listed(parameters: object) -> list[str]:
        found = shop.client.v1.events.list(parameters)  # type: ignore[arg-type]
        return [event.type for event in found.auto_paging_iter()]

    assert listed({"type": "charge.refunded"}) == ["charge.refunded"]
    assert listed({"type": "charge.*"}) == ["charge.refunded", "charge.succeeded"]
    assert listed({"types": ["refund.created", "charge.succeeded"]}) == [
        "refund.created",
        "charge.succeeded",
    ]
    clock.now += 29 * 86_400 + 1
    assert listed({}) == ["balance.available", "charge.refunded", "refund.created"]
