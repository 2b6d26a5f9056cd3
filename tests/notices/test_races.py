"""Many at once: exact counts, and of each user the order in which it was committed."""

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from src.common.credits.domain.commands import Command
from src.common.credits.operations import execute
from src.common.database import SessionLocal, run_in_database_transaction
from src.common.exceptions import ExceptionWithErrorType
from src.common.models import CreditNotice, NoticeEndpoint
from src.common.models.credit_notice import NoticeType
from src.common.notices import endpoints
from src.common.notices.rules import subscription
from src.local_postgres import ConnectionParameters
from tests.credits.books import grant, spend
from tests.credits.committed import balances, make_users
from tests.notices.outbox import add_endpoint, told

THREADS = 8
T = TypeVar("T")


@pytest.fixture
def pool(fresh_database: ConnectionParameters) -> Generator[ThreadPoolExecutor]:
    """Threads, each with a session of its own, on a database where commits are real."""
    assert fresh_database
    with ThreadPoolExecutor(THREADS) as threads:
        yield threads


def outcome_of(work: Callable[[Session], object]) -> str:
    """`done`, or the error's type."""
    try:
        run_in_database_transaction(work)
    except ExceptionWithErrorType as refused:
        return refused.error_type
    return "done"


def at_once(pool: ThreadPoolExecutor, works: Sequence[Callable[[Session], object]]) -> Counter[str]:
    """How often each outcome came about."""
    return Counter(pool.map(outcome_of, works))


def do(session: Session, command: Command) -> object:
    """One command."""
    return execute(session, [command])


def test_of_many_spends_one_is_told_as_the_fall(pool: ThreadPoolExecutor) -> None:
    """One `low`, one `exhausted`, a notice for each spend and none for a refusal; in order."""
    people = make_users(20, 20)
    with SessionLocal.begin() as session:
        add_endpoint(session, NoticeType.SPENT, NoticeType.LOW, NoticeType.EXHAUSTED)
    works = [partial(do, command=spend(who, 1)) for _ in range(30) for who in people]
    assert at_once(pool, works) == {"done": 40, "INSUFFICIENT_CREDITS": 20}
    with SessionLocal() as session:
        for who in people:
            mine = told(session, who)
            assert Counter(kind for kind, _ in mine) == {
                NoticeType.SPENT: 20,
                NoticeType.LOW: 1,
                NoticeType.EXHAUSTED: 1,
            }
            assert (NoticeType.LOW, 11) in mine
            assert (NoticeType.EXHAUSTED, 21) in mine
            seqs = [seq or 0 for _, seq in mine]
            assert seqs == sorted(seqs)


def test_ups_and_downs_are_told_as_often_as_they_were(pool: ThreadPoolExecutor) -> None:
    """In whatever order grants and spends came: as many falls as the journal has."""
    [who] = make_users(31)
    with SessionLocal.begin() as session:
        add_endpoint(session, NoticeType.LOW, low_threshold=10)
    works = [
        partial(do, command=command)
        for _ in range(20)
        for command in (spend(who, 3), grant(who, 2))
    ]
    at_once(pool, works)
    [left] = balances([who])
    at_once(pool, [partial(do, command=spend(who, left))] if left else [])
    falls = (
        "SELECT count(*) FROM credit_entries WHERE balance_after <= 10"
        " AND balance_after - amount > 10"
    )
    with SessionLocal() as session:
        expected = session.connection().exec_driver_sql(falls).scalar_one()
        assert len(told(session, who)) == expected
        assert expected > 0


def test_no_more_endpoints_are_made_at_once_than_there_may_be(pool: ThreadPoolExecutor) -> None:
    """Each waits for the one before."""
    wanted = subscription(
        url="https://example.com/hook",
        types=None,
        low_threshold=None,
        expiring_lead_seconds=None,
        is_local=False,
    )
    works = [partial(endpoints.create_endpoint, wanted=wanted)] * 30
    outcomes = at_once(pool, works)
    assert outcomes == {"done": endpoints.ENDPOINTS_MAX, "TOO_MANY_NOTICE_ENDPOINTS": 10}
    with SessionLocal() as session:
        assert session.scalar(select(func.count()).select_from(NoticeEndpoint)) == 20


def test_no_more_secrets_are_made_at_once_than_there_may_be(pool: ThreadPoolExecutor) -> None:
    """Of one endpoint; and exactly one of them has no end."""
    with SessionLocal.begin() as session:
        endpoint_id = add_endpoint(session, NoticeType.GRANTED)
    works = [partial(endpoints.rotate_secret, endpoint_id=endpoint_id)] * 12
    outcomes = at_once(pool, works)
    assert outcomes == {"done": 5, "TOO_MANY_NOTICE_SECRETS": 7}
    with SessionLocal() as session:
        assert len(endpoints.secrets_of(session, endpoint_id)) == 5


def test_writes_go_on_while_an_endpoint_is_made(pool: ThreadPoolExecutor) -> None:
    """Whoever makes one holds up nobody who spends; what was under way is told or not."""
    [who] = make_users(20)
    with SessionLocal() as making:
        endpoints.create_endpoint(
            making,
            subscription(
                url="https://example.com/hook",
                types=["credits.spent"],
                low_threshold=None,
                expiring_lead_seconds=None,
                is_local=False,
            ),
        )
        assert at_once(pool, [partial(do, command=spend(who, 1))] * 3) == {"done": 3}
        making.commit()
    assert at_once(pool, [partial(do, command=spend(who, 1)) for _ in range(3)]) == {"done": 3}
    with SessionLocal() as session:
        assert session.scalar(select(func.count()).select_from(CreditNotice)) == 3
