"""The stages that walk Stripe's lists: how a page is listed, and what one of its objects says."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from src.common.stripe.gateway import Gateway
from src.common.stripe.listed import Listed, Window
from src.common.stripe.lookup import Facts, Lookup
from src.common.stripe.wire import PaymentIntent
from src.common.stripe.wire_money_back import Refund

LISTED = ("sessions", "payments", "refunds", "disputes", "credit_notes")
"""In the order in which they are walked."""

ReadFacts = Callable[[Any], Awaitable[Facts]]
"""What one of Stripe's objects says."""


async def list_page(
    gateway: Gateway, stage: str, window: Window, cursor: str | None
) -> Sequence[Listed[Any]]:
    """The page of a stage that follows the object of this id; the first where it is None."""
    match stage:
        case "sessions":
            return await gateway.sessions(window, cursor)
        case "payments":
            return await gateway.payments(window, cursor)
        case "refunds":
            return await gateway.refunds(window, cursor)
        case "disputes":
            return await gateway.disputes(window, cursor)
        case _:
            return await gateway.credit_notes(window, cursor)


def reader_of(stage: str, lookup: Lookup, *, livemode: bool) -> ReadFacts:
    """What reads the objects of a stage."""

    async def payment(found: PaymentIntent) -> Facts:
        return await lookup.payment_facts(found) if found.has_succeeded else Facts()

    async def refund(found: Refund) -> Facts:
        return await lookup.refund_facts(found, livemode=livemode)

    readers: dict[str, ReadFacts] = {
        "sessions": lookup.session_facts,
        "payments": payment,
        "refunds": refund,
        "disputes": lookup.dispute_facts,
        "credit_notes": lookup.credit_note_facts,
    }
    return readers[stage]
