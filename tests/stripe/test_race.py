"""Fifty deliveries of one payment at once, to several server processes: one increase."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import httpx
from sqlalchemy import func, select

from src.common.models.stripe_event import StripeEvent
from src.common.models.transaction import Transaction
from src.common.stripe.signatures import sign
from src.local_postgres import ConnectionParameters, free_port
from tests.cli.processes import Program
from tests.fixtures.api import WEBHOOK_SECRET, StartApi, balance_of, fetch, make_user
from tests.fixtures.databases import environment_of
from tests.stripe.payments import COMPLETED, SUCCEEDED, make_event, make_session

DELIVERIES = 50


async def deliver_at_once(
    client: httpx.AsyncClient, bodies: list[str], servers: Sequence[str] = ("",)
) -> Counter[str]:
    """POST all bodies at once, to the servers by turns; how often each answer, all of them 200."""
    answers = await asyncio.gather(
        *(
            client.post(
                f"{server}/api/v1/webhook",
                content=body,
                headers={"Stripe-Signature": sign(body, WEBHOOK_SECRET)},
            )
            for server, body in zip(cycle(servers), bodies, strict=False)
        )
    )
    assert {answer.status_code for answer in answers} == {200}
    return Counter(answer.json()["status"] for answer in answers)


async def test_fifty_deliveries_to_several_processes_are_one_increase(
    fresh_database: ConnectionParameters, tmp_path: Path
) -> None:
    """Both kinds of event and copies of them, over many connections: credited exactly once."""
    user = await make_user()
    session = make_session(user)
    events = [make_event(session, kind) for kind in (COMPLETED, SUCCEEDED)]
    bodies = [json.dumps(events[number // 2 % 2]) for number in range(DELIVERIES)]
    environment = {
        **environment_of(fresh_database),
        "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "FLASHSLIDES_DATA_DIR": str(tmp_path / "data"),
    }
    program = Program(tmp_path, environment)
    port, other_port = free_port(), free_port() + 1
    with program.serve(port), program.serve(other_port, "--workers", "2"):
        servers = [f"http://127.0.0.1:{number}" for number in (port, other_port)]
        limits = httpx.Limits(max_connections=DELIVERIES, max_keepalive_connections=0)
        async with httpx.AsyncClient(timeout=600, limits=limits, trust_env=False) as client:
            answers = await deliver_at_once(client, bodies, servers)
    assert answers == {"processed": 1, "already_processed": DELIVERIES - 1}
    assert await balance_of(user.user_id) == 500
    assert await fetch(select(func.count(Transaction.transaction_id))) == 1
    assert await fetch(select(func.count(StripeEvent.event_id))) == 2


async def test_different_payments_of_one_user_at_once_are_all_credited(
    start_api: StartApi,
) -> None:
    """Twenty payments of one user, each delivered three times: twenty increases, none lost."""
    api = await start_api()
    user = await make_user()
    events = [make_event(make_session(user)) for _ in range(20)]
    answers = await deliver_at_once(api.client, [json.dumps(event) for event in events * 3])
    assert answers == {"processed": 20, "already_processed": 40}
    assert await balance_of(user.user_id) == 10_000


async def test_one_payment_claimed_for_two_users_at_once_credits_one(start_api: StartApi) -> None:
    """Two sessions with one PaymentIntent, of users whose rows do not queue: one is a conflict."""
    api = await start_api()
    for number in range(5):
        users = [await make_user(), await make_user()]
        bodies = [
            json.dumps(make_event(make_session(user, payment_intent=f"pi_{number}")))
            for user in users
        ]
        answers = await deliver_at_once(api.client, bodies)
        assert answers == {"processed": 1, "unmatched": 1}
        assert sorted([await balance_of(user.user_id) for user in users]) == [0, 500]
