"""Offer, pay, credit, refund, dispute, reconcile, against a Stripe that keeps its own books."""

import datetime as dt
import json
import random
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from src.common.credits.operations import execute
from src.common.exceptions import Conflict, ExceptionWithErrorType, Invalid
from src.common.models.checkout_order import CheckoutOrder
from src.common.models.stripe_event import StripeEvent
from src.common.models.stripe_reversal import StripeReversal
from src.common.models.transaction import Transaction
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.models.user import User
from src.common.stripe import attempts
from src.common.stripe.checkout import plan_checkout
from src.common.stripe.gateway_errors import StripeGatewayError
from src.common.stripe.inbox import EventAnswer
from src.offline_stripe import Delivery, Trouble, TroubleKind
from tests.credits.books import booked_balance, check_books, spend
from tests.models.examples import a_user
from tests.purchases.lives import state_of
from tests.stripe.loop import Loop, only_purchase
from tests.stripe.payments import make_event, make_session

YESTERDAY = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)


def count(db: Session, model: type[Any]) -> int:
    """How many rows there are."""
    return db.scalars(select(func.count()).select_from(model)).one()


def test_a_package_is_offered_paid_and_credited_once(db: Session, loop: Loop, user: User) -> None:
    """Every event Stripe sends about it, in several orders: one purchase, one grant."""
    for number, seed in enumerate(range(4), start=1):
        page = loop.buy(user.user_id, "1000", key=f"k{number}")
        loop.offline.pay(loop.session_of(page))
        webhooks = loop.webhooks() * 2
        random.Random(seed).shuffle(webhooks)  # noqa: S311  no secret
        answers = loop.deliver(webhooks)
        assert EventAnswer.ACCEPTED not in answers
        assert EventAnswer.UNMATCHED not in answers
        assert booked_balance(db, user.user_id) == 1_000 * number
        assert count(db, Transaction) == number
    db.expire_all()
    assert {order.status for order in db.scalars(select(CheckoutOrder))} == {"paid"}
    assert count(db, UnmatchedPayment) == 0
    check_books(db)


def test_two_clicks_make_one_customer_and_one_page(db: Session, loop: Loop, user: User) -> None:
    """The same key is the same page; another key is another page of the same customer."""
    first, again = loop.buy(user.user_id), loop.buy(user.user_id)
    assert (first.url, first.replayed, again.replayed) == (again.url, False, True)
    assert loop.buy(user.user_id, key="other").url != first.url
    assert len(list(loop.offline.account.all("customer"))) == 1
    with pytest.raises(Conflict) as caught:
        loop.buy(user.user_id, "1000")
    assert caught.value.error_type == "IDEMPOTENCY_KEY_REUSED"
    db.refresh(user)
    assert user.stripe_customer_id is not None


def test_an_order_is_found_again_after_a_crash(db: Session, loop: Loop, user: User) -> None:
    """Stripe made the page and we died: the next try has the same page, and a payment matches."""
    page = loop.buy(user.user_id)
    forgotten = {"stripe_session_id": None, "url": None, "status": "created"}
    db.execute(update(CheckoutOrder).values(forgotten))
    db.commit()
    session_id = loop.session_of(page)
    assert loop.buy(user.user_id).url == page.url
    db.execute(update(CheckoutOrder).values(forgotten))
    db.commit()
    loop.offline.pay(session_id)
    loop.deliver(loop.webhooks())
    db.expire_all()
    order = db.scalars(select(CheckoutOrder)).one()
    assert (order.status, order.stripe_session_id) == ("paid", session_id)
    assert booked_balance(db, user.user_id) == 500


def test_while_stripe_is_down_nothing_is_half_done(db: Session, loop: Loop, user: User) -> None:
    """An error names the gateway; the order stays, and the same key succeeds later."""
    loop.offline.troubles.add(Trouble(TroubleKind.ERROR, times=50))
    with pytest.raises(StripeGatewayError) as caught:
        loop.buy(user.user_id)
    assert caught.value.error_type == "STRIPE_GATEWAY_ERROR"
    assert count(db, CheckoutOrder) == 1
    loop.offline.troubles.clear()
    assert loop.buy(user.user_id).url
    assert count(db, CheckoutOrder) == 1


def test_an_event_that_needs_stripe_waits_for_it(db: Session, loop: Loop, user: User) -> None:
    """The PaymentIntent comes first and Stripe is down: accepted, and the worker's turn settles."""
    loop.offline.pay(loop.session_of(loop.buy(user.user_id)))
    [intent] = [each for each in loop.webhooks() if each.event_type == "payment_intent.succeeded"]
    loop.offline.troubles.add(Trouble(TroubleKind.ERROR, times=50))
    assert loop.deliver([intent]) == [EventAnswer.ACCEPTED]
    assert booked_balance(db, user.user_id) == 0
    loop.offline.troubles.clear()
    due = {"next_attempt_at": YESTERDAY, "lease_expires_at": None}
    db.execute(update(StripeEvent).values(due))
    db.commit()
    assert loop.settle_due() == 1
    assert booked_balance(db, user.user_id) == 500
    assert only_purchase(db).stripe_session_id.startswith("cs_")


