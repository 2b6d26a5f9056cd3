"""The document's own `user.credits_balance += n` keeps the books (rule 10)."""

import datetime as dt
import uuid

import pytest
from sqlalchemy import create_engine, event, select, text, update
from sqlalchemy.orm import Session, load_only, sessionmaker

from src.common.async_database import get_async_db
from src.common.credits.operations import execute
from src.common.database import SessionLocal
from src.common.models import Base
from src.common.models.credit_lot import LotSource
from src.common.models.user import User
from src.common.postgres.engines import database_url
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.credits.books import (
    InSession,
    booked_balance,
    check_books,
    grant,
    journal,
    make_user,
    owe,
    purchases,
    spend,
)
from tests.models.examples import a_transaction, a_user
from tests.postgres.drivers import Driver


async def test_a_sum_without_purchase_is_an_adjustment(in_session: InSession) -> None:
    """Up makes a lot, down burns, and the attribute shows what is booked."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        for change, balance in ((30, 130), (-50, 80), (-80, 0)):
            user.credits_balance += change
            session.commit()
            assert user.credits_balance == booked_balance(session, user.user_id) == balance
            check_books(session)
        kinds = ("grant", "adjustment", "adjustment", "adjustment")
        assert journal(session, user.user_id) == list(zip(kinds, (100, 30, -50, -80), strict=True))

    await in_session(work)


@pytest.mark.parametrize("balance_first", [False, True])
@pytest.mark.parametrize("flush_between", [False, True])
@pytest.mark.parametrize("by_relationship", [False, True])
async def test_a_sum_beside_its_purchase_is_a_grant(
    in_session: InSession, *, balance_first: bool, flush_between: bool, by_relationship: bool
) -> None:
    """In either order, with an autoflush in between or none, by `user_id` or `user=`."""

    def work(session: Session) -> None:
        user = make_user(session, 7)
        owner = {"user": user} if by_relationship else {"user_id": user.user_id}
        if balance_first:
            user.credits_balance += 500
        else:
            session.add(a_transaction(**owner, stripe_session_id="cs_1", credits_added=500))
        if flush_between:
            session.scalars(select(User.email)).all()
        if balance_first:
            session.add(a_transaction(**owner, stripe_session_id="cs_1", credits_added=500))
        else:
            user.credits_balance += 500
        session.commit()
        assert purchases(session, user) == [("~purchase:cs_1", 500)]
        assert user.credits_balance == 507
        check_books(session)

    await in_session(work)


async def test_an_operation_in_between_leaves_a_purchase_a_purchase(in_session: InSession) -> None:
    """The ledger called between the `Transaction` and its `+=` takes neither for something else."""

    def work(session: Session) -> None:
        user = make_user(session, 10)
        session.add(a_transaction(user=user, stripe_session_id="cs_1", credits_added=500))
        execute(session, [spend(user.user_id, 4)])
        user.credits_balance += 500
        session.commit()
        assert purchases(session, user) == [("~purchase:cs_1", 500)]
        assert user.credits_balance == 506
        check_books(session)

    await in_session(work)


async def test_two_purchases_in_one_database_transaction_are_two_grants(
    in_session: InSession,
) -> None:
    """One sum for both, each gets its own lot."""

    def work(session: Session) -> None:
        user = make_user(session)
        for number, bought in ((1, 500), (2, 1000)):
            session.add(
                a_transaction(user=user, stripe_session_id=f"cs_{number}", credits_added=bought)
            )
        user.credits_balance += 1500
        session.commit()
        assert sorted(purchases(session, user)) == [
            ("~purchase:cs_1", 500),
            ("~purchase:cs_2", 1000),
        ]
        check_books(session)

    await in_session(work)


async def test_a_purchase_alone_credits_nothing(
    fresh_database: ConnectionParameters, driver: Driver
) -> None:
    """A `Transaction` without a change of balance writes no entry, then or later."""
    assert fresh_database

    def buy(session: Session) -> uuid.UUID:
        user = make_user(session, 7)
        session.add(a_transaction(user=user, credits_added=500))
        return user.user_id

    who = await driver.transact(buy)

    def add(session: Session) -> None:
        session.get_one(User, who).credits_balance += 500

    await driver.transact(add)
    with SessionLocal() as session:
        assert journal(session, who) == [("grant", 7), ("adjustment", 500)]
        check_books(session)


async def test_a_new_users_balance_is_opened(in_session: InSession) -> None:
    """`User(credits_balance=n)` gets an opening entry; with its purchase it is a grant."""

    def work(session: Session) -> None:
        plain, buyer = a_user(credits_balance=40), a_user(credits_balance=500)
        buyer.transactions.append(a_transaction(stripe_session_id="cs_1", credits_added=500))
        session.add_all([plain, buyer])
        session.flush()
        plain.credits_balance -= 15
        session.commit()
        assert journal(session, plain.user_id) == [("opening", 25)]
        assert purchases(session, buyer) == [("~purchase:cs_1", 500)]
        check_books(session)

    await in_session(work)


async def test_assigning_an_expired_or_unloaded_balance_is_a_delta(in_session: InSession) -> None:
    """The attribute is loaded first, whether it was expired or never asked for."""

    def work(session: Session) -> None:
        user = make_user(session, 10)
        session.commit()
        session.expire(user)
        user.credits_balance += 5
        session.commit()
        session.expunge(user)
        by_email = select(User).options(load_only(User.email)).where(User.user_id == user.user_id)
        partly = session.scalars(by_email).one()
        partly.credits_balance = 12
        session.commit()
        assert journal(session, user.user_id) == [
            ("grant", 10),
            ("adjustment", 5),
            ("adjustment", -3),
        ]
        check_books(session)

    await in_session(work)


async def test_the_same_number_assigned_is_no_change(in_session: InSession) -> None:
    """No delta, no entry, also where it went up and down again over two flushes."""

    def work(session: Session) -> None:
        user = make_user(session, 10)
        user.credits_balance = 10
        session.commit()
        user.credits_balance += 5
        session.flush()
        user.credits_balance -= 5
        session.commit()
        assert journal(session, user.user_id) == [("grant", 10)]
        check_books(session)

    await in_session(work)


async def test_a_later_operation_sees_what_was_assigned(in_session: InSession) -> None:
    """The ledger's own call books the assignment first, then decides on the sum of both."""

    def work(session: Session) -> None:
        user = make_user(session, 10)
        user.credits_balance += 5
        [result] = execute(session, [spend(user.user_id, 15)])
        assert (result.balance, user.credits_balance) == (0, 0)
        user.credits_balance += 2
        execute(session, [grant(user.user_id, 3, source=LotSource.PROMO)])
        session.commit()
        assert journal(session, user.user_id) == [
            ("grant", 10),
            ("adjustment", 5),
            ("spend", -15),
            ("adjustment", 2),
            ("grant", 3),
        ]
        check_books(session)

    await in_session(work)


