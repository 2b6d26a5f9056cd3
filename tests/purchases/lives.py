"""The life of a payment, event by event, settled in a session as the inbox would."""

import uuid
from dataclasses import replace
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from src.common.credits.reversals import TAKING_KINDS
from src.common.models.credit_entry import CreditEntry, CreditPosting
from src.common.models.credit_hold import CreditDebt
from src.common.models.credit_lot import CreditLot
from src.common.models.stripe_reversal import ReversalKind, StripeReversal
from src.common.models.transaction import Transaction
from src.common.models.user import User
from src.common.purchases.packages import PACKAGES, Package
from src.common.purchases.reversals import Reversal
from src.common.purchases.rules import Payment, Terms
from src.common.stripe import inbox
from src.common.stripe.lookup import Facts
from src.common.stripe.wire import CheckoutSession
from tests.stripe.payments import make_session

TERMS = Terms(env="local", livemode=False, packages=PACKAGES)
State = tuple[Any, ...]


def payment_of(user_id: uuid.UUID, name: str, package: Package) -> Payment:
    """A paid session of this user, its ids made from `name`."""
    session = make_session(user_id, package, id=f"cs_{name}", payment_intent=f"pi_{name}")
    return CheckoutSession.model_validate(session).as_payment()


def refund(name: str, status: str, cents: int, number: int = 1) -> Reversal:
    """A snapshot of a refund of the payment `name`."""
    return Reversal(
        livemode=False,
        reversal_id=f"re_{name}_{number}",
        kind=ReversalKind.REFUND,
        status=status,
        amount_cents=cents,
        currency="usd",
        payment_intent_id=f"pi_{name}",
    )


def dispute(name: str, status: str, cents: int) -> Reversal:
    """A snapshot of a dispute of the payment `name`."""
    return replace(refund(name, status, cents), reversal_id=f"dp_{name}", kind=ReversalKind.DISPUTE)


def life_of(payment: Payment, name: str) -> dict[str, Facts]:
    """Paid twice, refunded in part and once more, disputed and won, the first refund failed."""
    return {
        "paid": Facts(payments=(payment,)),
        "paid again": Facts(payments=(payment,)),
        "refunded": Facts(reversals=(refund(name, "succeeded", 200, 1),)),
        "refunded more": Facts(reversals=(refund(name, "pending", 150, 2),)),
        "disputed": Facts(reversals=(dispute(name, "withdrawn", 400),)),
        "reinstated": Facts(reversals=(dispute(name, "reinstated", 400),)),
        "refund failed": Facts(reversals=(refund(name, "failed", 200, 1),)),
    }


def settle(session: Session, facts: Facts, cause: str = "evt") -> None:
    """What the inbox does with an event's facts."""
    inbox.apply(session, facts, TERMS, cause=cause)


def state_of(session: Session, user_id: uuid.UUID) -> State:
    """What rule 5 promises to be the same in any order, lots and debts named by their payment."""
    session.expire_all()
    of_user = Transaction.user_id == user_id
    name_of = (
        select(Transaction.stripe_session_id)
        .where(Transaction.transaction_id == CreditLot.transaction_id)
        .scalar_subquery()
    )
    statements: list[Any] = [
        select(User.credits_balance).where(User.user_id == user_id),
        (
            select(CreditLot.source, name_of, CreditLot.granted, CreditLot.remaining).where(
                CreditLot.user_id == user_id
            )
        ),
        (
            # What clawbacks and repayments took and gave back: what money back may still reach.
            select(CreditLot.source, name_of, func.sum(CreditPosting.amount))
            .join(
                CreditPosting,
                (CreditPosting.user_id == CreditLot.user_id)
                & (CreditPosting.lot_seq == CreditLot.seq),
            )
            .join(
                CreditEntry,
                (CreditEntry.user_id == CreditPosting.user_id)
                & (CreditEntry.seq == CreditPosting.seq),
            )
            .where(CreditLot.user_id == user_id, CreditEntry.kind.in_(TAKING_KINDS))
            .group_by(CreditLot.seq, CreditLot.source, CreditLot.transaction_id)
            .having(func.sum(CreditPosting.amount) != 0)
        ),
        (
            select(name_of, CreditDebt.outstanding)
            .join(
                CreditLot,
                (CreditLot.user_id == CreditDebt.user_id) & (CreditLot.seq == CreditDebt.seq),
            )
            .where(CreditDebt.user_id == user_id, CreditDebt.outstanding > 0)
        ),
        (
            select(
                Transaction.stripe_session_id,
                Transaction.refunded_cents,
                Transaction.disputed_cents,
            ).where(of_user)
        ),
        (
            select(
                StripeReversal.reversal_id,
                StripeReversal.status,
                StripeReversal.amount_cents,
                Transaction.stripe_session_id,
            )
            .join(Transaction, Transaction.transaction_id == StripeReversal.transaction_id)
            .where(of_user)
        ),
    ]
    states: list[tuple[tuple[Any, ...], ...]] = []
    for statement in statements:
        found: list[tuple[Any, ...]] = [tuple(row) for row in session.execute(statement)]
        states.append(tuple(sorted(found, key=repr)))
    return tuple(states)
