"""A refund asked for through us and the refund Stripe made of it are one, whoever is seen first."""

import datetime as dt
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.exceptions import Conflict, Invalid
from src.common.models.refund_request import RefundRequest
from src.common.models.transaction import Transaction
from src.common.models.user import User
from src.common.stripe.processing import Processor
from src.offline_stripe import Trouble, TroubleKind
from tests.credits.books import booked_balance, check_books
from tests.stripe.loop import Loop, only_purchase, start_loop

DAY = 86_400
LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


class _Killed(BaseException):
    """The process is gone."""


@pytest.fixture
def loop(db: Session) -> Loop:
    """Our side and Stripe's, both empty; Stripe's clock can be put forward."""
    assert db
    return start_loop(clock=lambda: time.time() - 10 * DAY)


@pytest.fixture
def purchase(db: Session, loop: Loop, user: User) -> Transaction:
    """500 credits for 500 cents."""
    loop.offline.pay(loop.session_of(loop.buy(user.user_id)))
    loop.deliver(loop.webhooks())
    return only_purchase(db)


def die_before_the_answer(loop: Loop, purchase: Transaction, cents: int) -> None:
    """Stripe has paid back; we are gone before anything of it is noted."""

    async def die(*_arguments: Any, **_options: Any) -> None:
        raise _Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Processor, "apply", die)
        with pytest.raises(_Killed):
            loop.refund(purchase, cents)


def refundable(loop: Loop, purchase: Transaction) -> int:
    """What we say is left, when far too much is asked for."""
    with pytest.raises(Invalid) as caught:
        loop.refund(purchase, 10_000, key="far too much")
    assert caught.value.error_type == "REFUND_EXCEEDS_PAYMENT"
    left: int = caught.value.details["refundable_cents"]
    return left


def statuses(db: Session) -> list[str]:
    """What became of the requests, which can have begun at one instant."""
    db.expire_all()
    return sorted(db.scalars(select(RefundRequest.status)))


SEEN: dict[str, Callable[[Loop], Any]] = {
    "an event": lambda loop: loop.deliver(loop.webhooks()),
    "events in reverse": lambda loop: loop.deliver(loop.webhooks()[::-1]),
    "reconciliation": lambda loop: loop.reconcile(LONG_AGO, repairs=True),
}


@pytest.mark.parametrize("seen", SEEN)
def test_a_refund_whose_answer_we_did_not_hear_counts_once(
    db: Session, loop: Loop, user: User, purchase: Transaction, seen: str
) -> None:
    """Before it is seen it is asked for, afterwards paid back; the key need not ask again."""
    die_before_the_answer(loop, purchase, 200)
    assert refundable(loop, purchase) == 300
    SEEN[seen](loop)
    assert refundable(loop, purchase) == 300
    assert statuses(db) == ["accepted"]
    assert loop.refund(purchase, 300, key="rest").amount_cents == 300
    again = loop.refund(purchase, 200)
    assert (again.amount_cents, again.replayed) == (200, True)
    assert len(list(loop.offline.account.all("refund"))) == 2
    loop.deliver(loop.webhooks())
    assert (booked_balance(db, user.user_id), refundable(loop, purchase)) == (0, 0)
    assert loop.reconcile(LONG_AGO, repairs=False).findings == []
    check_books(db)


def test_asking_again_after_stripe_forgot_the_key_pays_once(
    db: Session, loop: Loop, user: User, purchase: Transaction
) -> None:
    """Nobody told us of the refund, and its idempotency key is gone: we look before we ask."""
    die_before_the_answer(loop, purchase, 200)
    loop.webhooks()
    loop.offline.advance(2 * DAY)
    [made] = list(loop.offline.account.all("refund"))
    assert loop.refund(purchase, 200).refund_id == made["id"]
    assert [each["id"] for each in loop.offline.account.all("refund")] == [made["id"]]
    assert (booked_balance(db, user.user_id), statuses(db)) == (300, ["accepted"])


def test_a_refund_that_failed_is_left_to_refund_again(
    db: Session, loop: Loop, user: User, purchase: Transaction
) -> None:
    """Neither asked for nor paid back any more."""
    made = loop.refund(purchase, 200)
    loop.offline.settle_refund(made.refund_id, "failed")
    loop.deliver(loop.webhooks())
    assert (refundable(loop, purchase), booked_balance(db, user.user_id)) == (500, 500)


@pytest.mark.parametrize(("at_stripe", "left"), [(300, 200), (500, 0)])
def test_what_stripe_refuses_names_what_is_left_there(
    db: Session, loop: Loop, user: User, purchase: Transaction, at_stripe: int, left: int
) -> None:
    """Paid back behind our back: the true figure, the credits of it gone, nothing reserved."""
    loop.refund_at_stripe(purchase.stripe_session_id, at_stripe)
    for _ in range(2):
        with pytest.raises(Invalid) as caught:
            loop.refund(purchase, 400)
        assert caught.value.error_type == "REFUND_EXCEEDS_PAYMENT"
        assert caught.value.details["refundable_cents"] == left
    assert (booked_balance(db, user.user_id), statuses(db)) == (left, ["refused"])
    assert refundable(loop, purchase) == left
    loop.deliver(loop.webhooks())
    assert booked_balance(db, user.user_id) == left


def test_where_nobody_can_say_what_is_left_nothing_is_said(
    loop: Loop, purchase: Transaction
) -> None:
    """Stripe refused and then went down: the answer is the same without the figure."""
    loop.refund_at_stripe(purchase.stripe_session_id, 500)
    with pytest.raises(Invalid):
        loop.refund(purchase, 400)
    loop.offline.troubles.add(Trouble(TroubleKind.ERROR, times=50))
    with pytest.raises(Invalid) as caught:
        loop.refund(purchase, 400)
    assert caught.value.error_type == "REFUND_EXCEEDS_PAYMENT"
    assert "refundable_cents" not in caught.value.details


def test_a_purchase_that_application_code_wrote_is_paid_back_at_once(
    db: Session, loop: Loop, user: User
) -> None:
    """It knows its session alone; the credits go with the refund, not with its webhook."""
    page = loop.buy(user.user_id)
    session_id = loop.session_of(page)
    loop.offline.pay(session_id)
    user.transactions.append(
        Transaction(stripe_session_id=session_id, amount_paid_cents=500, credits_added=500)
    )
    user.credits_balance += 500
    db.commit()
    assert loop.refund(only_purchase(db), 200).amount_cents == 200
    assert (booked_balance(db, user.user_id), statuses(db)) == (300, ["accepted"])
    loop.deliver(loop.webhooks())
    assert booked_balance(db, user.user_id) == 300
    check_books(db)


def test_whatever_stripe_refuses_reserves_nothing(
    db: Session, loop: Loop, user: User, purchase: Transaction
) -> None:
    """A refusal for a reason we do not know by name: the key keeps it, another may ask for all."""
    charge = loop.offline.get(loop.charge_of(purchase.stripe_session_id))
    charge["captured"] = False
    for _ in range(2):
        with pytest.raises(Conflict) as caught:
            loop.refund(purchase, 400)
        assert (caught.value.error_type, caught.value.details["code"]) == (
            "REFUND_REFUSED",
            "invalid_request",
        )
    charge["captured"] = True
    assert loop.refund(purchase, 500, key="all").amount_cents == 500
    assert booked_balance(db, user.user_id) == 0
    assert statuses(db) == ["accepted", "refused"]
