"""The worker takes a group of users at a time: each kind of its work reaches every group."""

import asyncio
import datetime as dt
import uuid
from collections import Counter, defaultdict
from collections.abc import Coroutine

import pytest
from sqlalchemy import func, select, text, update

from src.cli import work
from src.cli.turns import InTurn
from src.cli.worker import Workers
from src.common.credits.operations import execute
from src.common.credits.verification.drift import drift
from src.common.database import SessionLocal, run_in_database_transaction
from src.common.group_turns import begin_turn
from src.common.models import (
    ChargedRequest,
    CreditLot,
    CreditNotice,
    CreditVerification,
    GroupTurn,
    NoticeEndpoint,
    NoticeSecret,
    User,
)
from src.common.models.credit_notice import NoticeType
from src.common.notices.expiring import Rounds
from src.common.postgres.routes import current_route, routed_to_schema
from src.common.routing import routed_to
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.credits.books import grant, open_hold
from tests.notices.receiver import Answering, Received, Receiver, receiving, take
from tests.sharding.conftest import GROUPS
from tests.sharding.people import user_of
from tests.sharding.service import count_in_groups, switch_triggers_off

PAST = text("clock_timestamp() - interval '1 hour'")


@pytest.fixture
def everywhere(groups: ConnectionParameters) -> list[uuid.UUID]:
    """A user of each group."""
    assert groups
    return [user_of(group) for group in GROUPS]


def booked(user_id: uuid.UUID) -> int:
    """The balance as it is booked."""
    of_user = select(User.credits_balance).where(User.user_id == user_id)
    with routed_to(user_id), SessionLocal() as session:
        return session.scalars(of_user).one()


def have_something_due(user_id: uuid.UUID) -> None:
    """Of 100 credits 40 are held; hold and lot have been over for a while."""
    then = dt.datetime.now(dt.UTC) - dt.timedelta(hours=2)
    with routed_to(user_id), SessionLocal.begin() as session:
        lot = grant(user_id, 100, expires_at=then + dt.timedelta(hours=1))
        execute(session, [lot], now=then)
        execute(session, [open_hold(user_id, 40)], now=then)


def do_all(name: str) -> int:
    """Do steps of this kind until there is nothing more at once; how many those were."""
    for steps in range(1, 1_000):
        outcome = work.WORK[name]()
        if isinstance(outcome, Coroutine):
            outcome = asyncio.run(outcome)
        if not outcome:
            return steps
    raise AssertionError("it never ends")


def test_what_is_due_is_booked_in_every_group(everywhere: list[uuid.UUID]) -> None:
    """Holds and lots, once each; then nothing is left, which takes a look at each group."""
    for user_id in everywhere:
        have_something_due(user_id)
    assert do_all("bookings") >= len(GROUPS)
    assert [booked(each) for each in everywhere] == [0] * len(GROUPS)
    assert do_all("bookings") == len(GROUPS)


def test_groups_take_turns_the_one_first_that_waited_longest(groups: ConnectionParameters) -> None:
    """Of several workers together, too; a step that fails is no reason to begin there again."""
    assert groups
    turns = [
        run_in_database_transaction(lambda session: begin_turn(session, "a kind"))
        for _ in range(12)
    ]
    assert [each and each.schema for each in turns] == [*GROUPS, *GROUPS[:4]]
    assert {each and each.groups for each in turns} == {len(GROUPS)}
    seen: list[str | None] = []

    def fail_in_the_second() -> bool:
        seen.append(current_route())
        if current_route() == GROUPS[1]:
            raise ValueError
        return False

    step = InTurn("another kind", fail_in_the_second)
    for _ in range(len(GROUPS)):
        try:
            step()
        except ValueError:
            continue
    assert seen == GROUPS
    with SessionLocal() as session:
        assert session.scalars(select(func.count()).select_from(GroupTurn)).one() == 16


def test_workers_at_once_reach_every_group(everywhere: list[uuid.UUID]) -> None:
    """Two processes' worth of threads: everything is booked once, whoever does it."""
    for user_id in everywhere:
        have_something_due(user_id)
    several = [Workers(0.05, once=True) for _ in range(2)]
    for workers in several:
        workers.start()
    for workers in several:
        workers.wait()
        workers.stop(60)
        assert not workers.has_failed
    assert [booked(each) for each in everywhere] == [0] * len(GROUPS)
    for user_id in everywhere:
        with routed_to(user_id), SessionLocal() as session:
            kinds = Counter(session.scalars(text("SELECT kind FROM credit_entries")))
        assert kinds == {"grant": 1, "hold": 1, "hold_expiry": 1, "lot_expiry": 1}


