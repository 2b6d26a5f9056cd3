"""Stored events settled together: the same rows as one by one, whatever fails or ends meanwhile."""

import asyncio
import datetime as dt
import uuid
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import asyncpg
import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from src.common.credits.operations import execute
from src.common.database import SessionLocal
from src.common.exceptions import DatabaseBusy
from src.common.models.stripe_event import StripeEvent
from src.common.models.transaction import Transaction
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.stripe import attempts, inbox
from src.common.stripe.batches import backlog
from src.common.stripe.processing import Processor
from src.common.stripe.wire import parse_event
from src.local_postgres import ConnectionParameters
from tests.credits.books import booked_balance, check_books, grant, make_user
from tests.credits.verification.test_verify import corrupt
from tests.stripe.batches.histories import History
from tests.stripe.loop import start_loop
from tests.stripe.payments import make_event, make_session, to_body

YESTERDAY = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)


def store(session: Session, bodies: list[bytes]) -> None:
    """As an endpoint that came no further; due in this order."""
    for number, body in enumerate(bodies):
        event = parse_event(body)
        assert inbox.store_event(session, event, body)
        due_at = YESTERDAY + dt.timedelta(seconds=number)
        session.execute(
            update(StripeEvent)
            .where(StripeEvent.event_id == event.id)
            .values(lease_expires_at=None, next_attempt_at=due_at)
        )


async def one_by_one(processor: Processor) -> None:
    """The road that every event took before there were batches."""
    claim = partial(attempts.claim_next, needs_lookup=False)

    def next_of(session: Session) -> tuple[bool, str, bytes | None] | None:
        row = claim(session)
        return None if row is None else (row.livemode, row.event_id, row.body)

    while (claimed := await processor.in_database(next_of)) is not None:
        await processor.without_asking().try_claimed(*claimed)


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Batches of this size, down to one."""

    def of(size: int) -> None:
        monkeypatch.setattr(backlog, "EVENTS_MAX", size)
        monkeypatch.setattr(backlog, "FEW", 0)

    return of


@pytest.mark.parametrize("seed", range(6))
def test_any_mixture_ends_as_one_by_one(
    fresh_database: ConnectionParameters, chunks: Callable[[int], None], seed: int
) -> None:
    """Two histories of the same seed, one settled in batches: the same rows, and books balance."""
    assert fresh_database
    processor = start_loop().processor
    with SessionLocal.begin() as session:
        alone = History(session, "alone", seed)
        store(session, alone.bodies)
    asyncio.run(one_by_one(processor))
    chunks((1, 3, 7, 16, 100, 100)[seed])
    with SessionLocal.begin() as session:
        together = History(session, "together", seed)
        store(session, together.bodies)
    asyncio.run(backlog.settle_backlog(processor))
    for _ in range(2):  # what asks Stripe, of both
        asyncio.run(processor.settle_due(needs_lookup=True))
    with SessionLocal() as session:
        expected, found = alone.rows(session), together.rows(session)
        for table, rows in expected.items():
            assert found[table] == rows, table
        check_books(session)


@pytest.fixture
def payments(
    fresh_database: ConnectionParameters, chunks: Callable[[int], None]
) -> list[dict[str, Any]]:
    """Twelve events of four users, three each; stored, and to be settled in batches of them all."""
    assert fresh_database
    chunks(100)
    with SessionLocal.begin() as session:
        users = [make_user(session).user_id for _ in range(4)]
        events = [make_event(make_session(user_id)) for user_id in users * 3]
        store(session, [to_body(event) for event in events])
    return events


def balances(events: list[dict[str, Any]]) -> list[int]:
    """Of those whom the first four events are of."""
    with SessionLocal() as session:
        of = [event["data"]["object"]["metadata"]["user_id"] for event in events[:4]]
        return [booked_balance(session, user_id) for user_id in of]


def statuses() -> dict[str, int]:
    """How many events have each status."""
    with SessionLocal() as session:
        rows = session.execute(
            select(StripeEvent.status, func.count()).group_by(StripeEvent.status)
        )
        return {status: number for status, number in rows}  # noqa: C416  the types of both


Act = Callable[[Any, str], bool]
"""What to do before a statement of a batch; whether its answer is lost."""


@contextmanager
def interrupted(act: Act) -> Generator[None]:
    """Do it before each statement on the batches' connection, BEGIN and COMMIT too."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("execute", "fetch"):
            patch.setattr(asyncpg.Connection, name, _acting(act, name))
        yield


