"""Connected accounts that we act for: paid back and compared each in its own name."""

import asyncio
import datetime as dt
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import AsyncMock

import pytest
import stripe
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from src.cli import work
from src.cli.reach import in_database
from src.common.exceptions import Conflict, DatabaseBusy
from src.common.models.reconciliation import Reconciliation
from src.common.models.refund_request import RefundRequest
from src.common.models.stripe_reversal import StripeReversal
from src.common.models.transaction import Transaction
from src.common.models.user import User
from src.common.purchases.reconciliations import newest_drift
from src.common.purchases.resolutions import Ruling, resolve
from src.common.settings import Settings
from src.common.stripe.gateway import Gateway
from src.common.stripe.gateway_errors import PermissionMissing, StripeGatewayError
from src.common.stripe.inbox import EventAnswer
from src.common.stripe.processing import Processor
from src.common.stripe.reconcile import reconcile
from src.common.stripe.refunds import close_if_unknown
from src.offline_stripe import Delivery, InProcessClient, OfflineStripe
from tests.credits.books import booked_balance
from tests.models.examples import a_transaction
from tests.stripe.loop import Loop, only_purchase
from tests.stripe.payments import make_event, make_session
from tests.stripe.platform import THEIRS, Platform

DAY = dt.timedelta(days=1)


@dataclass
class World:
    """We, our own account, and one that we act for."""

    ours: Loop
    theirs: OfflineStripe

    def paid_to_them(self, user: User) -> str:
        """A session of theirs that promises our credits, and is paid."""
        told = make_session(user)
        client = stripe.StripeClient("sk_test_1", http_client=InProcessClient(self.theirs))
        price: Any = {"currency": "usd", "unit_amount": 500, "product_data": {"name": "Starter"}}
        made = client.v1.checkout.sessions.create(
            {
                "mode": "payment",
                "success_url": "https://shop.test",
                "metadata": told["metadata"],
                "payment_intent_data": {"metadata": told["metadata"]},
                "line_items": [{"price_data": price, "quantity": 1}],
            }
        )
        self.theirs.pay(made.id)
        return str(made.id)

    def their_webhooks(self) -> list[Delivery]:
        """As Stripe sends them to a platform."""
        return [
            replace(each, body=json.dumps(json.loads(each.body) | {"account": THEIRS}).encode())
            for each in self.theirs.webhooks.due()
        ]

    def their_charge(self, session_id: str) -> str:
        """The charge that paid a session of theirs."""
        payment = self.theirs.get(str(self.theirs.get(session_id)["payment_intent"]))
        return str(payment["latest_charge"])

    def gone(self) -> None:
        """Have another account, before theirs, whose owner has revoked our access."""
        changes = {"stripe_connected_accounts": f"acct_gone, {THEIRS}"}
        settings = self.ours.processor.settings.model_copy(update=changes)
        self.ours.processor = replace(self.ours.processor, settings=settings)

    def compare(self, account: str | None, *, repairs: bool = False) -> Reconciliation:
        """One account beside our books."""
        since = dt.datetime.now(dt.UTC) - DAY
        return asyncio.run(
            reconcile(self.ours.processor, since=since, repairs=repairs, account=account)
        )


@pytest.fixture
def world(loop: Loop) -> World:
    """All of them, with nothing bought."""
    theirs = OfflineStripe(seed="theirs")
    theirs.add_endpoint("http://test/connect", secret="whsec_test")
    client = Platform(loop.offline, theirs)
    gateway = Gateway(stripe.StripeClient("sk_test_1", http_client=client), 5)
    settings = loop.processor.settings.model_copy(update={"stripe_connected_accounts": THEIRS})
    processor = replace(loop.processor, gateway=gateway, settings=settings)
    return World(Loop(loop.offline, processor), theirs)


def test_a_payment_to_a_connected_account_is_noted_as_its_own(
    db: Session, world: World, user: User
) -> None:
    """The purchase and its refund say whose they are; ours say nothing."""
    session_id = world.paid_to_them(user)
    world.theirs.open_dispute(world.their_charge(session_id), amount=100)
    assert EventAnswer.UNMATCHED not in world.ours.deliver(world.their_webhooks())
    assert only_purchase(db).stripe_account == THEIRS
    assert db.scalars(select(StripeReversal.stripe_account)).all() == [THEIRS]
    assert booked_balance(db, user.user_id) == 400


def test_a_refund_is_paid_by_the_account_that_was_paid(
    db: Session, world: World, user: User
) -> None:
    """Asked for in its name: our own account has no such payment."""
    world.paid_to_them(user)
    world.ours.deliver(world.their_webhooks())
    assert world.ours.refund(only_purchase(db), 200).amount_cents == 200
    assert [each["amount"] for each in world.theirs.account.all("refund")] == [200]
    assert list(world.ours.offline.account.all("refund")) == []
    assert db.scalars(select(StripeReversal.stripe_account)).all() == [THEIRS]
    assert booked_balance(db, user.user_id) == 300
    world.ours.deliver(world.their_webhooks())  # its own events tell nothing new
    assert booked_balance(db, user.user_id) == 300


