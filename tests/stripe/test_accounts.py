"""Events of connected accounts (Stripe Connect): acted on only where a setting names them."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import stripe
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from typing_extensions import override

from src.common.exceptions import SettingsError
from src.common.models.stripe_event import StripeEvent
from src.common.models.stripe_reversal import StripeReversal
from src.common.models.transaction import Transaction
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.models.user import User
from src.common.settings import load_settings
from src.common.stripe.gateway import Gateway
from src.common.stripe.inbox import EventAnswer
from src.common.stripe.unasked import StripeNeeded, UnaskedGateway
from src.offline_stripe import Delivery, InProcessClient, OfflineStripe
from tests.credits.books import booked_balance
from tests.stripe.loop import Loop

OURS, THEIRS = "acct_ours", "acct_theirs"


class Overheard(InProcessClient):
    """A client that notes in whose name each request was made."""

    def __init__(self, offline: OfflineStripe) -> None:
        super().__init__(offline)
        self.accounts: list[str | None] = []

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
        self.accounts.append((headers or {}).get("Stripe-Account"))
        return super().request(method, url, headers, post_data, **more)


def acting_for(loop: Loop, accounts: str) -> tuple[Loop, Overheard]:
    """The same loop with this setting, and its overheard client."""
    client = Overheard(loop.offline)
    gateway = Gateway(stripe.StripeClient("sk_test_1", http_client=client), 5)
    settings = loop.processor.settings.model_copy(update={"stripe_connected_accounts": accounts})
    return Loop(loop.offline, replace(loop.processor, gateway=gateway, settings=settings)), client


def of_account(delivery: Delivery, account: str | None) -> Delivery:
    """The event as it comes from a connected account."""
    body = json.dumps(json.loads(delivery.body) | {"account": account}).encode()
    return replace(delivery, body=body)


def everything(loop: Loop, user: User) -> list[Delivery]:
    """All events of a payment, a refund and a dispute."""
    session_id = loop.session_of(loop.buy(user.user_id))
    loop.offline.pay(session_id)
    loop.refund_at_stripe(session_id, 100)
    loop.offline.open_dispute(loop.charge_of(session_id), amount=50)
    return loop.webhooks()


@pytest.mark.parametrize("accounts", ["", OURS])
def test_the_events_of_another_account_are_kept_and_ignored(
    db: Session, loop: Loop, user: User, accounts: str
) -> None:
    """Whatever they say: nothing is credited, taken back or listed, and Stripe is not asked."""
    told = everything(loop, user)
    shop, client = acting_for(loop, accounts)
    answers = shop.deliver([of_account(each, THEIRS) for each in told])
    assert set(answers) == {EventAnswer.IGNORED}
    assert booked_balance(db, user.user_id) == 0
    for model in (Transaction, StripeReversal, UnmatchedPayment):
        assert db.scalars(select(func.count()).select_from(model)).one() == 0
    assert client.accounts == []
    rows = db.scalars(select(StripeEvent)).all()
    assert {(each.status, each.remark) for each in rows} == {("ignored", "CONNECTED_ACCOUNT")}
    assert len(rows) == len(told)
    assert all(each.body for each in rows)


def test_the_events_of_an_account_we_act_for_are_settled_in_its_name(
    db: Session, loop: Loop, user: User
) -> None:
    """As our own are; what Stripe is asked for is the account's."""
    told = everything(loop, user)
    shop, client = acting_for(loop, f"{OURS}, acct_more")
    shop.deliver([of_account(each, OURS) for each in told])
    assert booked_balance(db, user.user_id) == 350
    assert set(client.accounts) == {OURS}


def test_our_own_events_name_no_account(db: Session, loop: Loop, user: User) -> None:
    """NULL, or not there at all: settled, whatever the setting says."""
    told = everything(loop, user)
    shop, client = acting_for(loop, OURS)
    shop.deliver([of_account(each, None) for each in told])
    assert booked_balance(db, user.user_id) == 350
    assert set(client.accounts) == {None}


@pytest.mark.parametrize("written", ["acct", "acct_1;acct_2", "all", "acct_1,,acct_2"])
def test_what_is_no_account_is_refused(written: str) -> None:
    """At the start, naming the setting."""
    with pytest.raises(SettingsError, match="STRIPE_CONNECTED_ACCOUNTS"):
        load_settings(stripe_connected_accounts=written)


def test_a_gateway_that_asks_nothing_asks_nothing_for_others_either() -> None:
    """Whatever kind of gateway it is, for an account it is the same kind."""
    client = Overheard(OfflineStripe())
    unasked = UnaskedGateway().for_account(OURS)
    with pytest.raises(StripeNeeded):
        asyncio.run(unasked.retrieve_charge("ch_x"))
    plain = Gateway(stripe.StripeClient("sk_test_1", http_client=client), 5)
    assert asyncio.run(plain.for_account(OURS).retrieve_charge("ch_x")) is None
    assert asyncio.run(plain.retrieve_charge("ch_x")) is None
    assert client.accounts == [OURS, None]