def _acting(act: Act, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    original = getattr(asyncpg.Connection, name)

    async def acting(connection: Any, sql: str, *arguments: Any, **options: Any) -> Any:
        is_own = sql.startswith("BEGIN; SET LOCAL") or (
            connection.is_in_transaction() and sql != "ROLLBACK;"  # SQLAlchemy's, of its own
        )
        is_lost = is_own and act(connection, sql)
        result = await original(connection, sql, *arguments, **options)
        if is_lost:
            connection.terminate()
            raise ConnectionResetError("its answer never came")
        return result

    return acting


def test_a_batch_is_one_database_transaction(payments: list[dict[str, Any]]) -> None:
    """Every plain kind of event: begun, locked, read, written, committed, and nothing more.

    A new connection looks first whether a COMMIT is to wait for standbys.
    """
    with SessionLocal.begin() as session:
        paid = payments[0]["data"]["object"]
        user_id = uuid.UUID(paid["metadata"]["user_id"])
        strangers: list[dict[str, Any]] = [
            make_session(user_id, metadata={"env": "elsewhere"}),
            make_session(user_id, currency="eur"),
            make_session(user_id) | {"metadata": {}},
        ]
        others = [*(make_event(each) for each in strangers), make_event(paid, "product.created")]
        store(session, [to_body(event) for event in others])
    asked: list[str] = []

    def note(_connection: Any, sql: str) -> bool:
        asked.append(sql.split(maxsplit=1)[0])
        return False

    with interrupted(note):
        tried = asyncio.run(backlog.settle_backlog(start_loop().processor))
    assert tried == len(payments) + len(others)
    assert asked == ["BEGIN;", "SELECT", "WITH", "WITH", "SELECT", "COMMIT"]
    assert balances(payments) == [1_500] * 4
    assert statuses() == {"processed": 12, "unmatched": 3, "ignored": 1}
    with SessionLocal() as session:
        rows = session.scalars(select(UnmatchedPayment).order_by(UnmatchedPayment.reason)).all()
        reasons = [each.reason for each in rows]
        assert reasons == ["CURRENCY_MISMATCH", "ENVIRONMENT_MISMATCH", "ENVIRONMENT_MISMATCH"]
        assert {each.status for each in rows} == {"open"}
        assert {each.event_id for each in rows} == {each["id"] for each in others[:3]}


class _Killed(BaseException):
    """The process is gone; the database undoes what was not committed."""


@pytest.mark.parametrize("step", range(5))
@pytest.mark.parametrize("how", ["killed", "disconnected", "unanswered"])
def test_an_end_at_any_step_loses_and_doubles_nothing(
    payments: list[dict[str, Any]], how: str, step: int
) -> None:
    """At each statement, BEGIN and COMMIT: whoever comes next ends it, and nothing is left."""
    seen = 0

    def end(connection: Any, _sql: str) -> bool:
        nonlocal seen
        seen += 1
        if seen != step + 1:
            return False
        if how == "killed":
            raise _Killed
        if how == "disconnected":
            connection.terminate()
        return how == "unanswered"

    with interrupted(end), suppress(_Killed, DatabaseBusy):
        asyncio.run(backlog.settle_backlog(start_loop().processor))
    assert seen > step
    with SessionLocal.begin() as session:
        unsettled = update(StripeEvent).where(StripeEvent.status.in_(("received", "failed")))
        session.execute(unsettled.values(lease_expires_at=None, next_attempt_at=YESTERDAY))
    asyncio.run(backlog.settle_backlog(start_loop().processor))
    assert statuses() == {"processed": 12}
    assert balances(payments) == [1_500] * 4
    with SessionLocal() as session:
        check_books(session)
        assert session.scalars(select(func.count(Transaction.transaction_id))).one() == len(
            payments
        )


def test_one_whose_books_cannot_be_written_fails_alone(payments: list[dict[str, Any]]) -> None:
    """The database refuses one user's: those events' rows say why, the others are paid."""
    at_fault = uuid.UUID(payments[1]["data"]["object"]["metadata"]["user_id"])
    with SessionLocal.begin() as session:
        execute(session, [grant(at_fault, 10)])
    corrupt("UPDATE users SET credits_balance = 11 WHERE user_id = :user_id", at_fault)
    asyncio.run(backlog.settle_backlog(start_loop().processor))
    assert balances(payments) == [1_500, 11, 1_500, 1_500]
    assert statuses() == {"processed": 9, "failed": 3}
    with SessionLocal() as session:
        errors = session.scalars(select(StripeEvent.error).where(StripeEvent.status == "failed"))
        assert all("LEDGER_UNBALANCED" in str(each) for each in errors)


def test_one_that_was_tried_often_goes_by_itself(payments: list[dict[str, Any]]) -> None:
    """It may be what ended the process: it is not claimed with others."""
    often = parse_event(to_body(payments[0])).id
    with SessionLocal.begin() as session:
        row = update(StripeEvent).where(StripeEvent.event_id == often)
        session.execute(row.values(attempts=attempts.TOGETHER_ATTEMPTS_MAX))
        claimed = attempts.claim_several(session, limit=100)
        assert len(claimed) == len(payments) - 1
        assert often not in {event_id for _, event_id, _ in claimed}
        rows = session.scalars(select(StripeEvent).where(StripeEvent.attempts == 2)).all()
        now = session.scalars(select(func.clock_timestamp())).one()
        assert len(rows) == len(claimed)
        for each in rows:
            assert each.next_attempt_at is not None
            assert each.lease_expires_at is not None
            assert 0 < (each.next_attempt_at - now).total_seconds() <= 2
            assert 30 < (each.lease_expires_at - now).total_seconds() <= 60
        assert attempts.claim_several(session, limit=100) == []
