"""Refunds with a second person's consent: paid once, wherever whoever consented was cut off."""

import asyncio
import datetime as dt
import uuid

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from src.cli.reach import in_database
from src.common.approvals import operations, queries, refunds
from src.common.approvals.asking import Asked
from src.common.approvals.queries import ApprovalState, RefundPreview, find_approval
from src.common.approvals.rules import Limits
from src.common.credits.domain.own_commands import approval_key
from src.common.credits.operations import execute
from src.common.database import SessionLocal, get_engine
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.approval import Approval
from src.common.models.refund_request import RefundRequest
from src.common.models.transaction import Transaction
from src.common.models.user import User
from src.common.purchases.refunds import RefundWish, request_refund
from src.common.stripe.gateway import Gateway
from src.common.stripe.processing import Processor
from src.common.stripe.refunds import Refunded, resume_refund
from src.local_postgres import ConnectionParameters
from src.offline_stripe import Trouble, TroubleKind
from tests.approvals.requests import ADA, GRACE, LIMITS, NOTHING_ALONE
from tests.credits.books import booked_balance, check_books, make_user, spend
from tests.credits.committed import look
from tests.credits.crashes import counting, interrupted
from tests.models.examples import a_user
from tests.stripe.loop import Loop, start_loop


@pytest.fixture
def loop(db: Session) -> Loop:
    """Our side and Stripe's, both empty."""
    assert db
    return start_loop()


@pytest.fixture
def user(db: Session) -> User:
    """A user without credits."""
    person = a_user()
    db.add(person)
    db.commit()
    return person


@pytest.fixture
def bought(loop: Loop, user: User) -> Transaction:
    """500 credits for 500 cents."""
    return buy(loop, user.user_id)


def buy(loop: Loop, user_id: uuid.UUID, key: str = "k") -> Transaction:
    """500 credits for 500 cents, paid and credited."""
    session_id = loop.session_of(loop.buy(user_id, key=key))
    loop.offline.pay(session_id)
    loop.deliver(loop.webhooks())
    with SessionLocal() as session:
        return session.scalars(
            select(Transaction).where(Transaction.stripe_session_id == session_id)
        ).one()


def ask(
    loop: Loop,
    bought: Transaction,
    cents: int | None = None,
    limits: Limits | None = NOTHING_ALONE,
    key: str = "r",
    reason: str | None = "not what they wanted",
) -> Refunded | Asked:
    """Ada pays back, or asks for it."""
    wish = RefundWish(bought.transaction_id, key, ADA, cents, reason)
    processor = loop.processor
    return asyncio.run(
        refunds.refund_or_ask(in_database, processor.gateway, processor.settings, wish, limits)
    )


def asked(loop: Loop, bought: Transaction, cents: int | None = None, key: str = "r") -> uuid.UUID:
    """What Ada asked for."""
    found = ask(loop, bought, cents, key=key)
    assert isinstance(found, Asked)
    return found.approval.approval_id


def consent(loop: Loop, approval_id: uuid.UUID, decider: str = GRACE) -> ApprovalState:
    """Grace consents, and Stripe is asked."""
    processor = loop.processor
    return asyncio.run(
        refunds.consent(
            in_database, processor.gateway, processor.settings, approval_id, decider=decider
        )
    )


def work(loop: Loop) -> None:
    """As the worker does, a while later."""
    processor = loop.processor

    async def go_on() -> None:
        def find(session: Session) -> list[RefundRequest]:
            long_ago = func.now() - dt.timedelta(minutes=2)
            session.execute(update(RefundRequest).values(created_at=long_ago))
            return list(refunds.cut_off_refunds(session, livemode=False, limit=10))

        for request in await in_database(find):
            await resume_refund(in_database, processor.gateway, processor.settings, request)

    asyncio.run(go_on())


def refused(loop: Loop, approval_id: uuid.UUID) -> str:
    """The type of the error with which consent is refused."""
    with pytest.raises(ExceptionWithErrorType) as caught:
        consent(loop, approval_id)
    return caught.value.error_type


def test_consent_pays_back_once(db: Session, loop: Loop, user: User, bought: Transaction) -> None:
    """With the key made of the request; asked and consented to again, it stays one refund."""
    approval_id = asked(loop, bought, 200)
    assert asked(loop, bought, 200) == approval_id
    foreseen = queries.preview(db, find_approval(db, approval_id))
    assert foreseen == RefundPreview(amount_cents=200, currency="usd", credits=200, balance=500)
    assert not list(loop.offline.account.all("refund"))
    for found in (consent(loop, approval_id) for _ in range(2)):
        assert found.refund is not None
        assert (found.status, found.refund.status) == ("consented", "accepted")
        assert found.refund.idempotency_key == approval_key(approval_id)
        [made] = loop.offline.account.all("refund")
        assert (made["id"], made["amount"]) == (found.refund.refund_id, 200)
        assert found.refund.actor == ADA
    loop.deliver(loop.webhooks())
    assert booked_balance(db, user.user_id) == 300
    check_books(db)


