"""The pictures of states on `docs/reference/states.md` show the states that there are."""

import re
from pathlib import Path

import pytest

from src.common.models.checkout_order import OrderStatus
from src.common.models.credit_hold import HoldStatus
from src.common.models.stripe_event import STRIPE_EVENT_STATUSES
from src.common.models.stripe_reversal import STATUSES_BY_KIND, ReversalKind

PAGE = (Path(__file__).parents[2] / "docs/reference/states.md").read_text()
PICTURES = dict(re.findall(r"^## (.+?)\n.*?^```mermaid\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
STATES = {
    "Hold": {str(each) for each in HoldStatus},
    "Order": {str(each) for each in OrderStatus},
    "Event": set(STRIPE_EVENT_STATUSES),
    "Refund": set(STATUSES_BY_KIND[ReversalKind.REFUND]),
    "Dispute": set(STATUSES_BY_KIND[ReversalKind.DISPUTE]),
    "Credit note": set(STATUSES_BY_KIND[ReversalKind.CREDIT_NOTE]),
}


def test_every_kind_has_its_picture() -> None:
    """Each that is listed here, and no other."""
    assert PICTURES.keys() == STATES.keys()


@pytest.mark.parametrize("kind", STATES)
def test_a_picture_has_all_states_and_no_other(kind: str) -> None:
    """Each is reached by an arrow."""
    reached = re.findall(r"--> (\w+)", PICTURES[kind])
    assert set(reached) == STATES[kind]


def test_arrows_of_an_order_lead_on() -> None:
    """As the rule says: down the list of its states, never up."""
    rank = {str(each): number for number, each in enumerate(OrderStatus)}
    arrows = re.findall(r"(\w+) --> (\w+)", PICTURES["Order"])
    assert arrows
    assert all(rank[before] < rank[after] for before, after in arrows)
