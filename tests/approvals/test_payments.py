"""Payments that one person credits by hand: what counts, and what is asked for."""

import datetime as dt
from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy.orm import Session

from src.common.approvals import operations
from src.common.approvals.asking import Asked
from src.common.approvals.operations import execute_or_ask
from src.common.approvals.payments import (
    PaymentPreview,
    Settled,
    Settlement,
    foresee,
    resolve_or_ask,
)
from src.common.approvals.queries import find_approval, preview
from src.common.approvals.rules import Credited, Limits, credits_beyond_price
from src.common.credits.domain.commands import Result
from src.common.exceptions import Invalid
from src.common.models.user import User
from src.common.packages import DEFAULT_PACKAGES
from src.common.purchases.operations import settle_payment
from src.common.purchases.resolutions import Ruling, find_unmatched
from src.common.stripe.wire import CheckoutSession
from tests.approvals.requests import ADA, GRACE, a_grant, refused
from tests.credits.books import booked_balance, check_books, make_user
from tests.models.examples import a_transaction
from tests.purchases.lives import TERMS
from tests.stripe.payments import make_session

LIMITS = Limits(
    credits_above=100,
    refund_cents_above=0,
    lifetime=dt.timedelta(days=1),
    packages=DEFAULT_PACKAGES,
)


@pytest.mark.parametrize(
    ("paid_cents", "currency", "livemode", "beyond"),
    [
        (500, "usd", True, 100),
        (499, "usd", True, 600),
        (900, "usd", True, 0),
        (900, "jpy", True, 600),
        (900, "usd", False, 600),
        (None, "usd", True, 600),
        (0, "usd", True, 600),
    ],
)
def test_what_is_beyond_the_price(
    paid_cents: int | None, currency: str, *, livemode: bool, beyond: int
) -> None:
    """Of 600 credits, where real money sells: what only somebody says was paid buys nothing."""
    limits = Limits(0, 0, dt.timedelta(days=1), DEFAULT_PACKAGES, is_live=True)
    credited = Credited(credits=600, paid_cents=paid_cents, currency=currency, livemode=livemode)
    assert credits_beyond_price(credited, limits) == beyond


@pytest.fixture
def user(db: Session) -> User:
    """A user without credits."""
    return make_user(db)


def unmatched(db: Session, user: User) -> str:
    """A payment of 5.00 USD for no package that we sell; its name."""
    session = make_session(user, metadata={"package_id": "501"})
    payment = CheckoutSession.model_validate(session).as_payment()
    settle_payment(db, payment, TERMS, cause="evt_1")
    return payment.stripe_session_id


def settlement(
    name: str, number: int | None, actor: str = ADA, key: str = "k", why: str = "x"
) -> Settlement:
    """To credit it with so many."""
    return Settlement(name, why, actor, key, Ruling(credits=number))


def credit(
    db: Session, name: str, number: int | None, limits: Limits | None = LIMITS, actor: str = ADA
) -> bool:
    """Whether it may be credited so, alone; else it is not even asked for."""
    wish = settlement(name, number, actor, key=f"{actor} alone")
    asks = foresee(db, wish, limits).asks
    if not asks:
        done = resolve_or_ask(db, wish, limits)
        assert isinstance(done, Settled)
    return not asks


def ask(db: Session, name: str, number: int, key: str = "k") -> Asked:
    """What takes another person's consent."""
    found = resolve_or_ask(db, settlement(name, number, key=key), LIMITS)
    assert isinstance(found, Asked)
    return found


def test_the_money_of_somebody_else_s_payment_buys_nothing(db: Session, user: User) -> None:
    """One person moves a customer's purchase to another up to the limit only."""
    other = make_user(db).user_id
    wish = Settlement(unmatched(db, user), "x", ADA, "k", Ruling(other, 101))
    assert foresee(db, wish, LIMITS).asks
    assert not foresee(db, replace(wish, ruling=Ruling(user.user_id, 101)), LIMITS).asks
    assert not foresee(db, replace(wish, ruling=Ruling(other, 100)), LIMITS).asks


def test_money_that_names_nobody_buys_nobody_anything(db: Session, user: User) -> None:
    """Whoever settles it says whose it is: alone up to what they may give, then two say so."""
    session = make_session(user, metadata={"user_id": ""}, client_reference_id=None)
    payment = CheckoutSession.model_validate(session).as_payment()
    assert payment.user_id is None
    settle_payment(db, payment, TERMS, cause="evt_1")
    wish = Settlement(payment.stripe_session_id, "x", ADA, "k", Ruling(user.user_id, 500))
    assert foresee(db, wish, LIMITS).asks
    assert not foresee(db, replace(wish, ruling=Ruling(user.user_id, 100)), LIMITS).asks
    asked = resolve_or_ask(db, wish, LIMITS)
    assert isinstance(asked, Asked)
    operations.consent(db, asked.approval.approval_id, decider=GRACE)
    assert booked_balance(db, user.user_id) == 500
    assert isinstance(execute_or_ask(db, a_grant(user.user_id, 100), LIMITS), Result)


