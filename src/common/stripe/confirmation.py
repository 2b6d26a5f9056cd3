"""For the page a customer returns to after paying: has the Checkout Session been credited?

The customer may be back before Stripe's event is. So Stripe is asked, and what it says of the
session is settled by the function that settles events. Whichever comes first credits the user; the
other finds it done.
"""

import uuid
from enum import StrEnum

from sqlalchemy.orm import Session

from src.common.exceptions import NotFound
from src.common.models.checkout_order import OrderStatus
from src.common.purchases.operations import is_session_credited
from src.common.purchases.orders import find_order, find_order_of_session
from src.common.purchases.rules import Payment
from src.common.stripe.gateway import configured
from src.common.stripe.inbox import EventAnswer
from src.common.stripe.processing import Processor


class CheckoutStatus(StrEnum):
    """What became of a Checkout Session."""

    CREDITED = "credited"
    PENDING = "pending"
    """Not paid yet: the page is open, or a delayed payment is on its way."""
    UNMATCHED = "unmatched"
    """Paid, but nobody was credited; a row in `unmatched_payments` says why."""
    EXPIRED = "expired"
    FAILED = "failed"
    """The delayed payment failed; nothing was paid."""


async def confirm_checkout(
    processor: Processor, user_id: uuid.UUID, session_id: str
) -> CheckoutStatus:
    """What became of a user's Checkout Session; credits it if it is paid and that is not done yet.

    Stripe is not asked about a session that is credited already.

    Args:
        processor: What settles events; it has the way to Stripe and into the database.
        user_id: Whose session.
        session_id: `cs_…`, as Stripe puts it into the success page's address.

    Raises:
        NotFound: CHECKOUT_SESSION_NOT_FOUND, there is none, or it is another user's.
        StripeGatewayError: STRIPE_GATEWAY_ERROR; the webhook will settle it all the same.
        Unavailable: STRIPE_NOT_CONFIGURED.
    """
    in_database = processor.in_database
    if await in_database(lambda session: _is_done(session, user_id, session_id)):
        return CheckoutStatus.CREDITED
    found = await configured(processor.gateway).retrieve_session(session_id)
    if found is None:
        raise _not_found()
    payment = found.as_payment()
    has_failed = await in_database(lambda session: _has_failed(session, user_id, payment))
    if found.status == "complete" and found.payment_status == "unpaid":
        return CheckoutStatus.FAILED if has_failed else CheckoutStatus.PENDING
    facts = await processor.lookup.session_facts(found)
    answer = await processor.apply(facts, cause=f"confirm:{session_id}")
    if facts.ended:
        return CheckoutStatus.EXPIRED
    if not facts.payments:
        return CheckoutStatus.PENDING
    if answer is EventAnswer.UNMATCHED:
        return CheckoutStatus.UNMATCHED
    return CheckoutStatus.CREDITED


def _is_done(session: Session, user_id: uuid.UUID, session_id: str) -> bool:
    order = find_order_of_session(session, session_id)
    if order is not None and order.user_id != user_id:
        raise _not_found()
    return is_session_credited(session, user_id, session_id)


def _has_failed(session: Session, user_id: uuid.UUID, payment: Payment) -> bool:
    """Whether its delayed payment has failed, of a session that is this user's."""
    order = find_order(session, payment)
    if user_id != (order.user_id if order else payment.user_id):
        raise _not_found()
    return order is not None and order.status == OrderStatus.FAILED


def _not_found() -> NotFound:
    return NotFound("You have no such Checkout Session", "CHECKOUT_SESSION_NOT_FOUND")
