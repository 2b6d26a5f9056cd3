"""Search finds what its words say, and refuses words that Stripe does not know."""

from typing import Any

import pytest
import stripe

from tests.offline_stripe.shop import START, Shop


@pytest.fixture
def searched(shop: Shop) -> Shop:
    """A shop with payments of 500, 600 and 700; the first is declined, the last has an order."""
    intents = shop.client.v1.payment_intents
    for amount in (500, 600, 700):
        metadata = {"order": "o'7"} if amount == 700 else {"note": "none"}
        made = intents.create({"amount": amount, "currency": "usd", "metadata": metadata})
        if amount > 500:
            intents.confirm(made.id, {"payment_method": "pm_card_visa"})
    return shop


@pytest.mark.parametrize(
    ("query", "amounts"),
    [
        ("status:'succeeded'", [700, 600]),
        ('status:"succeeded" AND amount>600', [700]),
        ("status:'succeeded' amount<=600", [600]),
        ("amount:500 OR amount:700", [700, 500]),
        ("-status:'succeeded'", [500]),
        (r"metadata['order']:'o\'7'", [700]),
        ("metadata['order']:null", [600, 500]),
        ("metadata['note']~'ON'", [600, 500]),
        ("customer:null and created>=1", [700, 600, 500]),
        (f"created<{START}", []),
    ],
)
def test_what_is_found(searched: Shop, query: str, amounts: list[int]) -> None:
    """Newest first."""
    found = searched.client.v1.payment_intents.search({"query": query})
    assert [each.amount for each in found.data] == amounts


@pytest.mark.parametrize(
    "query",
    [
        "succeeded",
        "status:",
        "description:'x'",
        "metadata:'x'",
        "status['x']:'y'",
        "amount>'many'",
        "amount>" + "9" * 5_000,
        "status:'a' AND amount:1 OR amount:2",
        "status:'a",
        " AND ".join(["amount:1"] * 11),
    ],
)
def test_what_cannot_be_searched_is_refused(shop: Shop, query: str) -> None:
    """With the parameter's name."""
    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.client.v1.payment_intents.search({"query": query})
    assert refused.value.param == "query"


def test_pages_of_a_search_hold_everything_once(shop: Shop) -> None:
    """Until there is no next page; what is deleted is not found."""
    customers = shop.client.v1.customers
    made = [customers.create({"name": "Ada Lovelace"}).id for _ in range(5)]
    customers.delete(made.pop())
    parameters: Any = {"query": "name~'lovelace'", "limit": 2}
    found = customers.search(parameters)
    assert [each.id for each in found.auto_paging_iter()] == made[::-1]


@pytest.mark.parametrize("page", ["next", "-1", "9" * 5_000])
def test_a_page_that_no_search_named_is_refused(shop: Shop, page: str) -> None:
    """Also one longer than any number."""
    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.client.v1.charges.search({"query": "amount:1", "page": page})
    assert refused.value.param == "page"
