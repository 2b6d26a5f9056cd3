"""A savepoint's rollback takes back what the ledger had put into loaded users."""

from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session

from src.common.async_database import get_async_db
from src.common.credits import async_ledger
from src.common.credits.operations import execute
from src.common.database import SessionLocal
from src.common.models.user import User
from src.local_postgres import ConnectionParameters
from tests.credits.books import (
    InSession,
    booked_balance,
    check_books,
    grant,
    journal,
    make_user,
    new_key,
    spend,
)

Work = Callable[[Session, User], object]


class Undo(Exception):
    """Leaves a savepoint by its rollback."""


def spent(session: Session, user: User) -> None:
    """The ledger's own call."""
    execute(session, [spend(user.user_id, 30)])


def granted(session: Session, user: User) -> None:
    """The other way."""
    execute(session, [grant(user.user_id, 50)])


def assigned(session: Session, user: User) -> None:
    """The document's pattern, flushed."""
    user.credits_balance += 5
    session.flush()


def assigned_and_spent(session: Session, user: User) -> None:
    """Booked by the call that follows."""
    user.credits_balance += 5
    execute(session, [spend(user.user_id, 30)])


def spent_and_assigned(session: Session, user: User) -> None:
    """The last assignment is not even flushed."""
    execute(session, [spend(user.user_id, 30)])
    user.credits_balance = 3


def nested_and_released(session: Session, user: User) -> None:
    """What an inner savepoint did and kept goes with the outer one."""
    with session.begin_nested():
        execute(session, [spend(user.user_id, 30)])
    execute(session, [spend(user.user_id, 1)])


def nested_and_undone(session: Session, user: User) -> None:
    """An inner savepoint gives back what it did, and so does the outer one."""
    execute(session, [spend(user.user_id, 1)])
    undo(session, user, spent)
    assert (user.credits_balance, user.credits_version) == (99, 2)


WORKS: list[Work] = [
    spent,
    granted,
    assigned,
    assigned_and_spent,
    spent_and_assigned,
    nested_and_released,
    nested_and_undone,
]
works = pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)


def undo(session: Session, user: User, work: Work) -> None:
    """Do it in a savepoint that is rolled back."""

    def in_savepoint() -> None:
        with session.begin_nested():
            work(session, user)
            raise Undo

    with pytest.raises(Undo):
        in_savepoint()


@works
@pytest.mark.parametrize("absolute", [True, False])
async def test_what_a_savepoint_undid_is_not_shown(
    in_session: InSession, *, work: Work, absolute: bool
) -> None:
    """The loaded user shows what it did before; assigning just that is no change."""

    def run(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()
        undo(session, user, work)
        assert (user.credits_balance, user.credits_version) == (100, 1)
        if absolute:
            user.credits_balance = 100
        else:
            user.credits_balance += 7
        session.commit()
        expected = [("grant", 100)] if absolute else [("grant", 100), ("adjustment", 7)]
        assert journal(session, user.user_id) == expected
        assert user.credits_balance == booked_balance(session, user.user_id)
        check_books(session)

    await in_session(run)


async def test_what_was_assigned_before_a_savepoint_stays(in_session: InSession) -> None:
    """The user shows it again, and it is booked once."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()
        user.credits_balance += 5
        undo(session, user, spent)
        assert user.credits_balance == 105
        user.credits_balance = 105
        session.commit()
        assert journal(session, user.user_id) == [("grant", 100), ("adjustment", 5)]
        check_books(session)

    await in_session(work)


async def test_what_a_savepoint_kept_is_shown(in_session: InSession) -> None:
    """Released, also inside one that is rolled back later on for another user's sake."""

    def work(session: Session) -> None:
        kept, undone = make_user(session, 100), make_user(session, 100)
        session.commit()
        with session.begin_nested():
            execute(session, [spend(kept.user_id, 30)])
        undo(session, undone, spent)
        assert (kept.credits_balance, undone.credits_balance) == (70, 100)
        session.commit()
        assert journal(session, kept.user_id) == [("grant", 100), ("spend", -30)]
        check_books(session)

    await in_session(work)


async def test_a_user_loaded_in_the_savepoint_is_read_again(in_session: InSession) -> None:
    """What it showed of the savepoint's own doing is forgotten."""

    def work(session: Session) -> None:
        who = make_user(session, 100).user_id
        session.commit()
        session.expunge_all()
        savepoint = session.begin_nested()
        execute(session, [spend(who, 30)])
        user = session.get_one(User, who)
        assert user.credits_balance == 70
        savepoint.rollback()
        user.credits_balance = 100
        session.commit()
        assert journal(session, who) == [("grant", 100)]
        check_books(session)

    await in_session(work)


async def test_a_refreshed_user_shows_what_it_did_before(in_session: InSession) -> None:
    """`refresh` inside the savepoint reads what its end takes back."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()
        savepoint = session.begin_nested()
        execute(session, [spend(user.user_id, 30)])
        session.refresh(user)
        savepoint.rollback()
        assert user.credits_balance == 100
        user.credits_balance = 100
        session.commit()
        assert journal(session, user.user_id) == [("grant", 100)]
        check_books(session)

    await in_session(work)


async def test_a_whole_rollback_shows_the_row(in_session: InSession) -> None:
    """With savepoints open in it, released or undone."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()
        undo(session, user, spent)
        session.begin_nested()
        execute(session, [spend(user.user_id, 10)])
        session.get_transaction().rollback()  # type: ignore[union-attr]  # it is open
        assert user.credits_balance == 100
        session.commit()
        assert journal(session, user.user_id) == [("grant", 100)]

    await in_session(work)


@pytest.mark.parametrize(("operation", "amount"), [("spend", 30), ("grant", 50)])
async def test_an_async_savepoint_leaves_the_user_readable(
    fresh_database: ConnectionParameters, operation: str, amount: int
) -> None:
    """No attribute needs the database again, which outside a greenlet it could not ask."""
    assert fresh_database
    with SessionLocal.begin() as session:
        who = make_user(session, 100).user_id
    async with get_async_db() as db:
        user = await db.get_one(User, who)

        async def in_savepoint() -> None:
            async with db.begin_nested():
                await getattr(async_ledger, operation)(db, who, amount, key=new_key())
                raise Undo

        with pytest.raises(Undo):
            await in_savepoint()
        assert user.credits_balance == 100
        user.credits_balance = 100
        await db.commit()
    with SessionLocal() as session:
        assert journal(session, who) == [("grant", 100)]
        check_books(session)


def test_the_document_s_session_gives_back_what_a_savepoint_did(
    fresh_database: ConnectionParameters,
) -> None:
    """A spend undone and a grant undone, with real commits."""
    assert fresh_database
    with SessionLocal.begin() as session:
        who = make_user(session, 100).user_id
    for work in (spent, granted):
        with SessionLocal() as session:
            user = session.get_one(User, who)
            undo(session, user, work)
            user.credits_balance = 100
            session.commit()
            assert booked_balance(session, who) == user.credits_balance == 100
    with SessionLocal() as session:
        assert journal(session, who) == [("grant", 100)]
        check_books(session)