@pytest.mark.parametrize("limits", [NOTHING_ALONE, None])
def test_the_key_of_what_was_paid_back_pays_nothing_again(
    loop: Loop, bought: Transaction, limits: Limits | None
) -> None:
    """Whoever asked repeats it once there was consent, with the rule in force or not."""
    approval_id = asked(loop, bought, 200)
    assert isinstance(ask(loop, bought, 200, limits), Asked)
    consent(loop, approval_id)
    again = ask(loop, bought, 200, limits)
    assert isinstance(again, Refunded)
    [made] = loop.offline.account.all("refund")
    assert (again.refund_id, again.replayed) == (made["id"], True)


def test_the_amount_is_settled_when_it_is_asked_for(
    db: Session, loop: Loop, bought: Transaction
) -> None:
    """Whoever consents to all that was left does not consent to whatever is left by then."""
    approval_id = asked(loop, bought)
    assert find_approval(db, approval_id).approval.command["amount_cents"] == 500
    loop.refund(bought, 100, key="other")
    assert refused(loop, approval_id) == "REFUND_EXCEEDS_PAYMENT"
    assert find_approval(db, approval_id).status == "open"
    assert len(list(loop.offline.account.all("refund"))) == 1


def test_small_refunds_of_a_day_count_together(db: Session, loop: Loop, user: User) -> None:
    """Of all the user's purchases; what Stripe refused does not count, what is under way does."""
    first, second = buy(loop, user.user_id), buy(loop, user.user_id, "k2")
    assert isinstance(ask(loop, first, 200, LIMITS, "a"), Refunded)
    assert isinstance(ask(loop, second, 101, LIMITS, "b"), Asked)
    assert isinstance(ask(loop, second, 100, LIMITS, "c"), Refunded)
    assert isinstance(ask(loop, second, 100, LIMITS, "c"), Refunded), "a replay"
    assert isinstance(ask(loop, second, 1, LIMITS, "d"), Asked)
    db.execute(
        update(RefundRequest)
        .where(RefundRequest.idempotency_key == "a")
        .values(status="refused", refund_id=None, error="in a test")
    )
    db.commit()
    assert isinstance(ask(loop, second, 1, LIMITS, "e"), Refunded)


def test_one_key_is_for_one_purchase(loop: Loop, user: User) -> None:
    """Though amount and reason are the same."""
    first, second = buy(loop, user.user_id), buy(loop, user.user_id, "k2")
    asked(loop, first, 200)
    with pytest.raises(ExceptionWithErrorType) as caught:
        ask(loop, second, 200)
    assert caught.value.error_type == "IDEMPOTENCY_KEY_REUSED"


def test_a_request_says_what_it_is_for(loop: Loop, bought: Transaction) -> None:
    """Else nobody could judge it; what is more than was paid is not asked for either."""
    with pytest.raises(ExceptionWithErrorType, match="reason: this takes another person"):
        ask(loop, bought, reason=None)
    with pytest.raises(ExceptionWithErrorType, match=r"5\.00 USD of the payment are left"):
        ask(loop, bought, 501)


def test_nobody_else_uses_a_key_of_ours(db: Session, loop: Loop, bought: Transaction) -> None:
    """Whoever did could stand in the way of what was asked for."""
    wish = RefundWish(bought.transaction_id, approval_key(asked(loop, bought)), "key:shop")
    with pytest.raises(ExceptionWithErrorType, match="key: must not begin with '~'"):
        request_refund(db, wish)


def test_what_stripe_refuses_is_told_with_the_request(
    db: Session, loop: Loop, bought: Transaction
) -> None:
    """Consent was given, nothing came of it, and why is said; consent again says the same."""
    approval_id = asked(loop, bought, 500)
    loop.refund_at_stripe(bought.stripe_session_id, 500)
    assert refused(loop, approval_id) == "REFUND_EXCEEDS_PAYMENT"
    for found in (find_approval(db, approval_id), consent(loop, approval_id)):
        assert found.refund is not None
        assert (found.status, found.refund.status) == ("consented", "refused")
        assert found.refund.error == "charge_already_refunded"


def test_without_a_stripe_nothing_is_decided(db: Session, loop: Loop, bought: Transaction) -> None:
    """Whoever cannot ask it does not consent."""
    approval_id = asked(loop, bought)
    with pytest.raises(ExceptionWithErrorType, match="STRIPE_SECRET_KEY is not set"):
        asyncio.run(
            refunds.consent(in_database, None, loop.processor.settings, approval_id, decider=GRACE)
        )
    assert find_approval(db, approval_id).status == "open"


