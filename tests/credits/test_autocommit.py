"""The ledger needs a database transaction: without one nothing is done, and a sentence says so."""

from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from src.common.credits import ledger
from src.common.credits.money_back import settle_reversals
from src.common.database import SessionLocal
from src.common.exceptions import Invalid
from src.common.models.user import User
from src.common.postgres.engines import ASYNC_DRIVER, database_url
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.credits.books import booked_balance, check_books, journal, make_user, spend
from tests.models.examples import a_user

Work = Callable[[Session, User], object]


@pytest_asyncio.fixture(params=["engine", "option", "asyncpg"])
async def autocommit(
    fresh_database: ConnectionParameters, request: pytest.FixtureRequest
) -> AsyncGenerator[Callable[[Callable[[Session], object]], Any]]:
    """Runs work in a session whose every statement commits, by either driver."""
    assert fresh_database
    level = {"isolation_level": "AUTOCOMMIT"}
    if request.param == "asyncpg":
        async_engine = create_async_engine(database_url(get_settings(), ASYNC_DRIVER), **level)

        async def run_async(work: Callable[[Session], object]) -> None:
            async with AsyncSession(async_engine, expire_on_commit=False) as session:
                await session.run_sync(work)

        yield run_async
        await async_engine.dispose()
        return
    on_engine = request.param == "engine"
    engine = create_engine(database_url(get_settings()), **(level if on_engine else {}))

    async def run(work: Callable[[Session], object]) -> None:
        with Session(engine, expire_on_commit=False) as session:
            if not on_engine:
                session.connection(execution_options=level)
            work(session)

    yield run
    engine.dispose()


def up(_session: Session, user: User) -> None:
    """The document's pattern."""
    user.credits_balance += 5


def newcomer(session: Session, _user: User) -> None:
    """A user with a first balance."""
    session.add(a_user(credits_balance=5))


WORKS: dict[str, Work] = {
    "+=": up,
    "a new user": newcomer,
    "spend": lambda db, user: ledger.spend(db, user.user_id, 5, key="k"),
    "grant": lambda db, user: ledger.grant(db, user.user_id, 5, key="k"),
    "execute_each": lambda db, user: ledger.execute_each(db, [spend(user.user_id, 5)]),
    "lock_users": lambda db, user: ledger.lock_users(db, [user.user_id]),
    "money back": lambda db, user: settle_reversals(
        db, user.user_id, {1: 5}, key="~reversal:re_1", actor="system:tests"
    ),
}


def do_and_flush(session: Session, user: User, work: Work) -> None:
    """The first that is refused raises."""
    work(session, user)
    session.flush()


async def test_a_write_without_a_database_transaction_is_refused(
    autocommit: Callable[[Callable[[Session], object]], Any],
) -> None:
    """One sentence, of one type, and nothing of it is there."""
    with SessionLocal.begin() as session:
        who = make_user(session, 100).user_id

    def work(session: Session) -> None:
        for attempt in WORKS.values():
            user = session.get_one(User, who)
            with pytest.raises(Invalid, match="database transaction") as caught:
                do_and_flush(session, user, attempt)
            assert caught.value.error_type == "DATABASE_TRANSACTION_REQUIRED"
            session.expunge_all()

    await autocommit(work)
    with SessionLocal() as session:
        assert journal(session, who) == [("grant", 100)]
        assert session.query(User).count() == 1
        check_books(session)


async def test_profiles_and_reads_need_none(
    autocommit: Callable[[Callable[[Session], object]], Any],
) -> None:
    """A name is saved, a newcomer without credits is inserted, balances are read."""
    with SessionLocal.begin() as session:
        who = make_user(session, 100).user_id

    def work(session: Session) -> None:
        user = session.get_one(User, who)
        user.first_name = "Grace"
        session.add(a_user())
        session.commit()
        assert ledger.balance(session, who).balance == 100
        assert ledger.preview(session, spend(who, 30)).result.balance == 70
        assert ledger.explain(session, who).agrees
        assert len(ledger.history(session, who, cursor=None, limit=9).items) == 1

    await autocommit(work)
    with SessionLocal() as session:
        assert session.get_one(User, who).first_name == "Grace"
        assert booked_balance(session, who) == 100
        check_books(session)
