"""What the document's own `+=` may not do, and what a refusal or a rollback leaves behind."""

import datetime as dt
from typing import Any

import pytest
from sqlalchemy import func
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from src.common.credits.domain.errors import InsufficientCredits
from src.common.credits.operations import execute
from src.common.database import SessionLocal
from src.common.exceptions import Conflict, Invalid
from src.common.models.transaction import UQ_TRANSACTIONS_STRIPE_SESSION_ID
from src.common.models.user import User
from src.common.postgres.errors import violated_constraint
from src.local_postgres import ConnectionParameters
from tests.credits.books import (
    InSession,
    booked_balance,
    check_books,
    grant,
    journal,
    make_user,
    open_hold,
    purchases,
    spend,
)
from tests.models.examples import a_transaction, a_user


async def test_what_came_back_counts_before_a_change_is_refused(in_session: InSession) -> None:
    """A hold that has expired, booked or not: the effective balance decides, as for a spend."""
    past = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)

    def work(session: Session) -> None:
        user = make_user(session)
        execute(session, [grant(user.user_id, 20), open_hold(user.user_id, 15, 60)], now=past)
        session.commit()
        assert user.credits_balance == 5
        user.credits_balance -= 21
        for _ in range(2):
            with pytest.raises(InsufficientCredits) as caught:
                session.commit()
            assert caught.value.details == {"required": 21, "available": 20}
        session.rollback()
        assert user.credits_balance == 5
        user.credits_balance -= 12
        session.commit()
        assert user.credits_balance == booked_balance(session, user.user_id) == 8
        assert journal(session, user.user_id)[2:] == [("hold_expiry", 15), ("adjustment", -12)]
        check_books(session)

    await in_session(work)


@pytest.mark.parametrize(("change", "bought"), [(499, 500), (501, 500), (-500, 500)])
async def test_a_sum_that_is_not_its_purchases_is_refused(
    in_session: InSession, change: int, bought: int
) -> None:
    """BALANCE_CHANGE_AMBIGUOUS, as often as the commit is tried, and nothing of it stays."""

    def work(session: Session) -> None:
        user = make_user(session, 1000)
        session.commit()
        session.add(a_transaction(user=user, credits_added=bought))
        user.credits_balance += change
        for _ in range(2):
            with pytest.raises(Conflict) as caught:
                session.commit()
            assert caught.value.error_type == "BALANCE_CHANGE_AMBIGUOUS"
        session.rollback()
        assert user.credits_balance == 1000
        session.commit()
        check_books(session)

    await in_session(work)


async def test_more_than_is_there_is_refused(in_session: InSession) -> None:
    """INSUFFICIENT_CREDITS instead of the CHECK constraint's integrity error."""

    def work(session: Session) -> None:
        user = make_user(session, 10)
        session.commit()
        user.credits_balance -= 11
        with pytest.raises(InsufficientCredits) as caught:
            session.commit()
        assert caught.value.details == {"required": 11, "available": 10}
        session.rollback()
        assert user.credits_balance == 10
        check_books(session)

    await in_session(work)


async def test_a_new_user_owes_nothing(in_session: InSession) -> None:
    """A first balance below 0 is INSUFFICIENT_CREDITS as well."""

    def work(session: Session) -> None:
        session.add(a_user(credits_balance=-1))
        with pytest.raises(InsufficientCredits):
            session.flush()
        session.rollback()

    await in_session(work)


async def test_more_than_fits_is_refused(in_session: InSession) -> None:
    """BALANCE_LIMIT_EXCEEDED instead of the column's own error."""

    def work(session: Session) -> None:
        user = make_user(session, 2**31 - 1)
        user.credits_balance += 1
        with pytest.raises(Invalid) as caught:
            session.flush()
        assert caught.value.error_type == "BALANCE_LIMIT_EXCEEDED"
        session.rollback()

    await in_session(work)


async def test_a_refused_flush_notes_nothing(in_session: InSession) -> None:
    """One user is short of credits; the other's change is booked once when all is tried again."""

    def work(session: Session) -> None:
        people = sorted(
            (make_user(session, 10), make_user(session, 10)), key=lambda user: user.user_id
        )
        session.commit()
        people[0].credits_balance += 5
        people[1].credits_balance -= 11
        with pytest.raises(InsufficientCredits):
            session.flush()
        people[1].credits_balance += 2
        session.commit()
        assert [user.credits_balance for user in people] == [15, 1]
        check_books(session)

    await in_session(work)


async def test_a_refused_operation_leaves_the_assignment_to_be_booked(
    in_session: InSession,
) -> None:
    """A caller may catch the refusal of a spend and still commit what was assigned before."""

    def work(session: Session) -> None:
        user = make_user(session, 10)
        user.credits_balance += 5
        with pytest.raises(InsufficientCredits):
            execute(session, [spend(user.user_id, 16)])
        session.commit()
        assert journal(session, user.user_id) == [("grant", 10), ("adjustment", 5)]
        check_books(session)

    await in_session(work)


async def test_a_savepoint_rolled_back_takes_its_assignment_along(in_session: InSession) -> None:
    """What was assigned before and after it is booked, what was assigned in it is not."""

    def work(session: Session) -> None:
        user = make_user(session, 10)
        user.credits_balance += 1
        with session.begin_nested():
            user.credits_balance += 2
        savepoint = session.begin_nested()
        user.credits_balance += 4
        with session.begin_nested():
            user.credits_balance += 8
        savepoint.rollback()
        user.credits_balance += 16
        session.commit()
        assert journal(session, user.user_id) == [("grant", 10), ("adjustment", 19)]
        assert user.credits_balance == 29
        check_books(session)

    await in_session(work)