def test_while_stripe_is_away_the_consent_stands(
    db: Session, loop: Loop, user: User, bought: Transaction
) -> None:
    """It is counted as waiting; the same person's consent or the worker goes on with it."""
    approval_id = asked(loop, bought, 200)
    loop.offline.troubles.add(Trouble(TroubleKind.ERROR, times=50))
    assert refused(loop, approval_id) == "STRIPE_GATEWAY_ERROR"
    found = find_approval(db, approval_id)
    assert found.refund is not None
    assert (found.status, found.refund.status) == ("consented", "requested")
    waiting = queries.count_waiting(db)
    assert (waiting.open, waiting.refunds) == (0, 1)
    loop.offline.troubles.clear()
    assert refunds.cut_off_refunds(db, livemode=False, limit=10) == [], "somebody may be at it"
    work(loop)
    assert queries.count_waiting(db).refunds == 0
    assert len(list(loop.offline.account.all("refund"))) == 1
    assert booked_balance(db, user.user_id) == 300


class _Killed(BaseException):
    """Nothing of ours may catch it; the database undoes what was not committed."""


def _kill(_connection: object) -> None:
    raise _Killed


@pytest.mark.parametrize("goes_on", ["the worker", "another click", "resume"])
@pytest.mark.parametrize("place", [(Gateway, "create_refund"), (Processor, "apply")])
def test_whoever_consents_dies_before_or_after_stripe_pays(
    db: Session,
    loop: Loop,
    user: User,
    bought: Transaction,
    place: tuple[type[object], str],
    goes_on: str,
) -> None:
    """The consent is there, and whoever finds it goes on: one refund."""
    approval_id = asked(loop, bought, 200)

    async def die(*_arguments: object, **_options: object) -> None:
        raise _Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*place, die)
        with pytest.raises(_Killed):
            consent(loop, approval_id)
    found = find_approval(db, approval_id)
    assert found.refund is not None
    assert (found.status, found.refund.status) == ("consented", "requested")
    go_on_with(loop, approval_id, goes_on)
    db.expire_all()
    found = find_approval(db, approval_id)
    assert found.refund is not None
    assert found.refund.status == "accepted"
    assert len(list(loop.offline.account.all("refund"))) == 1
    assert booked_balance(db, user.user_id) == 300


def go_on_with(loop: Loop, approval_id: uuid.UUID, how: str) -> None:
    """As one of those who find what was cut off."""
    if how == "another click":
        consent(loop, approval_id)
    elif how == "the worker":
        work(loop)
    else:
        processor = loop.processor
        with SessionLocal() as session:
            [request] = session.scalars(select(RefundRequest))
        asyncio.run(resume_refund(in_database, processor.gateway, processor.settings, request))


@pytest.fixture
def committed(fresh_database: ConnectionParameters) -> Loop:
    """Our side and Stripe's, where commits are real."""
    assert fresh_database
    return start_loop()


def test_whoever_consents_dies_at_any_statement(committed: Loop) -> None:
    """Before each in turn, COMMIT too: the consent is whole or not there, and one refund comes."""
    loop = committed
    with SessionLocal.begin() as session:
        user_id = make_user(session).user_id
    last, number = 1, 0
    while number <= last:
        bought = buy(loop, user_id, f"buy-{number}")
        approval_id = asked(loop, bought, 200, key=f"ask-{number}")
        if number == 0:
            with counting(get_engine()) as statements:
                consent(loop, approval_id)
            last = statements()
            assert last > 10, "it decides, writes, asks Stripe, settles and commits"
        else:
            with interrupted(get_engine(), number, _kill), pytest.raises(_Killed):
                consent(loop, approval_id)
            with SessionLocal() as session:
                found = find_approval(session, approval_id)
            if found.status == "consented":
                work(loop)
            else:
                assert (found.status, found.refund) == ("open", None)
                consent(loop, approval_id)
        number += 1
    assert len(list(loop.offline.account.all("refund"))) == number
    statuses = look(lambda session: set(session.scalars(select(RefundRequest.status))))
    assert statuses == {"accepted"}
    assert look(lambda session: booked_balance(session, user_id)) == 300 * number


def test_an_erasure_does_not_stop_a_refund_that_was_consented_to(
    db: Session, loop: Loop, user: User, bought: Transaction
) -> None:
    """The request keeps its reason until Stripe has answered; the approval forgets it at once."""
    from src.common.accounts.operations import erase_user

    approval_id = asked(loop, bought, 200)
    execute(db, [spend(user.user_id, 400)])
    operations.consent(db, approval_id, decider=GRACE)
    erase_user(db, user.user_id)
    db.commit()
    db.expire_all()
    approval = db.get_one(Approval, approval_id)
    assert (approval.status, approval.reason) == ("consented", None)
    found = consent(loop, approval_id)
    assert found.refund is not None
    assert found.refund.status == "accepted"
    assert len(list(loop.offline.account.all("refund"))) == 1