def test_beyond_the_limit_it_is_asked_for_and_credited_once(db: Session, user: User) -> None:
    """With what the requester said; until then nothing is settled, and the books are as before."""
    name = unmatched(db, user)
    first, again = ask(db, name, 5_000), ask(db, name, 5_000)
    assert (first.approval, first.replayed, again.replayed) == (again.approval, False, True)
    assert (booked_balance(db, user.user_id), find_unmatched(db, name).status) == (0, "open")
    state = find_approval(db, first.approval.approval_id)
    foreseen = preview(db, state)
    assert isinstance(foreseen, PaymentPreview)
    assert (foreseen.credits, foreseen.balance) == (5_000, 5_000)
    assert booked_balance(db, user.user_id) == 0
    own = partial(operations.consent, db, first.approval.approval_id, decider=ADA)
    assert refused(own) == "APPROVAL_IS_OWN"
    for _ in range(2):
        operations.consent(db, first.approval.approval_id, decider=GRACE)
    assert booked_balance(db, user.user_id) == 5_000
    row = find_unmatched(db, name)
    assert (row.status, row.actor, row.resolution) == ("resolved", ADA, "x")
    assert find_approval(db, first.approval.approval_id).entry_seq == 1
    replayed = resolve_or_ask(db, settlement(name, 5_000), LIMITS)
    assert isinstance(replayed, Settled)
    assert replayed.purchase is not None
    assert replayed.purchase.credits_added == 5_000
    check_books(db)


def test_what_there_was_consent_to_does_not_count(db: Session, user: User) -> None:
    """Whoever asked gives alone afterwards as before."""
    operations.consent(db, ask(db, unmatched(db, user), 5_000).approval.approval_id, decider=GRACE)
    assert isinstance(execute_or_ask(db, a_grant(user.user_id, 100), LIMITS), Result)
    assert isinstance(execute_or_ask(db, a_grant(user.user_id, 1), LIMITS), Asked)


def test_a_payment_that_was_settled_meanwhile_is_credited_once(db: Session, user: User) -> None:
    """Consent is refused, and the request stays as it is."""
    name = unmatched(db, user)
    request = ask(db, name, 5_000).approval
    assert credit(db, name, 500)
    late = partial(operations.consent, db, request.approval_id, decider=GRACE)
    assert refused(late) == "ALREADY_RESOLVED"
    assert (request.status, booked_balance(db, user.user_id)) == ("open", 500)


def test_the_key_of_a_request_is_of_this_payment_and_number(db: Session, user: User) -> None:
    """Anything else with it is refused; a reason that no request holds, too."""
    name = unmatched(db, user)
    ask(db, name, 5_000)
    assert refused(partial(ask, db, name, 6_000)) == "IDEMPOTENCY_KEY_REUSED"
    with pytest.raises(Invalid, match="255"):
        resolve_or_ask(db, settlement(name, 5_000, key="b", why="x" * 256), LIMITS)


def test_gifts_and_payments_count_together(db: Session, user: User) -> None:
    """Whichever is first; another person's do not count, nor does what the money buys."""
    first, second, third = (unmatched(db, user) for _ in range(3))
    assert isinstance(execute_or_ask(db, a_grant(user.user_id, 60), LIMITS), Result)
    assert not credit(db, first, 541)
    assert credit(db, first, 540)
    assert isinstance(execute_or_ask(db, a_grant(user.user_id, 1), LIMITS), Asked)
    assert not credit(db, second, 501)
    assert credit(db, second, 600, actor=GRACE)
    assert credit(db, third, 500)
    assert booked_balance(db, user.user_id) == 60 + 540 + 600 + 500


def test_without_limits_anybody_credits_what_they_say(db: Session, user: User) -> None:
    """A developer alone has nobody to ask."""
    assert credit(db, unmatched(db, user), 50_000, limits=None)


def test_what_is_closed_gives_nothing(db: Session, user: User) -> None:
    """And takes nobody."""
    closed = resolve_or_ask(
        db, Settlement(unmatched(db, user), "x", ADA, "k"), Limits(0, 0, LIMITS.lifetime)
    )
    assert isinstance(closed, Settled)
    assert (closed.row.status, closed.purchase) == ("resolved", None)


def test_what_application_code_wrote_is_credited_as_it_is(db: Session, user: User) -> None:
    """The number is no decision of whoever settles it."""
    bought = a_transaction(user_id=user.user_id, credits_added=5_000, amount_paid_cents=1)
    db.add(bought)
    db.flush()
    assert credit(db, bought.stripe_session_id, None)
