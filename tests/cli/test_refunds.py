"""`flashslides credits refund`: paid back once, also by somebody who was told of an error."""

import asyncio
import datetime as dt

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from src.cli.work import settle_refund_requests
from src.common.models.refund_request import RefundRequest
from src.common.models.transaction import Transaction
from src.common.models.user import User
from src.common.stripe.gateway import Gateway
from src.common.stripe.gateway_errors import StripeGatewayError
from src.common.stripe.processing import Processor
from src.offline_stripe import Trouble, TroubleKind
from tests.cli.conftest import RunCommand
from tests.credits.books import booked_balance
from tests.stripe.loop import Loop, only_purchase


@pytest.fixture
def purchase(db: Session, loop: Loop, user: User) -> Transaction:
    """500 credits for 500 cents."""
    loop.offline.pay(loop.session_of(loop.buy(user.user_id)))
    loop.deliver(loop.webhooks())
    return only_purchase(db)


def test_whoever_was_told_of_an_error_asks_again_with_the_key_it_names(
    db: Session, loop: Loop, user: User, purchase: Transaction, flashslides: RunCommand
) -> None:
    """Stripe paid back and its answer was lost: another key would pay back once more."""
    command = ("credits", "refund", str(purchase.transaction_id), "--amount-cents", "200")
    loop.offline.troubles.add(Trouble(TroubleKind.SLOW, times=50, delay_seconds=60))
    failed = flashslides(*command)
    assert failed.exit_code == 75, failed.err
    assert len(list(loop.offline.account.all("refund"))) == 1
    [key] = [word for word in failed.err.split() if word.startswith("cli:")]
    assert f"--key {key}" in failed.err
    loop.offline.troubles.clear()
    again = flashslides(*command, "--key", key, "--json")
    assert (again.exit_code, again.json["amount_cents"], again.json["idempotency_key"]) == (
        0,
        200,
        key,
    )
    assert len(list(loop.offline.account.all("refund"))) == 1
    assert booked_balance(db, user.user_id) == 300


def test_an_empty_key_is_refused(
    loop: Loop, purchase: Transaction, flashslides: RunCommand
) -> None:
    """A variable that was not set is no wish for a new key: each run would pay back once more."""
    refused = flashslides("credits", "refund", str(purchase.transaction_id), "--key", "")
    assert refused.exit_code == 2
    assert "key: must be 1 to 255" in refused.err
    assert not list(loop.offline.account.all("refund"))


@pytest.mark.usefixtures("db")
def test_without_a_key_for_stripe_no_other_try_helps(flashslides: RunCommand) -> None:
    """Whoever waits for it waits for ever: the configuration is what is wrong."""
    refused = flashslides("credits", "refund", "00000000-0000-4000-8000-000000000001")
    assert refused.exit_code == 78
    assert "STRIPE_SECRET_KEY is not set" in refused.err
    assert refused.err.endswith("(STRIPE_NOT_CONFIGURED)\n")


class _Killed(BaseException):
    """The process is gone."""


def cut_off(loop: Loop, purchase: Transaction, *, reaches_stripe: bool) -> None:
    """All of it is asked for; we are gone before Stripe hears of it, or before its answer."""
    there, name = (Processor, "apply") if reaches_stripe else (Gateway, "create_refund")

    async def die(*_arguments: object, **_options: object) -> None:
        raise _Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(there, name, die)
        with pytest.raises(_Killed):
            loop.refund(purchase, key="cut off")


@pytest.mark.parametrize("reaches_stripe", [False, True])
def test_a_refund_that_was_cut_off_is_listed_and_gone_on_with(
    db: Session,
    loop: Loop,
    user: User,
    purchase: Transaction,
    flashslides: RunCommand,
    *,
    reaches_stripe: bool,
) -> None:
    """Whether Stripe heard of it or not, it pays back once; then nothing is listed."""
    cut_off(loop, purchase, reaches_stripe=reaches_stripe)
    refused = flashslides("credits", "refund", str(purchase.transaction_id))
    assert "0.00 USD of the payment are left" in refused.err
    [listed] = flashslides("credits", "refund", "--list", "--json").json
    assert (listed["idempotency_key"], listed["amount_cents"]) == ("cut off", 500)
    other = flashslides("credits", "refund", str(user.user_id), "--resume", "--json").json
    assert other == [], "no purchase of that id"
    [resumed] = flashslides("credits", "refund", "--resume", "--json").json
    [made] = loop.offline.account.all("refund")
    assert (resumed["idempotency_key"], resumed["refund_id"]) == ("cut off", made["id"])
    assert booked_balance(db, user.user_id) == 0
    assert flashslides("credits", "refund", "--list", "--json").json == []
    assert flashslides("credits", "refund", "--list", "--resume").exit_code == 2
    assert flashslides("credits", "refund").exit_code == 2


def test_a_refund_that_cannot_be_gone_on_with_says_so(
    loop: Loop, purchase: Transaction, flashslides: RunCommand
) -> None:
    """Paid back meanwhile by somebody else: the exit code is 1, and the request is closed."""
    cut_off(loop, purchase, reaches_stripe=False)
    loop.refund_at_stripe(purchase.stripe_session_id, 500)
    failed = flashslides("credits", "refund", "--resume", "--json")
    assert failed.exit_code == 1
    assert failed.json[0]["error"].startswith("REFUND_EXCEEDS_PAYMENT")
    assert flashslides("credits", "refund", "--list", "--json").json == []


def let_a_day_pass(db: Session) -> None:
    """The requests are older than Stripe's memory of their keys."""
    db.execute(update(RefundRequest).values(created_at=func.now() - dt.timedelta(hours=25)))
    db.commit()


@pytest.mark.parametrize("reaches_stripe", [False, True])
def test_the_worker_asks_after_what_was_cut_off_a_day_ago(
    db: Session,
    loop: Loop,
    user: User,
    purchase: Transaction,
    flashslides: RunCommand,
    *,
    reaches_stripe: bool,
) -> None:
    """What Stripe never heard of is closed, and may be asked for anew; the other is taken in."""
    cut_off(loop, purchase, reaches_stripe=reaches_stripe)
    asyncio.run(settle_refund_requests())
    request = db.scalars(select(RefundRequest)).one()
    assert request.status == "requested", "its first answer may still be on its way"
    let_a_day_pass(db)
    asyncio.run(settle_refund_requests())
    db.refresh(request)
    assert "No refund was cut off." in flashslides("credits", "refund", "--list").out
    if reaches_stripe:
        assert (request.status, booked_balance(db, user.user_id)) == ("accepted", 0)
        return
    assert (request.status, request.error) == ("refused", "stripe_never_heard_of_it")
    assert booked_balance(db, user.user_id) == 500
    again = flashslides("credits", "refund", str(purchase.transaction_id), "--json")
    assert (again.exit_code, again.json["amount_cents"]) == (0, 500)
    assert booked_balance(db, user.user_id) == 0


def test_a_silent_stripe_closes_nothing(db: Session, loop: Loop, purchase: Transaction) -> None:
    """Nobody knows whether it has the refund."""
    cut_off(loop, purchase, reaches_stripe=True)
    let_a_day_pass(db)
    loop.offline.troubles.add(Trouble(TroubleKind.ERROR, times=50))
    with pytest.raises(StripeGatewayError):
        asyncio.run(settle_refund_requests())
    assert db.scalars(select(RefundRequest.status)).one() == "requested"