async def test_what_a_rolled_back_savepoint_booked_is_booked_again(in_session: InSession) -> None:
    """The ledger called in a savepoint books what was assigned before it; its end undoes that."""

    def work(session: Session) -> None:
        user = make_user(session, 10)
        user.credits_balance += 5
        session.flush()
        savepoint = session.begin_nested()
        execute(session, [spend(user.user_id, 15)])
        savepoint.rollback()
        session.commit()
        assert journal(session, user.user_id) == [("grant", 10), ("adjustment", 5)]
        check_books(session)

    await in_session(work)


async def test_a_duplicate_in_a_savepoint_leaves_the_rest(in_session: InSession) -> None:
    """The document's IntegrityError caught around a savepoint; what came before is booked."""

    def work(session: Session) -> None:
        user = make_user(session, 10)
        session.add(a_transaction(user=user, stripe_session_id="cs_1", credits_added=500))
        user.credits_balance += 500
        session.flush()
        savepoint = session.begin_nested()
        session.add(
            a_transaction(user_id=user.user_id, stripe_session_id="cs_1", credits_added=500)
        )
        user.credits_balance += 500
        with pytest.raises(IntegrityError) as caught:
            session.flush()
        savepoint.rollback()
        assert violated_constraint(caught.value) == UQ_TRANSACTIONS_STRIPE_SESSION_ID
        session.commit()
        assert purchases(session, user) == [("~purchase:cs_1", 500)]
        assert booked_balance(session, user.user_id) == 510
        check_books(session)

    await in_session(work)


async def test_a_closed_session_forgets(in_session: InSession) -> None:
    """What was flushed and never committed is not booked by the session's next use."""

    def work(session: Session) -> None:
        user = make_user(session, 10)
        session.commit()
        user.credits_balance += 5
        session.flush()
        session.close()
        again = session.get_one(User, user.user_id)
        again.credits_balance += 1
        session.commit()
        assert journal(session, user.user_id) == [("grant", 10), ("adjustment", 1)]
        check_books(session)

    await in_session(work)


async def test_an_sql_expression_is_refused(in_session: InSession) -> None:
    """On a loaded user and on a new one, with an error that says what to do."""

    def work(session: Session) -> None:
        loaded = make_user(session, 10)
        session.commit()
        loaded.credits_balance = User.credits_balance + 5
        with pytest.raises(Invalid) as caught:
            session.flush()
        assert caught.value.error_type == "BALANCE_CHANGE_NOT_A_NUMBER"
        session.rollback()
        session.add(a_user(credits_balance=func.abs(-5)))
        with pytest.raises(Invalid) as caught:
            session.flush()
        assert caught.value.error_type == "BALANCE_CHANGE_NOT_A_NUMBER"
        session.rollback()
        assert loaded.credits_balance == 10

    await in_session(work)


async def test_what_is_not_an_integer_is_refused(in_session: InSession) -> None:
    """None, a fraction and a boolean are no balances."""

    def work(session: Session) -> None:
        user = make_user(session, 10)
        session.commit()
        values: tuple[Any, ...] = (None, 10.5, True)
        for value in values:
            user.credits_balance = value
            with pytest.raises(Invalid, match="takes an integer"):
                session.flush()
            session.rollback()

    await in_session(work)


async def test_less_than_what_is_due_leaves_is_refused_at_commit(in_session: InSession) -> None:
    """The booked balance would do, the effective one does not: INSUFFICIENT_CREDITS."""

    def work(session: Session) -> None:
        long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=9)
        expiry = long_ago + dt.timedelta(days=1)
        user = make_user(session)
        execute(session, [grant(user.user_id, 60, expires_at=expiry)], now=long_ago)
        execute(session, [grant(user.user_id, 40)], now=long_ago)
        session.commit()
        user.credits_balance -= 50
        with pytest.raises(InsufficientCredits) as caught:
            session.commit()
        assert caught.value.details == {"required": 50, "available": 40}
        session.rollback()
        assert journal(session, user.user_id) == [("grant", 60), ("grant", 40)]
        check_books(session)

    await in_session(work)


async def test_a_duplicate_purchase_is_the_documents_error(in_session: InSession) -> None:
    """An IntegrityError that names its constraint; after the rollback nothing has changed."""

    def work(session: Session) -> None:
        user = make_user(session)
        session.commit()
        for is_second in (False, True):
            session.add(
                a_transaction(user_id=user.user_id, stripe_session_id="cs_1", credits_added=5)
            )
            user.credits_balance += 5
            if is_second:
                with pytest.raises(IntegrityError) as caught:
                    session.commit()
                assert violated_constraint(caught.value) == UQ_TRANSACTIONS_STRIPE_SESSION_ID
                session.rollback()
            else:
                session.commit()
        assert purchases(session, user) == [("~purchase:cs_1", 5)]
        assert user.credits_balance == 5
        check_books(session)

    await in_session(work)


def test_a_refused_commit_ends_the_block(fresh_database: ConnectionParameters) -> None:
    """`with SessionLocal.begin()` raises the refusal itself and leaves nothing behind."""
    assert fresh_database
    with SessionLocal.begin() as session:
        who = make_user(session, 10).user_id

    def work(session: Session) -> None:
        user = session.get_one(User, who)
        user.credits_balance += 5
        session.add(a_transaction(user=user, credits_added=6))

    with pytest.raises(Conflict), SessionLocal.begin() as session:
        work(session)
    with SessionLocal() as session:
        assert booked_balance(session, who) == 10
        check_books(session)
