"""A batch gives what its commands one by one would give: limits, lanes and sessions in between."""

import asyncio
import datetime as dt
import uuid
from collections.abc import Generator
from itertools import product

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.credits.domain.commands import Command, Result
from src.common.credits.engine import lane
from src.common.credits.engine.engine import Engine
from src.common.credits.operations import execute, execute_each
from src.common.credits.verification.verify import verify
from src.common.database import SessionLocal, get_engine
from src.common.models.credit_entry import CreditEntry
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.credits.books import (
    allow_a_clock_ahead,
    capture,
    from_before,
    grant,
    make_user,
    open_hold,
    release,
    spend,
)
from tests.credits.clock import settable_clock
from tests.credits.engine.batching import all_at_once, running
from tests.credits.engine.engine_machine import EngineMachine
from tests.credits.machine import OWN_KINDS

pytestmark = pytest.mark.xdist_group("credits_engine_model")

EXAMPLES = 8
STEPS = 12
ROUNDS_MAX = 20
"""How often as many again, until everything has happened."""
LIMITS = (1, 3, 16, 256)
LANES = (1, 2)
HAPPENED = OWN_KINDS | {
    *("grant", "spend", "adjustment", "hold", "capture", "release", "renewal", "replay"),
    *("INSUFFICIENT_CREDITS", "HOLD_NOT_FOUND", "HOLD_CLOSED", "HOLD_EXPIRED", "USER_INACTIVE"),
    *("CAPTURE_EXCEEDS_HOLD", "IDEMPOTENCY_KEY_REUSED", "VALIDATION_ERROR"),
}


@pytest.fixture
def runner(fresh_database: ConnectionParameters) -> Generator[asyncio.Runner]:
    """An event loop beside the sync test."""
    assert fresh_database
    with asyncio.Runner() as runner:
        yield runner


async def _start(limit: int, lanes: int) -> Engine:
    changed = {"credits_engine_batch_max": limit, "credits_engine_lanes": lanes}
    engine = Engine.from_settings(get_settings().model_copy(update=changed))
    return await engine.__aenter__()


@pytest.mark.parametrize("follow_from", [1, lane.FOLLOW_FROM])
def test_batches_do_what_the_model_does(
    runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch, follow_from: int
) -> None:
    """After every step balances, lots, holds, debts, journals and answers agree; books balance.

    Also where every batch is decided while the one before it is being written.
    """
    monkeypatch.setattr(lane, "FOLLOW_FROM", follow_from)
    EngineMachine.runner = runner
    EngineMachine.operations.clear()
    EngineMachine.engines = [runner.run(_start(*each)) for each in product(LIMITS, LANES)]
    profile = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    with SessionLocal() as session:
        allow_a_clock_ahead(session)
    EngineMachine.bind = get_engine()
    with settable_clock(EngineMachine.bind):
        # What a seed draws depends on the modules that are loaded by then, and so on other tests.
        for number in range(ROUNDS_MAX):
            run_state_machine_as_test(seed(number)(EngineMachine), settings=profile)
            if EngineMachine.operations.keys() >= HAPPENED:
                break
    for engine in EngineMachine.engines:
        runner.run(engine.aclose())
    assert EngineMachine.operations.keys() >= HAPPENED
    *_, report = verify(SessionLocal)
    assert report.users >= 3
    assert report.first == []


def _a_past(session: Session) -> tuple[uuid.UUID, list[Command]]:
    """Somebody with a hold and a lot that expired meanwhile, and what they ask for now."""
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=2)
    soon = past + dt.timedelta(days=1)
    who = make_user(session).user_id
    given = [grant(who, 30), grant(who, 20, expires_at=soon), grant(who, 5, priority=1)]
    execute(session, given, now=past)
    [hold] = execute(session, [open_hold(who, 12, 3600)], now=past)
    return who, [
        capture(who, hold.seq, 3),
        capture(who, hold.seq, 3, if_expired="retake"),
        release(who, hold.seq),
        spend(who, 40),
        spend(who, 31),
    ]


def _from_before(session: Session, balance: int) -> tuple[uuid.UUID, list[Command]]:
    who = from_before(session, balance).user_id
    return who, [spend(who, 7), grant(who, 10), spend(who, 50), spend(who, 3)]


def _entries(who: uuid.UUID) -> list[tuple[object, ...]]:
    with SessionLocal() as session:
        entries = session.scalars(
            select(CreditEntry).where(CreditEntry.user_id == who).order_by(CreditEntry.seq)
        )
        return [
            (
                entry.kind,
                entry.amount,
                entry.balance_after,
                entry.result_balance,
                entry.captured,
                entry.related_seq,
                entry.effective_at == entry.created_at,
            )
            for entry in entries
        ]


def _shape(outcome: Result | BaseException) -> object:
    if isinstance(outcome, Result):
        return outcome.seq, outcome.kind, outcome.amount, outcome.captured, outcome.balance
    return repr(outcome)


@pytest.mark.parametrize("past", ["due", 25, -25])
def test_what_fell_due_and_what_was_before_is_booked_alike(
    runner: asyncio.Runner, past: str | int
) -> None:
    """Two users with the same past, one asks the engine and one a session: the same entries."""
    with SessionLocal.begin() as session:
        twins = [
            _from_before(session, past) if isinstance(past, int) else _a_past(session)
            for _ in range(2)
        ]
    (one, through_engine), (other, through_session) = twins

    async def ask() -> list[Result | BaseException]:
        async with running() as engine:
            return await all_at_once(engine, through_engine)

    answers = runner.run(ask())
    with SessionLocal.begin() as session:
        expected = execute_each(session, through_session)
    assert list(map(_shape, answers)) == list(map(_shape, expected))
    assert _entries(one) == _entries(other)
    assert len(_entries(one)) > len([each for each in expected if isinstance(each, Result)])
    *_, report = verify(SessionLocal)
    assert report.first == []
