"""What has to hold after any storm: computed from Stripe's objects, compared with our rows."""

import uuid
from collections import Counter, defaultdict
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.credits.verification.verify import verify
from src.common.database import SessionLocal
from src.common.models.checkout_order import CheckoutOrder
from src.common.models.credit_entry import CreditEntry, CreditPosting
from src.common.models.credit_hold import CreditDebt
from src.common.models.credit_lot import CreditLot
from src.common.models.stripe_event import StripeEvent
from src.common.models.stripe_reversal import StripeReversal
from src.common.models.transaction import Transaction
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.purchases.packages import PACKAGES
from src.offline_stripe import OfflineStripe
from tests.credits.books import check_books

Object = dict[str, Any]
TAKING = ("clawback", "debt_repayment", "reinstatement")
CREDITS = {package.price_cents: package.credits for package in PACKAGES}


def check_everything(offline: OfflineStripe) -> Counter[str]:
    """Every payment has its grant, every reversal its clawback, and the books balance.

    How many payments, refunds and disputes that was about.
    """
    with SessionLocal() as session:
        paid = _check_grants(session, offline)
        _check_clawbacks(session, offline, paid)
        check_books(session)
        assert (
            session.scalars(
                select(StripeEvent.event_id).where(StripeEvent.status.in_(("failed", "dead")))
            ).all()
            == []
        )
    *_, report = verify(SessionLocal)
    assert (report.differences, report.first) == (0, [])
    found = Counter[str](payments=len(paid))
    found["refunds"] = len(list(offline.account.all("refund")))
    found["disputes"] = len(list(offline.account.all("dispute")))
    return found


def _check_grants(session: Session, offline: OfflineStripe) -> dict[str, Transaction]:
    """Every payment that succeeded has one purchase and one lot, and there are no others."""
    sessions = {each["payment_intent"]: each for each in offline.account.all("checkout.session")}
    paid = {
        each["id"]: sessions[each["id"]]
        for each in offline.account.all("payment_intent")
        if each["status"] == "succeeded"
    }
    purchases = session.scalars(select(Transaction)).all()
    assert Counter(each.payment_intent_id for each in purchases) == Counter(paid.keys())
    lots = session.execute(
        select(CreditLot.transaction_id, CreditLot.user_id, CreditLot.granted).where(
            CreditLot.transaction_id.is_not(None)
        )
    ).all()
    expected = [(each.transaction_id, each.user_id, each.credits_added) for each in purchases]
    assert Counter(map(tuple, lots)) == Counter(expected)
    orders = {
        each.stripe_session_id: each.status for each in session.scalars(select(CheckoutOrder))
    }
    for purchase in purchases:
        page = paid[str(purchase.payment_intent_id)]
        assert purchase.stripe_session_id == page["id"]
        assert purchase.user_id == uuid.UUID(page["metadata"]["user_id"])
        assert purchase.amount_paid_cents == page["amount_total"]
        assert purchase.credits_added == CREDITS[page["amount_total"]]
        assert orders[page["id"]] == "paid"
    waiting = session.scalars(
        select(UnmatchedPayment.stripe_object_id).where(UnmatchedPayment.status == "open")
    )
    assert {each["id"] for each in paid.values()}.isdisjoint(waiting)
    return {str(each.payment_intent_id): each for each in purchases}


def _check_clawbacks(
    session: Session, offline: OfflineStripe, paid: dict[str, Transaction]
) -> None:
    """Per user: the credits to be back by rule 5's formula = what was taken + what is owed.

    Purchased credits never expire, so that nothing is forgiven.
    """
    states = {
        **{each["id"]: each["status"] for each in offline.account.all("refund")},
        **{each["id"]: _funds(each)[0] for each in offline.account.all("dispute")},
    }
    noted = session.scalars(select(StripeReversal)).all()
    assert {each.reversal_id: each.status for each in noted} == states
    refunded, disputed = Counter[str](), Counter[str]()
    for each in offline.account.all("refund"):
        refunded[each["payment_intent"]] += each["amount"] * (
            each["status"] in ("pending", "succeeded")
        )
    for each in offline.account.all("dispute"):
        disputed[each["payment_intent"]] += _funds(each)[1]
    expected: defaultdict[uuid.UUID, int] = defaultdict(int)
    for name, purchase in paid.items():
        sums = (purchase.refunded_cents, purchase.disputed_cents)
        assert sums == (refunded[name], disputed[name]), name
        price = purchase.amount_paid_cents
        back = min(sum(sums), price)
        expected[purchase.user_id] += (2 * purchase.credits_added * back + price) // (2 * price)
    taken = (
        select(CreditEntry.user_id, -CreditPosting.amount)
        .join(
            CreditPosting,
            (CreditPosting.user_id == CreditEntry.user_id) & (CreditPosting.seq == CreditEntry.seq),
        )
        .where(CreditEntry.kind.in_(TAKING))
    )
    found: defaultdict[uuid.UUID, int] = defaultdict(int)
    for statement in (taken, select(CreditDebt.user_id, CreditDebt.outstanding)):
        for user_id, amount in session.execute(statement):
            found[user_id] += amount
    assert Counter(found) == Counter(expected)


def _funds(dispute: Object) -> tuple[str, int]:
    """Whether a dispute's money is with the bank, by what was moved; and how much of it."""
    moved = [int(each["amount"]) for each in dispute["balance_transactions"]]
    if not moved:
        return "inquiry", 0
    taken = 0 if dispute["status"] == "won" else -sum(moved)
    return ("withdrawn" if taken else "reinstated"), taken