def test_books_of_every_group_are_verified(
    everywhere: list[uuid.UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass goes through all users, a slice at a time, and finds whose books differ."""
    monkeypatch.setenv("CREDITS_VERIFY_SLICE_USERS", "3")
    monkeypatch.setenv("CREDITS_VERIFY_INTERVAL_SECONDS", "1")
    get_settings.cache_clear()
    for user_id in everywhere:
        with routed_to(user_id), SessionLocal.begin() as session:
            execute(session, [grant(user_id, 60)])
    with routed_to(everywhere[5]), SessionLocal.begin() as session:
        switch_triggers_off(session)
        session.execute(update(CreditLot).values(remaining=59))
    for _ in range(4):
        work.verify_slice()
        with SessionLocal.begin() as session:
            session.execute(update(CreditVerification).values(next_slice_at=PAST))
    with SessionLocal() as session:
        row = session.scalars(select(CreditVerification)).one()
        assert (row.last_pass_users, row.last_pass_differing_users) == (len(GROUPS), 1)
        assert drift(session).users == 1


async def take_late(_request: Received) -> tuple[int, dict[str, str]]:
    """Take whatever comes, after the group's turn is over."""
    await asyncio.sleep(0.3)
    return 204, {}


@pytest.mark.parametrize("answering", [take, take_late])
def test_notices_of_every_group_are_delivered(
    everywhere: list[uuid.UUID], monkeypatch: pytest.MonkeyPatch, answering: Answering
) -> None:
    """Once each; what happens later too, and credits that will expire are told of.

    What was begun in a group's turn is waited for, and not sent again in the next.
    """
    monkeypatch.setattr(work, "SERVED_SECONDS", 0.1 if answering is take_late else 5.0)
    begun: defaultdict[str | None, Rounds] = defaultdict(Rounds)  # by a process, just now
    monkeypatch.setattr(work, "EXPIRING", begun)

    async def deliver() -> Receiver:
        async with receiving(answering) as receiver:
            with SessionLocal.begin() as session:
                endpoint = NoticeEndpoint(
                    url=receiver.url,
                    types=[str(NoticeType.GRANTED), str(NoticeType.EXPIRING)],
                    expiring_lead_seconds=86_400,
                )
                session.add(endpoint)
                session.flush()
                session.add(NoticeSecret(endpoint_id=endpoint.endpoint_id, secret=bytes(32)))
            for user_id in everywhere:
                with routed_to(user_id), SessionLocal.begin() as session:
                    soon = dt.datetime.now(dt.UTC) + dt.timedelta(hours=2)
                    execute(session, [grant(user_id, 5, expires_at=soon)])
            while work.WORK["expiring"]():
                pass
            going_on = True
            while going_on:
                step = work.WORK["deliveries"]()
                assert isinstance(step, Coroutine)
                going_on = await step
            return receiver

    receiver = asyncio.run(deliver())
    taken = Counter(each.payload["type"] for each in receiver.taken)
    assert taken == {NoticeType.GRANTED: len(GROUPS), NoticeType.EXPIRING: len(GROUPS)}
    assert {each.user for each in receiver.taken} == {str(each) for each in everywhere}
    for group in GROUPS:
        with routed_to_schema(group), SessionLocal() as session:
            came = select(CreditNotice.status, CreditNotice.attempts)
            assert {*session.execute(came).all()} == {("delivered", 1)}


def test_what_is_old_is_dropped_in_every_group(everywhere: list[uuid.UUID]) -> None:
    """Answers of charged requests that nobody can ask for again."""
    for user_id in everywhere:
        with routed_to(user_id), SessionLocal.begin() as session:
            session.add(
                ChargedRequest(
                    user_id=user_id,
                    key_digest=bytes(32),
                    request_digest=bytes(32),
                    claim_id=uuid.uuid4(),
                    hold_seq=2,
                    expires_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
                )
            )
    do_all("bodies")
    assert count_in_groups(ChargedRequest) == {}
