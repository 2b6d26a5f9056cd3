"""What may still change: orders nobody has paid yet, refunds and disputes that are not over.

Each is the newest so many of a partial index; there are few at a time.
"""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.models.checkout_order import CheckoutOrder
from src.common.models.stripe_reversal import StripeReversal

UNFINISHED_ORDERS = ("created", "open", "processing")
"""As the index of them says."""
UNFINISHED_REVERSALS = ("pending", "inquiry", "withdrawn", "reinstated")


def unfinished_orders(session: Session, limit: int) -> Sequence[CheckoutOrder]:
    """Orders that may still be paid, the newest first."""
    return session.scalars(
        select(CheckoutOrder)
        .where(CheckoutOrder.status.in_(UNFINISHED_ORDERS))
        .order_by(CheckoutOrder.created_at.desc())
        .limit(limit)
    ).all()


def unfinished_reversals(session: Session, limit: int) -> Sequence[StripeReversal]:
    """Refunds and disputes that may still change, the newest first."""
    return session.scalars(
        select(StripeReversal)
        .where(StripeReversal.status.in_(UNFINISHED_REVERSALS))
        .order_by(StripeReversal.created_at.desc())
        .limit(limit)
    ).all()
