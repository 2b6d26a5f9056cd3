"""A purchase that application code wrote ends as one that a webhook credited (rules 5 and 10)."""

import uuid
from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session

from src.common.credits import ledger
from src.common.credits.operations import execute
from src.common.models.transaction import Transaction
from src.common.models.user import User
from src.common.purchases.packages import PACKAGES
from src.common.purchases.rules import Payment
from src.common.stripe.lookup import Facts
from tests.credits.books import InSession, check_books, grant, make_user, spend
from tests.purchases.lives import dispute, payment_of, refund, settle, state_of

STARTER, BASIC = PACKAGES[:2]
LAST = 200
"""The priority of a gift that is spent after everything bought."""
Beginning = Callable[[Session, uuid.UUID, str], None]
"""Brings a user so far; the payments' names begin with the tag."""
Road = Callable[[Session, User, Payment], None]


def took_from_a_gift(session: Session, user_id: uuid.UUID, tag: str) -> None:
    """What was bought is spent and refunded, so that a gift gave, which is spent last."""
    execute(session, [grant(user_id, 600, priority=LAST)])
    settle(session, Facts(payments=(payment_of(user_id, f"{tag}y", BASIC),)))
    execute(session, [spend(user_id, 900)])
    settle(session, Facts(reversals=(refund(f"{tag}y", "succeeded", 450),)))


def owes(session: Session, user_id: uuid.UUID, tag: str) -> None:
    """A gift gave all it had, and it was not enough."""
    execute(session, [grant(user_id, 100, priority=LAST, reference=tag)])
    settle(session, Facts(payments=(payment_of(user_id, f"{tag}y", BASIC),)))
    execute(session, [spend(user_id, 1000)])
    settle(session, Facts(reversals=(dispute(f"{tag}y", "withdrawn", 300),)))


def refunded_before(session: Session, user_id: uuid.UUID, tag: str) -> None:
    """The refund of the purchase to come was told first."""
    execute(session, [grant(user_id, 100)])
    settle(session, Facts(reversals=(refund(f"{tag}x", "succeeded", 200),)))


def nothing_went_back(session: Session, user_id: uuid.UUID, tag: str) -> None:
    """As most users are."""
    execute(session, [grant(user_id, 100, priority=LAST, reference=tag)])


def _row(payment: Payment) -> Transaction:
    return Transaction(
        stripe_session_id=payment.stripe_session_id,
        payment_intent_id=payment.payment_intent_id,
        amount_paid_cents=payment.amount_total_cents,
        credits_added=STARTER.credits,
    )


def by_webhook(session: Session, user: User, payment: Payment) -> None:
    """Stripe tells, and we write."""
    assert user.user_id == payment.user_id
    settle(session, Facts(payments=(payment,)))
    ledger.spend(session, user.user_id, 50, key="after")


def by_the_document(session: Session, user: User, payment: Payment) -> None:
    """The document's own pattern, then another database transaction."""
    row = _row(payment)
    row.user_id = user.user_id
    user.credits_balance += row.credits_added
    session.add(row)
    session.commit()
    ledger.spend(session, user.user_id, 50, key="after")


def with_a_spend(session: Session, user: User, payment: Payment) -> None:
    """The document's own pattern, and credits spent in the same database transaction."""
    row = _row(payment)
    row.user_id = user.user_id
    session.add(row)
    user.credits_balance += row.credits_added
    session.flush()
    ledger.spend(session, user.user_id, 50, key="after")
    session.commit()


def end_by(session: Session, beginning: Beginning, road: Road) -> str:
    """Where a beginning comes to by this road; what is named after it is not told apart."""
    tag = road.__name__
    user = make_user(session)
    user_id = user.user_id
    beginning(session, user_id, tag)
    session.commit()
    session.refresh(user)
    road(session, user, payment_of(user_id, f"{tag}x", STARTER))
    session.commit()
    check_books(session)
    return repr(state_of(session, user_id)).replace(tag, "")


@pytest.mark.parametrize("beginning", [took_from_a_gift, owes, refunded_before, nothing_went_back])
@pytest.mark.parametrize("road", [by_the_document, with_a_spend])
async def test_a_purchase_of_application_code_ends_as_a_webhooks(
    in_session: InSession, beginning: Beginning, road: Road
) -> None:
    """The same balance, lots, debts, sums: whatever money back had taken is decided anew."""

    def work(session: Session) -> None:
        expected = end_by(session, beginning, by_webhook)
        assert end_by(session, beginning, road) == expected

    await in_session(work)