async def test_a_balance_from_before_the_ledger_is_opened_first(in_session: InSession) -> None:
    """A user who has a balance and no entry gets the opening entry with the first change."""

    def work(session: Session) -> None:
        user = make_user(session)
        session.execute(text("ALTER TABLE users DISABLE TRIGGER USER"))
        session.connection().execute(update(User).values(credits_balance=30))
        session.execute(text("ALTER TABLE users ENABLE TRIGGER USER"))
        session.commit()
        user = session.get_one(User, user.user_id)
        user.credits_balance += 5
        session.commit()
        assert journal(session, user.user_id) == [("opening", 30), ("adjustment", 5)]
        check_books(session)

    await in_session(work)


async def test_what_is_due_counts_first(in_session: InSession) -> None:
    """The attribute ends as the effective balance, debts repaid and expired lots gone."""

    def work(session: Session) -> None:
        long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=9)
        expiry = long_ago + dt.timedelta(days=1)
        user = make_user(session)
        execute(session, [grant(user.user_id, 60, expires_at=expiry)], now=long_ago)
        execute(session, [grant(user.user_id, 40)], now=long_ago)
        user.credits_balance -= 30
        session.commit()
        assert user.credits_balance == 10
        user.credits_balance -= 10
        session.commit()
        owe(session, user.user_id, 2, 7)
        user.credits_balance += 20
        session.commit()
        assert user.credits_balance == 13
        assert journal(session, user.user_id)[2:] == [
            ("lot_expiry", -60),
            ("adjustment", -30),
            ("adjustment", -10),
            ("adjustment", 20),
            ("debt_repayment", -7),
        ]
        check_books(session)

    await in_session(work)


async def test_all_users_of_a_flush_are_locked_in_one_statement(in_session: InSession) -> None:
    """In `user_id` order, whatever the order in which they were changed."""

    def work(session: Session) -> None:
        people = [make_user(session, 10) for _ in range(5)]
        session.commit()
        locks: list[str] = []

        def note(_connection: object, _cursor: object, statement: str, *_others: object) -> None:
            if "FOR NO KEY UPDATE" in statement:
                locks.append(statement)

        bind = session.connection()
        event.listen(bind, "before_cursor_execute", note)
        for user in sorted(people, key=lambda user: user.user_id, reverse=True):
            user.credits_balance += 1
        session.flush()
        event.remove(bind, "before_cursor_execute", note)
        assert len(locks) == 1
        assert "ORDER BY users.user_id FOR NO KEY UPDATE" in locks[0]
        session.commit()
        check_books(session)

    await in_session(work)


@pytest.mark.parametrize("by_model", [False, True])
def test_any_session_maker_keeps_the_books(
    fresh_database: ConnectionParameters, *, by_model: bool
) -> None:
    """The caller's own, plain or bound model by model, on an engine of the caller's own."""
    assert fresh_database
    engine = create_engine(database_url(get_settings()))
    plain = sessionmaker(binds={Base: engine}) if by_model else sessionmaker(engine)
    with plain.begin() as session:
        user = a_user(credits_balance=10)
        session.add(user)
        session.flush()
        who = user.user_id
    with plain.begin() as session:
        user = session.get_one(User, who)
        user.credits_balance += 500
        session.add(a_transaction(user=user, stripe_session_id="cs_1", credits_added=500))
    with plain() as session:
        session.get_one(User, who).credits_balance -= 10
        session.commit()
        assert journal(session, who) == [("opening", 10), ("grant", 500), ("adjustment", -10)]
        assert purchases(session, session.get_one(User, who)) == [("~purchase:cs_1", 500)]
    with SessionLocal() as session:
        check_books(session)
    engine.dispose()


async def test_the_documents_async_code_keeps_the_books(
    fresh_database: ConnectionParameters,
) -> None:
    """As written there: `async with get_async_db() as db`, load, add, commit."""
    assert fresh_database
    async with get_async_db() as db:
        user = a_user()
        db.add(user)
        await db.commit()
    async with get_async_db() as db:
        loaded = (await db.execute(select(User).where(User.user_id == user.user_id))).scalar_one()
        loaded.credits_balance += 500
        db.add(a_transaction(user_id=loaded.user_id, stripe_session_id="cs_1", credits_added=500))
        await db.commit()
        assert loaded.credits_balance == 500
        loaded.credits_balance -= 200
        await db.commit()
        assert loaded.credits_balance == 300
    with SessionLocal() as session:
        assert journal(session, user.user_id) == [("grant", 500), ("adjustment", -200)]
        check_books(session)