def test_each_account_is_compared_for_itself(db: Session, world: World, user: User) -> None:
    """What is of the one is not missing in the other, and both agree with the books."""
    world.ours.offline.pay(world.ours.session_of(world.ours.buy(user.user_id)))
    session_id = world.paid_to_them(user)
    world.theirs.open_dispute(world.their_charge(session_id), amount=100)
    world.ours.deliver([*world.ours.webhooks(), *world.their_webhooks()])
    assert booked_balance(db, user.user_id) == 900
    for account in (None, THEIRS):
        run = world.compare(account)
        assert (run.findings, run.drift, run.stripe_account) == ([], 0, account)
        assert run.compared > 0


def test_what_a_connected_account_never_told_is_mended_in_its_name(
    db: Session, world: World, user: User
) -> None:
    """Its payment and its dispute, once; then both agree, and our own account knows of nothing."""
    session_id = world.paid_to_them(user)
    world.theirs.open_dispute(world.their_charge(session_id), amount=100)
    assert world.compare(None, repairs=True).findings == []
    run = world.compare(THEIRS, repairs=True)
    assert (run.drift, {each["mended"] for each in run.findings}) == (0, {True})
    assert booked_balance(db, user.user_id) == 400
    assert only_purchase(db).stripe_account == THEIRS
    for account in (THEIRS, None):
        assert world.compare(account).findings == []
    world.ours.deliver(world.their_webhooks())
    assert booked_balance(db, user.user_id) == 400


def test_the_drift_that_is_told_is_of_all_accounts(db: Session, world: World, user: User) -> None:
    """Of each its newest run; of an account that is no longer named, none."""
    world.paid_to_them(user)
    world.compare(None)
    left = world.compare(THEIRS).drift
    assert left > 0
    assert newest_drift(db, [THEIRS]) == left
    assert newest_drift(db) == 0
    # In the one database transaction of a test all runs begin at the same instant.
    earlier = Reconciliation.started_at - dt.timedelta(hours=1)
    db.execute(update(Reconciliation).values(started_at=earlier))
    world.compare(THEIRS, repairs=True)
    assert newest_drift(db, [THEIRS]) == 0


def written_before_accounts_were(db: Session) -> Transaction:
    """The purchase and what went back of it as an older release wrote them."""
    db.execute(update(Transaction).values(stripe_account=None))
    db.execute(update(StripeReversal).values(stripe_account=None))
    db.commit()
    return only_purchase(db)


def test_what_an_older_release_wrote_learns_whose_it_is(
    db: Session, world: World, user: User
) -> None:
    """A purchase and its dispute: different in the account's run, mended there, ours no more."""
    session_id = world.paid_to_them(user)
    dispute = world.theirs.open_dispute(world.their_charge(session_id), amount=100)
    world.ours.deliver(world.their_webhooks())
    written_before_accounts_were(db)
    names = {session_id, str(dispute["id"])}
    extra = {each["object"]: each["what"] for each in world.compare(None, repairs=True).findings}
    assert extra == dict.fromkeys(names, "extra")
    for repairs in (False, True):
        run = world.compare(THEIRS, repairs=repairs)
        differ = {each["object"] for each in run.findings}
        assert names <= differ
        what = f"different: our own account here, {THEIRS} at Stripe"
        assert {(each["what"], each["mended"]) for each in run.findings} == {(what, repairs)}
        assert run.drift == (0 if repairs else len(differ))
    for account in (None, THEIRS):
        assert world.compare(account).findings == []
    assert only_purchase(db).stripe_account == THEIRS
    assert db.scalars(select(StripeReversal.stripe_account)).all() == [THEIRS]
    assert booked_balance(db, user.user_id) == 400


def test_a_purchase_that_no_session_led_to_learns_it_too(
    db: Session, world: World, user: User
) -> None:
    """Stripe lists its PaymentIntent, which is known: but not whose it is."""
    session_id = world.paid_to_them(user)
    payment = str(world.theirs.get(session_id)["payment_intent"])
    del world.theirs.account.state.objects["checkout.session"][session_id]
    world.ours.deliver(
        each for each in world.their_webhooks() if each.event_type == "payment_intent.succeeded"
    )
    assert written_before_accounts_were(db).stripe_session_id == payment
    found = {each["object"]: each for each in world.compare(THEIRS, repairs=True).findings}
    assert found[payment]["what"] == f"different: our own account here, {THEIRS} at Stripe"
    assert found[payment]["mended"]
    assert only_purchase(db).stripe_account == THEIRS
    assert booked_balance(db, user.user_id) == 500


