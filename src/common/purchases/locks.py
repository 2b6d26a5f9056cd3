"""The lock of one payment, taken before the payment has a row of ours."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session


def lock_payment(session: Session, stripe_object_id: str) -> None:
    """Queue with everybody who handles this payment, until the database transaction ends.

    A payment and its refund may arrive at the same moment, each before the other is committed: one
    of them must see the other. Taken before any user's row lock, always. It belongs to the database
    transaction, so that any pooler will do.
    """
    session.execute(
        select(func.pg_advisory_xact_lock(func.hashtextextended(f"payment:{stripe_object_id}", 0)))
    )
