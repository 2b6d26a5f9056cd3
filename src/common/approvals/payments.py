"""Payments that one person credits by hand: not with more than the money buys and one may give.

It cannot be asked for: the payment is settled with it, for good. So it is refused above the limit,
and the rest is given with another person's consent (rule 13).
"""

from sqlalchemy.orm import Session

from src.common.approvals import moved
from src.common.approvals.rules import Limits
from src.common.exceptions import Invalid
from src.common.models.transaction import Transaction
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.purchases import resolutions
from src.common.purchases.resolutions import Ruling


def resolve(
    session: Session,
    stripe_object_id: str,
    *,
    resolution: str,
    actor: str,
    ruling: Ruling | None = None,
    limits: Limits | None,
) -> tuple[UnmatchedPayment, Transaction | None]:
    """Close an unmatched payment, or credit it, as `resolutions.resolve`.

    What it credits beyond the price counts together with what the actor gave that user within the
    window.

    Args:
        session: In a database transaction of the caller's, to be undone where this is refused.
        stripe_object_id: The payment.
        resolution: What was done about it.
        actor: Who.
        ruling: To credit it: to whom, with how much, where the payment does not say it.
        limits: Above what nobody credits alone; None where everybody may.

    Raises:
        ExceptionWithErrorType: as `resolutions.resolve`.
        Invalid: CONSENT_NEEDED, it is more than one person may give.
    """
    row, purchase = resolutions.resolve(
        session, stripe_object_id, resolution=resolution, actor=actor, ruling=ruling
    )
    if purchase is None or limits is None:
        return row, purchase
    by_hand = moved.credits_of_payments(session, purchase.user_id, actor, limits)
    if by_hand == 0:
        return row, purchase
    by_hand += moved.credits_moved(session, purchase.user_id, actor, gives=True)
    excess = by_hand - limits.credits_above
    if excess > 0:
        alone = max(purchase.credits_added - excess, 0)
        raise Invalid(
            f"credits: beyond what the money buys, {by_hand:,} credits would be given by you alone "
            f"within a day. Name {alone:,} or less here, and give the rest with another person's "
            "consent",
            "CONSENT_NEEDED",
            field="credits",
        )
    return row, purchase
