"""Webhooks while Stripe is silent: each is answered within three seconds, and lost is none."""

import json
from typing import Any

import pytest
import stripe
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from src.common.async_database import run_in_async_database_transaction
from src.common.models.stripe_event import StripeEvent
from src.common.stripe import processing
from src.common.stripe.processing import Processor
from src.offline_stripe import InProcessClient, OfflineStripe
from tests.api.stripe_side import Silent, buy, offline_stripe, open_stripe
from tests.fixtures.api import Api, StartApi, balance_of, fetch, make_user

NEVER = 600.0
ASKING = {"payment_intent.succeeded", "charge.refunded"}
"""Types that say too little to be settled without Stripe's answer."""


async def silenced(api: Api, monkeypatch: pytest.MonkeyPatch) -> tuple[OfflineStripe, Any]:
    """Two purchases, one refunded in part and one disputed, that nobody told us of."""
    offline = offline_stripe(api)
    user = await make_user()
    refunded, disputed = [await buy(api, offline, user.user_id) for _ in range(2)]
    at_stripe = stripe.StripeClient("sk_test_1", http_client=InProcessClient(offline))
    at_stripe.v1.refunds.create({"charge": charge_of(offline, refunded), "amount": 200})
    offline.open_dispute(charge_of(offline, disputed))
    open_stripe(api, Silent(offline), timeout_seconds=NEVER)
    monkeypatch.setattr(processing, "ASKING_SECONDS", 0.05)
    return offline, user.user_id


def charge_of(offline: OfflineStripe, session_id: str) -> str:
    """The charge that paid a session."""
    payment = offline.get(str(offline.get(session_id)["payment_intent"]))
    return str(payment["latest_charge"])


async def rows() -> list[tuple[str, str, int, bool, bool]]:
    """Each event: type, status, attempts, whether it waits for Stripe, whether somebody has it."""

    def work(session: Session) -> list[Any]:
        found = session.execute(
            select(
                StripeEvent.type,
                StripeEvent.status,
                StripeEvent.attempts,
                StripeEvent.needs_lookup,
                StripeEvent.lease_expires_at.is_not(None),
            )
        )
        return [tuple(row) for row in found]

    return await run_in_async_database_transaction(work)


async def test_whatever_needs_stripe_is_accepted_and_left_to_the_worker(
    start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent twice it is as well; what needs no answer is settled; then all is as Stripe says."""
    api = await start_api()
    offline, user_id = await silenced(api, monkeypatch)
    due = offline.webhooks.due()
    asking = [each for each in due if each.event_type in ASKING]
    assert {each.event_type for each in asking} == ASKING
    for _ in range(2):
        for each in asking:
            answer = await api.deliver(json.loads(each.body))
            assert (answer.status_code, answer.json()) == (200, {"status": "accepted"})
        assert {row[1:] for row in await rows()} == {("received", 0, True, False)}
    for each in due:
        if each not in asking:
            answer = await api.deliver(json.loads(each.body))
            assert answer.status_code == 200
            if each.event_type == "checkout.session.completed":
                assert answer.json() == {"status": "processed"}
    waiting = sum(row[1] == "received" for row in await rows())

    open_stripe(api, InProcessClient(offline))
    state = api.app.state
    worker = Processor(run_in_async_database_transaction, state.gateway, state.settings)
    assert await worker.settle_due(needs_lookup=True) == waiting
    open_events = select(func.count(StripeEvent.event_id)).where(
        StripeEvent.status.in_(("received", "failed"))
    )
    assert await fetch(open_events) == 0
    assert await balance_of(user_id) == 300


def test_three_seconds_are_enough_for_asking_and_storing() -> None:
    """What a delivery may ask takes two of them, whatever one call to Stripe may take."""
    assert processing.ASKING_SECONDS <= 2