def test_a_refund_of_what_an_older_release_wrote_is_paid_by_who_was_paid(
    db: Session, world: World, user: User
) -> None:
    """Our own account does not know it: who does is asked, and noted. One cannot be reached."""
    world.paid_to_them(user)
    world.ours.deliver(world.their_webhooks())
    world.gone()
    assert world.ours.refund(written_before_accounts_were(db), 200).amount_cents == 200
    assert [each["amount"] for each in world.theirs.account.all("refund")] == [200]
    assert db.scalars(select(StripeReversal.stripe_account)).all() == [THEIRS]
    assert only_purchase(db).stripe_account == THEIRS
    assert booked_balance(db, user.user_id) == 300


def test_so_is_one_of_what_application_code_wrote(db: Session, world: World, user: User) -> None:
    """By its session alone, as the document's pattern does."""
    session_id = world.paid_to_them(user)
    db.add(a_transaction(user_id=user.user_id, stripe_session_id=session_id, amount_paid_cents=500))
    db.commit()
    assert world.ours.refund(only_purchase(db), 200).amount_cents == 200
    assert [each["amount"] for each in world.theirs.account.all("refund")] == [200]
    assert only_purchase(db).stripe_account == THEIRS


def test_such_a_refund_whose_answer_is_lost_is_found_where_it_was_made(
    db: Session, world: World, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose payment it is was noted before money was asked for: nobody closes the request."""
    world.paid_to_them(user)
    world.ours.deliver(world.their_webhooks())
    purchase = written_before_accounts_were(db)
    with monkeypatch.context() as patch:
        patch.setattr(Processor, "apply", AsyncMock(side_effect=DatabaseBusy))
        with pytest.raises(DatabaseBusy):
            world.ours.refund(purchase, 200)
    request = db.scalars(select(RefundRequest)).one()
    processor = world.ours.processor
    is_closed = asyncio.run(
        close_if_unknown(in_database, processor.gateway, processor.settings, request)
    )
    assert not is_closed
    assert world.ours.refund(only_purchase(db), 200).replayed
    assert len(list(world.theirs.account.all("refund"))) == 1
    assert booked_balance(db, user.user_id) == 300


def test_a_refund_is_not_given_up_while_an_account_cannot_be_asked(
    db: Session, world: World, user: User
) -> None:
    """It may be the one that was paid; once it is no longer named, nobody was."""
    world.paid_to_them(user)
    world.ours.deliver(world.their_webhooks())
    purchase = written_before_accounts_were(db)
    for kind in ("payment_intent", "charge"):
        world.theirs.account.state.objects[kind].clear()
    world.gone()
    with pytest.raises(StripeGatewayError):
        world.ours.refund(purchase, 200)
    assert db.scalars(select(RefundRequest.status)).all() == ["requested"]
    processor = world.ours.processor
    named = processor.settings.model_copy(update={"stripe_connected_accounts": THEIRS})
    world.ours.processor = replace(processor, settings=named)
    with pytest.raises(Conflict, match="resource_missing"):
        world.ours.refund(purchase, 200)


def test_a_payment_that_somebody_credits_by_hand_keeps_its_account(
    db: Session, world: World, user: User
) -> None:
    """It is paid back by whom it was paid to."""
    told = make_event(make_session(user, amount_subtotal=499, amount_total=499))
    body = json.dumps(told | {"account": THEIRS}).encode()
    wrong = Delivery("1", told["id"], told["type"], "http://test", body, {}, 1)
    assert world.ours.deliver([wrong]) == [EventAnswer.UNMATCHED]
    name = told["data"]["object"]["id"]
    resolve(db, name, resolution="as agreed", actor="system:tests", ruling=Ruling())
    db.commit()
    assert only_purchase(db).stripe_account == THEIRS


def test_the_worker_compares_all_accounts_and_one_that_fails_keeps_nobody(
    db: Session, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each for itself; which our key does not reach is tried again, the others are done."""
    changes = {"stripe_connected_accounts": f"acct_gone, {THEIRS}"}
    settings = world.ours.processor.settings.model_copy(update=changes)

    @asynccontextmanager
    async def opened(_settings: Settings) -> AsyncGenerator[Gateway | None]:
        yield world.ours.processor.gateway

    monkeypatch.setattr(work, "open_gateway", opened)
    monkeypatch.setattr(work, "get_settings", lambda: settings)
    with pytest.raises(StripeGatewayError):
        asyncio.run(work.reconcile_where_due())
    runs = db.execute(select(Reconciliation.stripe_account, Reconciliation.status)).all()
    assert {account: status for account, status in runs} == {  # noqa: C416  rows are no pairs
        None: "finished",
        THEIRS: "finished",
        "acct_gone": "running",
    }


def test_an_account_that_our_key_does_not_reach_is_no_missing_permission(world: World) -> None:
    """Nothing can be compared there: the run fails, and says why."""
    with pytest.raises(StripeGatewayError) as caught:
        world.compare("acct_gone")
    assert not isinstance(caught.value, PermissionMissing)
