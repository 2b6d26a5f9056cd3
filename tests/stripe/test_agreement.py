"""A page of Stripe's objects is looked at as a whole: what plainly agrees is not settled again."""

import asyncio
import datetime as dt
import uuid
from typing import Any

import pytest
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from src.common.database import SessionLocal, get_engine
from src.common.models.checkout_order import CheckoutOrder
from src.common.models.reconciliation import Reconciliation
from src.common.models.stripe_reversal import StripeReversal
from src.common.models.transaction import Transaction
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.purchases.recorded import read_recorded
from src.common.stripe import agreement
from src.common.stripe.differences import difference
from src.common.stripe.gateway import configured
from src.common.stripe.listed import Listed, Window
from src.common.stripe.listings import LISTED, list_page, reader_of
from src.common.stripe.lookup import Facts
from src.common.stripe.processing import terms_of
from src.local_postgres import ConnectionParameters
from tests.credits.books import make_user
from tests.credits.crashes import counting
from tests.credits.verification.test_verify import corrupt
from tests.stripe.loop import Loop, start_loop
from tests.stripe.simulation import LATER, LONG_AGO, Storm


@pytest.fixture
def loop(fresh_database: ConnectionParameters) -> Loop:
    """Customers, Stripe, and us; commits are real."""
    assert fresh_database
    return start_loop()


def shop(loop: Loop, count: int) -> list[uuid.UUID]:
    """So many users who have bought something, had some money back, and left a page to expire."""
    with SessionLocal.begin() as session:
        people = [make_user(session).user_id for _ in range(count)]
    for person in people:
        session_id = loop.session_of(loop.buy(person))
        loop.offline.pay(session_id)
        loop.refund_at_stripe(session_id, 200)
        loop.offline.open_dispute(loop.charge_of(session_id))
        left = loop.session_of(loop.buy(person, "1000", key="left"))
        loop.client.v1.checkout.sessions.expire(left)
    loop.deliver(loop.webhooks())
    return people


def compare(loop: Loop) -> Reconciliation:
    """Compare all there is; mend nothing."""
    return loop.reconcile(LONG_AGO, until=LATER, repairs=False)


async def page_of(loop: Loop, stage: str) -> tuple[list[Any], list[Facts]]:
    """A stage's objects at Stripe as read, and what each says where anybody may be asked."""
    gateway = configured(loop.processor.gateway)
    listed: list[Listed[Any]] = []
    while page := await list_page(
        gateway, stage, Window(LONG_AGO, LATER), listed[-1].object_id if listed else None
    ):
        listed += page
    objects = [each.read() for each in listed]
    read = reader_of(stage, loop.processor.lookup, livemode=False)
    return objects, [await read(each) for each in objects]


def test_what_plainly_agrees_is_no_difference(fresh_database: ConnectionParameters) -> None:
    """In the middle of a storm, and after it: settling would change nothing of what agrees."""
    assert fresh_database
    storm = Storm(20_262)
    agreed = differing = 0
    for _ in range(3):
        storm.rage(60)
        storm.clear_up()
        terms = terms_of(storm.loop.processor.settings)
        for stage in LISTED:
            objects, told = asyncio.run(page_of(storm.loop, stage))
            for found, facts in zip(objects, told, strict=True):
                with SessionLocal() as session:
                    recorded = read_recorded(session, agreement.asked_of([found]))
                    agrees = agreement.agree(facts, recorded, terms)
                    differs = difference(session, facts, terms)
                assert differs is None or not agrees, (stage, found.id)
                agreed += agrees
                differing += differs is not None
    assert agreed > 20
    assert differing > 2, "or nothing could have been overlooked"


def test_what_agrees_costs_no_statement_of_its_own(loop: Loop) -> None:
    """However many objects a page has, it takes as many statements."""
    counts: list[int] = []
    for people in (1, 4):
        shop(loop, people)
        compare(loop)
        with counting(get_engine()) as statements:
            run = compare(loop)
        assert (run.findings, run.drift) == ([], 0)
        counts.append(statements())
    assert counts[0] == counts[1]