def test_an_event_that_always_fails_is_dead_in_the_end(db: Session, loop: Loop, user: User) -> None:
    """After a set number of attempts nobody tries it again, and it is counted."""
    loop.offline.pay(loop.session_of(loop.buy(user.user_id)))
    [intent] = [each for each in loop.webhooks() if each.event_type == "payment_intent.succeeded"]
    loop.offline.troubles.add(Trouble(TroubleKind.ERROR, times=1_000))
    loop.deliver([intent])
    db.execute(update(StripeEvent).values(attempts=attempts.ATTEMPTS_MAX - 1))
    db.commit()
    loop.deliver([intent])
    db.expire_all()
    assert db.scalars(select(StripeEvent.status)).one() == "dead"
    assert attempts.count_dead_events(db) == 1
    assert [attempts.claim_next(db, needs_lookup=needs) for needs in (False, True)] == [None] * 2


def test_a_refund_through_us_takes_the_credits_back_once(
    db: Session, loop: Loop, user: User
) -> None:
    """Part, then the rest; a key replays; more than was paid is refused; webhooks add nothing."""
    loop.offline.pay(loop.session_of(loop.buy(user.user_id)))
    loop.deliver(loop.webhooks())
    purchase = only_purchase(db)
    first = loop.refund(purchase, 200)
    assert (first.amount_cents, first.replayed) == (200, False)
    assert loop.refund(purchase, 200).refund_id == first.refund_id
    assert booked_balance(db, user.user_id) == 300
    with pytest.raises(Invalid) as caught:
        loop.refund(purchase, 301, key="too much")
    assert (caught.value.error_type, caught.value.details["refundable_cents"]) == (
        "REFUND_EXCEEDS_PAYMENT",
        300,
    )
    assert loop.refund(purchase, key="rest").amount_cents == 300
    loop.deliver(loop.webhooks())
    assert booked_balance(db, user.user_id) == 0
    assert (only_purchase(db).refunded_cents, count(db, StripeReversal)) == (500, 2)
    check_books(db)


def test_a_refund_before_its_payment_waits_for_it(db: Session, loop: Loop, user: User) -> None:
    """Known by its PaymentIntent alone, it is taken up when the payment is credited."""
    session_id = loop.session_of(loop.buy(user.user_id))
    loop.offline.pay(session_id)
    paid = loop.webhooks()
    loop.refund_at_stripe(session_id, 100)
    loop.deliver(loop.webhooks())
    waiting = db.scalars(select(StripeReversal)).one()
    assert (waiting.transaction_id, booked_balance(db, user.user_id)) == (None, 0)
    loop.deliver(paid)
    assert booked_balance(db, user.user_id) == 400
    assert only_purchase(db).refunded_cents == 100


def test_a_dispute_counts_from_withdrawn_to_reinstated(db: Session, loop: Loop, user: User) -> None:
    """The inquiry counts nothing, the funds do; what was spent meanwhile is a debt, then none."""
    session_id = loop.session_of(loop.buy(user.user_id))
    loop.offline.pay(session_id)
    dispute = loop.offline.open_dispute(loop.charge_of(session_id), inquiry=True)
    loop.deliver(loop.webhooks())
    execute(db, [spend(user.user_id, 100)])
    db.commit()
    assert booked_balance(db, user.user_id) == 400
    loop.offline.decide_dispute(dispute["id"], "escalate")
    loop.deliver(loop.webhooks())
    assert booked_balance(db, user.user_id) == 0
    loop.offline.decide_dispute(dispute["id"], "win")
    loop.deliver(loop.webhooks())
    assert booked_balance(db, user.user_id) == 400
    check_books(db)


