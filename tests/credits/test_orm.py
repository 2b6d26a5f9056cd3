"""The document's own `user.credits_balance += n` keeps the books (DESIGN §4 rule 10)."""

from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, load_only

from src.common.credits.errors import InsufficientCredits
from src.common.credits.operations import execute
from src.common.database_errors import violated_constraint
from src.common.exceptions import Conflict, Invalid
from src.common.models.credit_entry import CreditEntry
from src.common.models.credit_lot import CreditLot, LotSource
from src.common.models.transaction import UQ_TRANSACTIONS_STRIPE_SESSION_ID
from src.common.models.user import User
from tests.credits.books import (
    InSession,
    booked_balance,
    check_books,
    grant,
    journal,
    make_user,
    spend,
)
from tests.models.examples import a_transaction, a_user


def _purchases(session: Session, user: User) -> list[tuple[str, int]]:
    """The user's lots that a purchase paid for: the entry's key and the credits."""
    rows = session.execute(
        select(CreditEntry.idempotency_key, CreditLot.granted)
        .join(
            CreditLot,
            (CreditLot.user_id == CreditEntry.user_id) & (CreditLot.seq == CreditEntry.seq),
        )
        .where(CreditEntry.user_id == user.user_id, CreditLot.transaction_id.is_not(None))
        .order_by(CreditEntry.seq)
    )
    return [(key, granted) for key, granted in rows]


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
        assert _purchases(session, user) == [("~purchase:cs_1", 500)]
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
        assert _purchases(session, user) == [("~purchase:cs_1", 500)]
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
        assert sorted(_purchases(session, user)) == [
            ("~purchase:cs_1", 500),
            ("~purchase:cs_2", 1000),
        ]
        check_books(session)

    await in_session(work)


async def test_a_purchase_alone_credits_nothing(in_session: InSession) -> None:
    """A `Transaction` without a change of balance writes no entry, then or later."""

    def work(session: Session) -> None:
        user = make_user(session, 7)
        session.add(a_transaction(user=user, credits_added=500))
        session.commit()
        user.credits_balance += 500
        session.commit()
        assert journal(session, user.user_id) == [("grant", 7), ("adjustment", 500)]
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
        assert _purchases(session, user) == [("~purchase:cs_1", 500)]
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
        assert _purchases(session, buyer) == [("~purchase:cs_1", 500)]
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
