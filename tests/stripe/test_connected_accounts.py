"""Connected accounts that we act for: paid back and compared each in its own name."""

import asyncio
import datetime as dt
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import stripe
from sqlalchemy import select, update
from sqlalchemy.orm import Session
from typing_extensions import override

from src.cli import work
from src.common.models.reconciliation import Reconciliation
from src.common.models.stripe_reversal import StripeReversal
from src.common.models.user import User
from src.common.purchases.reconciliations import newest_drift
from src.common.purchases.resolutions import Ruling, resolve
from src.common.settings import Settings
from src.common.stripe.gateway import Gateway
from src.common.stripe.gateway_errors import PermissionMissing, StripeGatewayError
from src.common.stripe.inbox import EventAnswer
from src.common.stripe.offline import Delivery, InProcessClient, OfflineStripe
from src.common.stripe.reconcile import reconcile
from tests.credits.books import booked_balance
from tests.stripe.loop import Loop, only_purchase
from tests.stripe.payments import make_event, make_session

THEIRS = "acct_theirs"
DAY = dt.timedelta(days=1)


class Platform(InProcessClient):
    """Stripe with two accounts: who is asked for is in the request's header."""

    def __init__(self, own: OfflineStripe, connected: OfflineStripe) -> None:
        super().__init__(own)
        self._connected = InProcessClient(connected)

    @override
    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        post_data: Any = None,
        **more: Any,
    ) -> tuple[str, int, Mapping[str, str]]:
        """One request."""
        account = (headers or {}).get("Stripe-Account")
        if account == THEIRS:
            return self._connected.request(method, url, headers, post_data, **more)
        if account is None:
            return super().request(method, url, headers, post_data, **more)
        error = {
            "code": "account_invalid",
            "message": f"The provided key does not have access to account '{account}'",
            "type": "invalid_request_error",
        }
        return json.dumps({"error": error}), 403, {}


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