_REVERSALS = (
    "UPDATE stripe_reversals SET {change} WHERE kind = '{kind}' AND transaction_id IN"
    " (SELECT transaction_id FROM transactions WHERE user_id = :user_id)"
)
CHANGES = {
    "amount": "UPDATE transactions SET amount_paid_cents = 1 WHERE user_id = :user_id",
    "currency": "UPDATE transactions SET currency = 'eur' WHERE user_id = :user_id",
    "credits": "UPDATE transactions SET credits_added = 7 WHERE user_id = :user_id",
    "account": "UPDATE transactions SET stripe_account = 'acct_1' WHERE user_id = :user_id",
    "PaymentIntent": "UPDATE transactions SET payment_intent_id = 'pi_1' WHERE user_id = :user_id",
    "lot": "UPDATE credit_lots SET transaction_id = NULL WHERE user_id = :user_id",
    "expired order": "UPDATE checkout_orders SET status = 'open'"
    " WHERE status = 'expired' AND user_id = :user_id",
    "refund's status": _REVERSALS.format(kind="refund", change="status = 'pending'"),
    "refund's amount": _REVERSALS.format(kind="refund", change="amount_cents = 1"),
    "refund's account": _REVERSALS.format(kind="refund", change="stripe_account = 'acct_1'"),
    "refund's purchase": _REVERSALS.format(kind="refund", change="transaction_id = NULL"),
    "dispute's status": _REVERSALS.format(kind="dispute", change="status = 'inquiry'"),
    "dispute's movements": _REVERSALS.format(kind="dispute", change="moved_cents = 0"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_one_that_was_changed_behind_our_back_is_found_among_others(
    loop: Loop, change: str
) -> None:
    """Each column that settling looks at: the one at fault is found, the others agree."""
    person, *_ = shop(loop, 3)
    assert compare(loop).findings == []
    with SessionLocal() as session:
        names = names_of(session, person)
    corrupt(CHANGES[change], person)
    found = {each["object"] for each in compare(loop).findings}
    assert found
    assert found <= names


def names_of(session: Session, person: uuid.UUID) -> set[str]:
    """What a user's objects are called at Stripe."""
    names: set[str] = set()
    for purchase in session.scalars(select(Transaction).where(Transaction.user_id == person)):
        names |= {purchase.stripe_session_id, str(purchase.payment_intent_id)}
        reversals = select(StripeReversal.reversal_id).where(
            StripeReversal.transaction_id == purchase.transaction_id
        )
        names |= set(session.scalars(reversals))
    orders = select(CheckoutOrder.stripe_session_id).where(CheckoutOrder.user_id == person)
    return names | {str(each) for each in session.scalars(orders)}


def test_an_unmatched_payment_agrees_as_long_as_it_is_noted(loop: Loop) -> None:
    """Two sessions of nobody's: of one the note is lost, and it alone is missing."""
    bought = [
        loop.client.v1.checkout.sessions.create(
            {
                "mode": "payment",
                "success_url": "https://shop.test/paid",
                "line_items": [
                    {
                        "quantity": 1,
                        "price_data": {
                            "currency": "usd",
                            "unit_amount": 500,
                            "product_data": {"name": "A cap"},
                        },
                    }
                ],
            }
        ).id
        for _ in range(2)
    ]
    for session_id in bought:
        loop.offline.pay(session_id)
    loop.deliver(loop.webhooks())
    assert compare(loop).findings == []
    with SessionLocal.begin() as session:
        session.execute(
            delete(UnmatchedPayment).where(UnmatchedPayment.stripe_object_id == bought[0])
        )
    whole = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    findings = loop.reconcile(whole, repairs=False).findings
    assert {each["object"] for each in findings} >= {bought[0]}
    assert bought[1] not in {each["object"] for each in findings}
