"""Money back in another currency than was paid: nothing is summed, and nothing is silent."""

from dataclasses import replace
from itertools import permutations
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.models.stripe_reversal import StripeReversal
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.models.user import User
from src.common.purchases.packages import PACKAGES
from src.common.purchases.resolutions import resolve
from src.common.stripe.lookup import Facts
from tests.credits.books import booked_balance, check_books, make_user
from tests.purchases.lives import dispute, payment_of, refund, settle, state_of
from tests.stripe.loop import Loop, only_purchase, start_loop

YEN = 90_000


def strays(db: Session) -> list[tuple[str, str, str]]:
    """Who waits for somebody: object, reason, status."""
    db.expire_all()
    rows = db.scalars(select(UnmatchedPayment).order_by(UnmatchedPayment.stripe_object_id))
    return [(each.stripe_object_id, each.reason, each.status) for each in rows]


def events(*states: str) -> dict[str, Facts]:
    """A payment in dollars, a refund of 100 cents, a dispute in yen that goes through `states`."""
    told = {
        state: Facts(reversals=(replace(dispute("x", state, YEN), currency="jpy"),))
        for state in states
    }
    return {"refunded": Facts(reversals=(refund("x", "succeeded", 100),)), **told}


def test_in_any_order_only_the_payments_own_currency_takes_credits(db: Session) -> None:
    """Each order of four events: 100 credits go, the dispute in yen waits for somebody."""
    ends: set[str] = set()
    for number, order in enumerate(permutations(("paid", "refunded", "inquiry", "withdrawn"))):
        user_id, name = make_user(db).user_id, f"x{number}"
        facts: dict[str, Facts] = {
            "paid": Facts(payments=(payment_of(user_id, name, PACKAGES[0]),)),
            "refunded": Facts(reversals=(refund(name, "succeeded", 100),)),
            **{
                state: Facts(reversals=(replace(dispute(name, state, YEN), currency="jpy"),))
                for state in ("inquiry", "withdrawn")
            },
        }
        for each in order:
            settle(db, facts[each], each)
        assert booked_balance(db, user_id) == 400
        row = db.get_one(UnmatchedPayment, (False, f"dp_{name}"))
        assert (row.reason, row.status) == ("CURRENCY_MISMATCH", "open")
        assert "jpy" in row.explanation
        assert row.details["amount_cents"] == YEN
        ends.add(repr(state_of(db, user_id)).replace(name, "x"))
    assert len(ends) == 1
    check_books(db)


def test_a_stray_that_ends_is_resolved_by_itself(db: Session, user: User) -> None:
    """The dispute is won: nothing is to be done any more; a late copy opens nothing again."""
    settle(db, Facts(payments=(payment_of(user.user_id, "x", PACKAGES[0]),)))
    told = events("withdrawn", "reinstated")
    settle(db, told["withdrawn"])
    assert strays(db) == [("dp_x", "CURRENCY_MISMATCH", "open")]
    settle(db, told["reinstated"])
    settle(db, told["withdrawn"])
    settle(db, told["refunded"])
    assert strays(db) == [("dp_x", "CURRENCY_MISMATCH", "resolved")]
    assert booked_balance(db, user.user_id) == 400


def test_what_somebody_resolved_stays_resolved(db: Session, user: User) -> None:
    """Whatever else happens to the user's payments."""
    settle(db, Facts(payments=(payment_of(user.user_id, "x", PACKAGES[0]),)))
    told = events("withdrawn")
    settle(db, told["withdrawn"])
    resolve(db, "dp_x", resolution="500 credits taken by hand", actor="system:tests")
    settle(db, told["refunded"])
    row = db.get_one(UnmatchedPayment, (False, "dp_x"))
    assert (row.status, row.resolution) == ("resolved", "500 credits taken by hand")


def test_a_bank_that_disputes_in_its_own_currency_is_noted(db: Session, user: User) -> None:
    """Through the webhook: the dispute is kept as Stripe tells it, and reconciliation agrees."""
    loop: Loop = start_loop()
    session_id = loop.session_of(loop.buy(user.user_id))
    loop.offline.pay(session_id)
    loop.deliver(loop.webhooks())
    made: dict[str, Any] = loop.offline.open_dispute(loop.charge_of(session_id))
    made |= {"currency": "jpy", "amount": YEN}
    loop.offline.decide_dispute(made["id"], "lose")
    told = [each for each in loop.webhooks() if each.event_type == "charge.dispute.closed"]
    loop.deliver(told * 2)
    assert strays(db) == [(made["id"], "CURRENCY_MISMATCH", "open")]
    kept = db.scalars(select(StripeReversal)).one()
    assert (kept.currency, kept.amount_cents, kept.status) == ("jpy", YEN, "withdrawn")
    assert booked_balance(db, user.user_id) == 500
    assert only_purchase(db).disputed_cents == 0