def test_a_day_of_lost_webhooks_is_restored_exactly(db: Session, loop: Loop) -> None:
    """Payments, refunds, disputes, nobody told us: found, mended, and then nothing is left."""
    people = [a_user() for _ in range(4)]
    db.add_all(people)
    db.commit()
    for number, person in enumerate(people):
        for option in ("500", "1000"):
            session_id = loop.session_of(loop.buy(person.user_id, option, key=option))
            loop.offline.pay(session_id)
            if number == 1:
                loop.refund_at_stripe(session_id, 120)
            if number == 2:
                dispute = loop.offline.open_dispute(loop.charge_of(session_id))
                if option == "500":
                    loop.offline.decide_dispute(dispute["id"], "win")
    lost = loop.webhooks()
    found = loop.reconcile(YESTERDAY, repairs=False)
    assert found.drift > 0
    assert count(db, Transaction) == 0
    mended = loop.reconcile(YESTERDAY, repairs=True)
    assert (mended.status, mended.drift) == ("finished", 0)
    assert loop.reconcile(YESTERDAY, repairs=False).findings == []
    balances = [booked_balance(db, person.user_id) for person in people]
    assert balances == [1_500, 1_247, 500, 1_500]
    before = [state_of(db, person.user_id) for person in people]
    assert set(loop.deliver(lost)) <= {EventAnswer.ALREADY_PROCESSED, EventAnswer.IGNORED}
    assert [state_of(db, person.user_id) for person in people] == before
    check_books(db)


def test_what_stripe_does_not_know_is_extra(db: Session, loop: Loop, user: User) -> None:
    """A purchase of ours that Stripe never saw cannot be mended: it is drift."""
    user.transactions.append(
        Transaction(
            stripe_session_id="cs_invented",
            amount_paid_cents=500,
            credits_added=500,
            livemode=False,
        )
    )
    user.credits_balance += 500
    db.commit()
    run = loop.reconcile(YESTERDAY, repairs=True)
    assert [(each["object"], each["what"]) for each in run.findings] == [("cs_invented", "extra")]
    assert run.drift == 1


@pytest.mark.parametrize(
    "page",
    ["https://evil.test/x", "http://localhost:3000@evil.test/", "javascript:alert(1)", "//x"],
)
def test_a_page_that_is_not_ours_is_refused(loop: Loop, user: User, page: str) -> None:
    """Nobody is sent from Stripe to a page that is not on the allow-list."""
    with pytest.raises(ExceptionWithErrorType) as caught:
        plan_checkout(loop.processor.settings, user.user_id, "500", key="k", success_url=page)
    assert (caught.value.error_type, caught.value.details["field"]) == (
        "VALIDATION_ERROR",
        "success_url",
    )


def test_only_our_own_sessions_where_orders_are_required(
    db: Session, loop: Loop, user: User
) -> None:
    """With STRIPE_REQUIRE_ORDER a right session of somebody else's credits nobody; ours does."""
    settings = loop.processor.settings.model_copy(update={"stripe_require_order": True})
    strict = Loop(loop.offline, replace(loop.processor, settings=settings))
    assert strict.deliver([foreign(user)]) == [EventAnswer.UNMATCHED]
    assert db.scalars(select(UnmatchedPayment.reason)).one() == "ORDER_REQUIRED"
    strict.offline.pay(strict.session_of(strict.buy(user.user_id)))
    assert EventAnswer.UNMATCHED not in strict.deliver(strict.webhooks())
    assert booked_balance(db, user.user_id) == 500


def test_a_session_that_lies_about_its_order_is_a_mismatch(
    db: Session, loop: Loop, user: User
) -> None:
    """Our order's number with another package in the metadata credits nobody."""
    page = loop.buy(user.user_id)
    metadata = {"order_id": str(page.order_id), "package_id": "1000", "credits": "1000"}
    assert loop.deliver([foreign(user, metadata=metadata)]) == [EventAnswer.UNMATCHED]
    assert db.scalars(select(UnmatchedPayment.reason)).one() == "ORDER_MISMATCH"
    assert booked_balance(db, user.user_id) == 0


def test_a_discount_counts_only_where_the_order_allows_it(
    db: Session, loop: Loop, user: User
) -> None:
    """The same discounted session: a mismatch without leave, else a purchase at what was paid."""
    changes: dict[str, Any] = {
        "amount_total": 400,
        "total_details": {"amount_discount": 100, "amount_shipping": 0, "amount_tax": 0},
    }
    for allowed, expected in ((False, EventAnswer.UNMATCHED), (True, EventAnswer.PROCESSED)):
        update_ = {"stripe_allow_promotion_codes": allowed}
        settings = loop.processor.settings.model_copy(update=update_)
        shop = Loop(loop.offline, replace(loop.processor, settings=settings))
        page = shop.buy(user.user_id, key=str(allowed))
        metadata = {"order_id": str(page.order_id)}
        assert shop.deliver([foreign(user, metadata=metadata, **changes)]) == [expected]
    assert (only_purchase(db).amount_paid_cents, booked_balance(db, user.user_id)) == (400, 500)


def foreign(user: User, **changes: Any) -> Delivery:
    """The webhook of a paid session that somebody else made."""
    event = make_event(make_session(user, **changes))
    body = json.dumps(event).encode()
    return Delivery("d", event["id"], event["type"], "http://test", body, {}, 1)
