"""Finds purchases that application code wrote without crediting anybody.

No event has to tell of them: a row of `transactions` that no lot refers to is one (decision 0032).
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from src.common.models.credit_lot import CreditLot
from src.common.models.transaction import Transaction
from src.common.models.unmatched_payment import BY_HAND, PAYMENT_INTENT_ID, UnmatchedPayment
from src.common.purchases.whose import sees_users


def oldest_unlisted(session: Session, limit: int) -> Sequence[Transaction]:
    """Those of which no open row of `unmatched_payments` tells, oldest first."""
    found = _uncredited()
    return session.scalars(
        select(found).where(_is_unlisted(found)).order_by(found.created_at).limit(limit)
    ).all()


def count_unlisted(session: Session) -> int:
    """How many there are."""
    found = _uncredited()
    return session.scalars(
        select(func.count(found.transaction_id)).where(_is_unlisted(found))
    ).one()


def find_unlisted(session: Session, stripe_session_id: str) -> Transaction | None:
    """The one of this name."""
    if not sees_users(session):
        return None
    found = _uncredited(Transaction.stripe_session_id == stripe_session_id)
    return session.scalars(select(found).where(_is_unlisted(found))).one_or_none()


def uncredited_among(session: Session, stripe_session_ids: Sequence[str]) -> frozenset[str]:
    """Which of these purchases credited nobody, and wait for somebody."""
    if not sees_users(session):
        return frozenset()
    found = _uncredited(Transaction.stripe_session_id.in_(stripe_session_ids))
    names = select(found.stripe_session_id).where(~_is_told_of(found, BY_HAND))
    return frozenset(session.scalars(names))


def _uncredited(*which: ColumnElement[bool]) -> type[Transaction]:
    """All of them, found first: only these few are looked for among the unmatched payments."""
    has_lot = exists().where(
        CreditLot.user_id == Transaction.user_id,
        CreditLot.transaction_id == Transaction.transaction_id,
    )
    rows = select(Transaction).where(Transaction.predates_ledger.is_(False), ~has_lot, *which)
    return aliased(Transaction, rows.cte("uncredited").prefix_with("MATERIALIZED"))


def _is_unlisted(purchase: type[Transaction]) -> ColumnElement[bool]:
    return ~_is_told_of(purchase, or_(UnmatchedPayment.status == "open", BY_HAND))


def _is_told_of(purchase: type[Transaction], how: ColumnElement[bool]) -> ColumnElement[bool]:
    payments = (purchase.stripe_session_id, purchase.payment_intent_id)
    names = (*payments, purchase.invoice_id)
    return exists().where(
        or_(
            # Both modes, so that the primary key serves.
            and_(
                UnmatchedPayment.livemode.in_((False, True)),
                UnmatchedPayment.stripe_object_id.in_(names),
            ),
            PAYMENT_INTENT_ID.in_(payments),
        ),
        how,
    )
