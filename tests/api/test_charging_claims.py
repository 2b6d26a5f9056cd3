"""Claims of charged requests where a commit or an answer is lost; what is kept, and how long."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from src.api.src import charging
from src.cli import work
from src.common.accounts.operations import erase_user
from src.common.async_database import run_in_async_database_transaction
from src.common.credits import charged_requests
from src.common.database import SessionLocal
from src.common.models import ChargedRequest, User
from tests.api.charging_shop import PRICE, Charged, Shop, kept_answers, losing_the_first_answer
from tests.fixtures.api import fetch


async def test_a_claim_whose_commit_was_lost_is_the_same_claim(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Done twice by whoever asks, since nobody knows whether the first was committed."""
    run = run_in_async_database_transaction

    async def run_twice(work: Callable[[Session], Any]) -> Any:
        await run(work)
        return await run(work)

    monkeypatch.setattr(charging, "run_in_async_database_transaction", run_twice)
    assert (await shop.post(json={"deck": 1})).status_code == 201
    assert await shop.paid() == PRICE


async def test_a_claim_whose_answer_was_lost_gives_its_credits_back(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503; the same request is then done, as if nothing had been before."""
    monkeypatch.setattr(charging, "run_in_async_database_transaction", losing_the_first_answer())
    assert (await shop.post(json={"deck": 1})).status_code == 503
    assert shop.runs == []
    assert (await shop.post(json={"deck": 1})).status_code == 201
    assert await shop.paid() == PRICE


async def test_nothing_is_kept_of_somebody_erased_meanwhile(shop: Shop) -> None:
    """The work is charged and answered; its answer is not kept, nor are those of before."""
    await shop.post(json={"deck": 1})
    assert await kept_answers() == 1

    async def erase(reservation: Charged) -> str:
        await run_in_async_database_transaction(
            lambda session: erase_user(session, reservation.user_id)
        )
        return "slides"

    shop.api.app.post("/api/v1/erase")(erase)
    answer = await shop.post("/erase", headers={"Idempotency-Key": "job-2"})
    assert answer.status_code == 200
    assert await fetch(select(func.count()).select_from(ChargedRequest)) == 0


def test_the_worker_removes_what_is_kept_no_longer(db: Session) -> None:
    """Expired answers and claims, and no others; a thousand at a time."""
    user = User(email="ada@example.com", password_hash="x")
    db.add(user)
    db.flush()
    now = db.scalar(select(func.now()))
    kept = {"user_id": user.user_id, "request_digest": bytes(32), "claim_id": user.user_id}
    for number, seconds in enumerate([-1, 0, 3_600]):
        values = {**kept, "hold_seq": number, "key_digest": bytes(31) + bytes([number])}
        db.add(
            ChargedRequest(**values, expires_at=now + func.make_interval(0, 0, 0, 0, 0, 0, seconds))
        )
    db.commit()
    assert charged_requests.drop_expired(db, limit=1) == 1
    assert work.drop_bodies()
    assert not work.drop_bodies()
    with SessionLocal() as session:
        assert session.scalars(select(ChargedRequest.hold_seq)).all() == [2]
