"""Charged endpoints, streams and Stripe's side over HTTP, for users of different groups."""

import asyncio
import uuid
from collections import Counter
from functools import partial
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import func, select

from src.api.src import balance_streams
from src.api.src.charging import charge
from src.common.credits.operations import execute
from src.common.credits.reservation import Reservation
from src.common.database import SessionLocal, run_in_database_transaction
from src.common.models import ChargedRequest, RefundRequest, Transaction
from src.common.routing import routed_to
from src.offline_stripe import OfflineStripe
from tests.api.event_streams import watching
from tests.api.stripe_side import buy, click, offline_stripe, sessions
from tests.api.stripe_side import deliver_all as deliver_offline
from tests.api.tokens import make_token
from tests.credits.books import spend
from tests.fixtures.api import Api, StartApi, error_type_of
from tests.sharding.conftest import GROUPS
from tests.sharding.people import balance_of, user_of
from tests.sharding.service import check_all_books, count_in_groups, people, service_key

PRICE = 10


def add_shop(app: FastAPI) -> Counter[str]:
    """An endpoint that charges, and one that fails; how often each user's ran."""
    runs = Counter[str]()

    @app.post("/api/v1/render")
    async def render(held: Annotated[Reservation, Depends(charge(PRICE))]) -> dict[str, Any]:
        runs[str(held.user_id)] += 1
        return {"hold": held.hold_seq}

    @app.post("/api/v1/broken")
    async def broken(_held: Annotated[Reservation, Depends(charge(PRICE))]) -> None:
        raise HTTPException(418)

    return runs


async def test_charged_endpoints_charge_whoever_asks(start_service: StartApi) -> None:
    """Once for a key, however often it is sent; what fails is given back."""
    users = people(3, 100)
    api = await start_service()
    runs = add_shop(api.app)

    async def ask(user_id: uuid.UUID, path: str, key: str) -> int:
        answer = await api.call("POST", path, make_token(user_id), headers={"Idempotency-Key": key})
        return answer.status_code

    for _ in range(2):
        for user_id in users:
            assert await ask(user_id, "/render", "one") == 200
            assert await ask(user_id, "/broken", "two") == 418
    assert [balance_of(each) for each in users] == [100 - PRICE] * len(users)
    assert runs == {str(each): 1 for each in users}
    at_once = [ask(user_id, "/render", f"key-{n}") for n in range(4) for user_id in users]
    assert set(await asyncio.gather(*at_once)) == {200}
    assert [balance_of(each) for each in users] == [100 - 5 * PRICE] * len(users)
    service = await api.call("POST", "/render", service_key(), headers={"X-User-ID": str(users[0])})
    assert service.status_code == 200
    assert balance_of(users[0]) == 100 - 6 * PRICE
    assert set(count_in_groups(ChargedRequest)) == set(GROUPS[:2])
    assert check_all_books() == len(users)


async def test_a_service_that_charges_nobody_we_know_is_told(start_service: StartApi) -> None:
    """USER_NOT_FOUND, and the endpoint does not run."""
    api = await start_service()
    runs = add_shop(api.app)
    answer = await api.call(
        "POST", "/render", service_key(), headers={"X-User-ID": str(uuid.uuid4())}
    )
    assert (answer.status_code, error_type_of(answer)) == (404, "USER_NOT_FOUND")
    assert not runs


async def test_balances_of_several_groups_are_streamed(
    start_service: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One's own, and a user's of another group by an administrator; rights are looked at too."""
    monkeypatch.setattr(balance_streams, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(balance_streams, "RIGHTS_SECONDS", 0)
    ada, bob = people(1, 50)
    admin = user_of(GROUPS[5], user_type="admin")
    api = await start_service()

    def path(user_id: uuid.UUID) -> str:
        return f"/user/{user_id}/credits/stream"

    async with (
        watching(api.app, path(ada), make_token(ada)) as of_ada,
        watching(api.app, path(bob), make_token(admin)) as of_bob,
        watching(api.app, path(bob), service_key()) as of_bob_by_service,
    ):
        for stream in (of_ada, of_bob, of_bob_by_service):
            assert (await stream.event())[1]["balance"] == 50
        for user_id in (ada, bob):
            with routed_to(user_id):
                run_in_database_transaction(partial(execute, commands=[spend(user_id, 20)]))
        for stream in (of_ada, of_bob, of_bob_by_service):
            assert (await stream.event())[1]["balance"] == 30


async def bought_by(api: Api, offline: OfflineStripe, user_id: uuid.UUID) -> Transaction:
    """The newest purchase of a user, after one more."""
    await buy(api, offline, user_id)
    await deliver_offline(api, offline)
    newest = select(Transaction).where(Transaction.user_id == user_id)
    with routed_to(user_id), SessionLocal() as session:
        return session.scalars(newest.order_by(Transaction.created_at.desc()).limit(1)).one()


async def test_buying_and_refunding_in_different_groups(start_service: StartApi) -> None:
    """Order, pay page, webhook, confirm, refund: each where the user is."""
    users = people(1)
    api = await start_service()
    offline = offline_stripe(api)
    key = service_key()
    for user_id in users:
        bought = await bought_by(api, offline, user_id)
        assert balance_of(user_id) == 500
        confirmed = await api.call(
            "POST",
            f"/checkout-session/{bought.stripe_session_id}/confirm",
            make_token(user_id),
        )
        assert confirmed.json() == {"status": "credited"}
        path = f"/transactions/{bought.transaction_id}/refund"
        for replayed in (False, True):
            refunded = await api.call(
                "POST", path, key, json={"amount_cents": 200}, headers={"Idempotency-Key": "r"}
            )
            assert refunded.json()["amount_cents"] == 200, refunded.text
            assert ("idempotent-replayed" in refunded.headers) is replayed
        assert balance_of(user_id) == 300
        await deliver_offline(api, offline)
        assert balance_of(user_id) == 300
        page = (await api.get(f"/user/{user_id}/transactions", make_token(user_id))).json()
        assert [each["refunded_cents"] for each in page["items"]] == [200]
    assert count_in_groups(RefundRequest) == dict.fromkeys(GROUPS[:2], 1)
    unknown = await api.call(
        "POST",
        f"/transactions/{uuid.uuid4()}/refund",
        key,
        json={},
        headers={"Idempotency-Key": "r"},
    )
    assert (unknown.status_code, error_type_of(unknown)) == (404, "TRANSACTION_NOT_FOUND")


async def test_another_group_s_session_is_nobody_else_s_to_confirm(
    start_service: StartApi,
) -> None:
    """Not found, as ever; and its own customer finds it credited before any webhook."""
    ada, bob = people(1)
    api = await start_service()
    offline = offline_stripe(api)
    await click(api, ada)
    [session] = sessions(offline)
    offline.pay(session["id"])
    path = f"/checkout-session/{session['id']}/confirm"
    refused = await api.call("POST", path, make_token(bob))
    assert error_type_of(refused) == "CHECKOUT_SESSION_NOT_FOUND"
    assert (balance_of(ada), balance_of(bob)) == (0, 0)
    assert (await api.call("POST", path, make_token(ada))).json() == {"status": "credited"}
    assert (balance_of(ada), balance_of(bob)) == (500, 0)
    await deliver_offline(api, offline)
    assert balance_of(ada) == 500
    with routed_to(ada), SessionLocal() as db:
        assert db.scalars(select(func.count()).select_from(Transaction)).one() == 1
