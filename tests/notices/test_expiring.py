"""Credits that will expire: each endpoint is told of each lot once, within its lead."""

import datetime as dt
import uuid
from collections.abc import Callable
from typing import TypeVar

import pytest
from sqlalchemy import func, update
from sqlalchemy.orm import Session

from src.common.credits.domain.commands import Grant, Spend
from src.common.database import SessionLocal
from src.common.models.credit_notice import CreditNotice, NoticeType
from src.common.models.notice_endpoint import NoticeEndpoint
from src.common.notices import retention
from src.common.notices.expiring import ROUND_SECONDS, Rounds, tell
from src.local_postgres import ConnectionParameters
from tests.credits.ledger import at, do, someone
from tests.notices.outbox import add_endpoint, notices_of

HOUR, DAY = 3_600, 86_400
T = TypeVar("T")


def tell_all(db: Session, endpoint_id: uuid.UUID, now: float = 0, *, limit: int = 500) -> int:
    """A whole round for one endpoint, `now` seconds after the start."""
    written, after = tell(db, endpoint_id=endpoint_id, now=at(now), limit=limit)
    total = written
    while after is not None:
        written, after = tell(db, endpoint_id=endpoint_id, after=after, now=at(now), limit=limit)
        total += written
    return total


def an_endpoint(db: Session, lead_seconds: int = DAY) -> uuid.UUID:
    """One that is told of nothing else."""
    return add_endpoint(db, NoticeType.EXPIRING, expiring_lead_seconds=lead_seconds)


def give(db: Session, user_id: uuid.UUID, expires: float | None, amount: int = 5) -> int:
    """A lot that expires so many seconds after the start; its `seq`."""
    expires_at = None if expires is None else at(expires)
    return do(db, Grant, user_id, amount=amount, expires_at=expires_at).seq


def test_a_lot_is_told_of_once_within_the_lead(db: Session) -> None:
    """Not before, not again, not of lots without an end, and with what remains of it."""
    endpoint_id = an_endpoint(db)
    user_id = someone(db)
    soon = give(db, user_id, 2 * DAY, 50)
    give(db, user_id, 5 * DAY)
    give(db, user_id, None)
    do(db, Spend, user_id, amount=20)
    assert tell_all(db, endpoint_id, DAY - 1) == 0
    assert tell_all(db, endpoint_id, DAY) == 1
    assert tell_all(db, endpoint_id, DAY + HOUR) == 0
    [notice] = notices_of(db)
    assert (notice.user_id, notice.seq, notice.created_at) == (user_id, soon, at(DAY))
    assert notice.data == {
        "user_id": str(user_id),
        "lot_seq": soon,
        "source": "promo",
        "transaction_id": None,
        "remaining": 30,
        "expires_at": "2020-01-03T00:00:00.000000Z",
    }


def test_each_endpoint_has_its_own_lead(db: Session) -> None:
    """One a day before, the other an hour before."""
    early, late = an_endpoint(db, DAY), an_endpoint(db, HOUR)
    give(db, someone(db), DAY)
    assert (tell_all(db, early), tell_all(db, late)) == (1, 0)
    assert (tell_all(db, early, DAY - HOUR), tell_all(db, late, DAY - HOUR)) == (0, 1)


def test_what_is_spent_or_expired_is_no_news(db: Session) -> None:
    """Nor is anything for an endpoint that is disabled, or is not told of it, or is gone."""
    endpoint_id = an_endpoint(db)
    user_id = someone(db)
    give(db, user_id, HOUR)
    do(db, Spend, user_id, amount=5)
    other = someone(db)
    give(db, other, HOUR)
    assert tell_all(db, endpoint_id, HOUR) == 0
    assert tell_all(db, add_endpoint(db, NoticeType.GRANTED)) == 0
    assert tell_all(db, uuid.UUID(int=9)) == 0
    off = {"disabled_at": func.now(), "disabled_reason": "it is gone"}
    db.execute(update(NoticeEndpoint).values(**off))
    assert tell_all(db, endpoint_id) == 0
    db.execute(update(NoticeEndpoint).values(disabled_at=None, disabled_reason=None))
    assert tell_all(db, endpoint_id) == 1


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_a_round_goes_through_all_in_steps(db: Session, limit: int) -> None:
    """Whatever a step's size, also where lots expire at one instant; the next finds a new lot."""
    endpoint_id = an_endpoint(db)
    people = [someone(db) for _ in range(3)]
    for user_id in people:
        for expires in (HOUR, HOUR, 2 * HOUR):
            give(db, user_id, expires)
    assert tell_all(db, endpoint_id, limit=limit) == 9
    give(db, people[0], HOUR)
    assert tell_all(db, endpoint_id, limit=limit) == 1
    assert tell_all(db, endpoint_id, limit=limit) == 0


def test_rounds_begin_every_few_minutes(db: Session) -> None:
    """A round ends when every endpoint was told; until the next begins, nothing is looked for."""
    now = 0.0
    rounds = Rounds(clock=lambda: now)

    def in_transaction(work: Callable[[Session], T], /) -> T:
        return work(db)

    def run() -> int:
        total, is_more = 0, True
        while is_more:
            written, is_more = rounds.step(in_transaction)
            total += written
        return total

    assert run() == 0  # there is no endpoint yet
    an_endpoint(db)
    an_endpoint(db)
    expires_at = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    do(db, Grant, someone(db), amount=5, expires_at=expires_at)
    assert run() == 0
    now += ROUND_SECONDS
    assert run() == 2
    now += ROUND_SECONDS - 1
    do(db, Grant, someone(db), amount=5, expires_at=expires_at)
    assert run() == 0
    now += 1
    assert run() == 2


def test_what_was_told_is_known_until_the_lot_expires(db: Session) -> None:
    """However long ago it was delivered."""
    endpoint_id = an_endpoint(db, 100 * DAY)
    far = dt.datetime.now(dt.UTC) + dt.timedelta(days=90)
    do(db, Grant, someone(db), amount=5, expires_at=far)
    assert tell(db, endpoint_id=endpoint_id) == (1, None)
    long_ago = func.now() - dt.timedelta(days=60)
    db.execute(
        update(CreditNotice).values(status="delivered", next_attempt_at=None, finished_at=long_ago)
    )
    assert retention.drop_old(db, kept_days=30) == 0
    assert tell(db, endpoint_id=endpoint_id) == (0, None)
    expired = CreditNotice.data.concat({"expires_at": "2020-01-01T00:00:00.000000Z"})
    db.execute(update(CreditNotice).values(data=expired))
    assert retention.drop_old(db, kept_days=30) == 1


def test_a_user_whose_row_is_locked_is_left_to_the_next_round(
    fresh_database: ConnectionParameters,
) -> None:
    """Nobody is waited for; two who tell at once tell each lot once."""
    assert fresh_database
    with SessionLocal() as first, SessionLocal() as second:
        endpoint_id = an_endpoint(first)
        ada, bob = someone(first), someone(first)
        for user_id in (ada, bob):
            give(first, user_id, HOUR)
        first.commit()
        do(second, Spend, ada, amount=1)  # and its row stays locked
        assert tell_all(first, endpoint_id) == 1
        first.commit()
        second.commit()
        assert tell_all(first, endpoint_id) == 1
        assert tell_all(second, endpoint_id) == 0  # ada's row is locked by the first
        first.commit()
        assert tell_all(second, endpoint_id) == 0
        assert {each.user_id: each.data["remaining"] for each in notices_of(second)} == {
            ada: 4,
            bob: 5,
        }
