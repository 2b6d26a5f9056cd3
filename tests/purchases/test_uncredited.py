"""A purchase that application code wrote without crediting anybody waits for somebody, unasked."""

import pytest
from sqlalchemy.orm import Session

from src.common.exceptions import Conflict
from src.common.models.user import User
from src.common.purchases.operations import PurchaseStatus
from src.common.purchases.resolutions import Ruling, resolve
from src.common.purchases.unmatched import count_open_unmatched_payments, open_unmatched_payments
from src.common.stripe.inbox import apply
from src.common.stripe.lookup import Facts
from tests.credits.books import booked_balance, check_books
from tests.models.examples import a_user
from tests.purchases.lives import TERMS, refund
from tests.purchases.test_reasons import purchase_of
from tests.purchases.test_resolutions import decide, settle
from tests.stripe.payments import make_session


@pytest.fixture
def user(db: Session) -> User:
    """A user without credits."""
    person = a_user()
    db.add(person)
    db.commit()
    return person


def listed(db: Session) -> list[tuple[str, str]]:
    """What waits for somebody, as counted too."""
    rows = [(each.stripe_object_id, each.reason) for each in open_unmatched_payments(db, limit=10)]
    assert count_open_unmatched_payments(db) == len(rows)
    return rows


@pytest.mark.parametrize("name", ["id", "payment_intent"])
def test_it_is_listed_and_counted_from_the_moment_it_is_written(
    db: Session, user: User, name: str
) -> None:
    """Once, also when an event tells of it; credited by the command, and then a purchase."""
    session = make_session(user, payment_intent="pi_x")
    db.add(purchase_of(session, user, name))
    db.commit()
    told = (session[name], "TRANSACTION_WITHOUT_CREDIT")
    assert listed(db) == [told]
    assert settle(db, session) is PurchaseStatus.UNMATCHED
    assert [reason for _, reason in listed(db)] == ["TRANSACTION_WITHOUT_CREDIT"]
    [(noted, _)] = listed(db)
    decide(db, noted, Ruling())
    assert listed(db) == []
    assert booked_balance(db, user.user_id) == 500
    assert settle(db, session) is PurchaseStatus.ALREADY_CREDITED
    apply(db, Facts(reversals=(refund("x", "succeeded", 500),)), TERMS, cause="evt_2")
    assert booked_balance(db, user.user_id) == 0
    check_books(db)


def test_without_any_event_it_is_settled_by_the_command(db: Session, user: User) -> None:
    """With its credits or without; what comes later changes nothing."""
    given, refused = make_session(user, payment_intent="pi_x"), make_session(user)
    for session in (given, refused):
        db.add(purchase_of(session, user))
    db.commit()
    assert len(listed(db)) == 2
    decide(db, given["id"], Ruling())
    decide(db, refused["id"])
    assert listed(db) == []
    for session in (given, refused):
        settle(db, {**session, "livemode": True})
        settle(db, session)
    assert listed(db) == []
    assert booked_balance(db, user.user_id) == 500
    with pytest.raises(Conflict, match="Resolved already"):
        resolve(db, given["id"], resolution="again", actor="system:tests")


def test_what_was_closed_by_itself_is_listed_all_the_same(db: Session, user: User) -> None:
    """An event closed a row of this name; the purchase came afterwards."""
    session = make_session(user)
    settle(db, {**session, "payment_status": "unpaid"})
    assert settle(db, session) is PurchaseStatus.CREDITED
    other = make_session(user, id="cs_other", payment_intent=None)
    db.add(purchase_of(other, user))
    db.commit()
    assert listed(db) == [("cs_other", "TRANSACTION_WITHOUT_CREDIT")]


def test_purchases_with_their_credits_are_not_listed(db: Session, user: User) -> None:
    """By our own hand, and by the document's pattern."""
    assert settle(db, make_session(user)) is PurchaseStatus.CREDITED
    session = make_session(user)
    user.credits_balance += 500
    db.add(purchase_of(session, user))
    db.commit()
    assert listed(db) == []
