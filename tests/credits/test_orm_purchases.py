"""A purchase never becomes an adjustment that its settlement would pay again (rule 10)."""

import uuid
from collections.abc import Callable

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from src.common.credits.operations import execute
from src.common.database import SessionLocal
from src.common.exceptions import Conflict
from src.common.models.transaction import Transaction
from src.common.models.user import User
from src.common.purchases.operations import credit_transaction
from src.local_postgres import ConnectionParameters
from tests.credits.books import (
    InSession,
    booked_balance,
    check_books,
    grant,
    journal,
    make_user,
    purchases,
    spend,
)
from tests.models.examples import a_transaction

Insert = Callable[[Session, uuid.UUID], object]


def row(who: uuid.UUID) -> dict[str, object]:
    """The columns of a purchase of 100 credits."""
    return {
        "user_id": who,
        "stripe_session_id": "cs_1",
        "amount_paid_cents": 100,
        "credits_added": 100,
    }


INSERTS: dict[str, Insert] = {
    "core": lambda db, who: db.execute(insert(Transaction).values(row(who))),
    "on conflict": lambda db, who: db.execute(
        upsert(Transaction).values(row(who)).on_conflict_do_nothing()
    ),
    "returning": lambda db, who: db.scalars(
        upsert(Transaction).values(row(who)).on_conflict_do_nothing().returning(Transaction)
    ).one(),
    "rows": lambda db, who: db.execute(insert(Transaction), [row(who)]),
    "text": lambda db, who: db.execute(
        text(
            "INSERT INTO transactions (user_id, stripe_session_id, amount_paid_cents,"
            " credits_added) VALUES (:user_id, :stripe_session_id, :amount_paid_cents,"
            " :credits_added)"
        ),
        row(who),
    ),
    "connection": lambda db, who: db.connection().execute(insert(Transaction).values(row(who))),
    "bulk": lambda db, who: db.bulk_insert_mappings(Transaction.__mapper__, [row(who)]),
    "created long ago": lambda db, who: db.execute(
        insert(Transaction).values(**row(who), created_at=func.to_timestamp(0))
    ),
}


def refuse(session: Session) -> None:
    """The commit is refused as often as it is tried, and nothing stays."""
    for _ in range(2):
        with pytest.raises(Conflict) as caught:
            session.commit()
        assert caught.value.error_type == "BALANCE_CHANGE_AMBIGUOUS"
    session.rollback()


@pytest.mark.parametrize("by", INSERTS)
@pytest.mark.parametrize("balance_first", [False, True])
async def test_a_purchase_by_statement_is_a_purchase(
    in_session: InSession, *, by: str, balance_first: bool
) -> None:
    """However its row was inserted, in either order beside `+=`, in a savepoint that was kept."""

    def work(session: Session) -> None:
        user = make_user(session, 7)
        session.commit()
        if balance_first:
            user.credits_balance += 100
        with session.begin_nested():
            INSERTS[by](session, user.user_id)
        if not balance_first:
            user.credits_balance += 100
        session.commit()
        assert purchases(session, user) == [("~purchase:cs_1", 100)]
        assert user.credits_balance == 107
        check_books(session)

    await in_session(work)


@pytest.mark.parametrize("by", ["on conflict", "text"])
async def test_a_purchase_by_statement_beside_another_sum_is_refused(
    in_session: InSession, by: str
) -> None:
    """As if the session had added it."""

    def work(session: Session) -> None:
        user = make_user(session, 7)
        session.commit()
        INSERTS[by](session, user.user_id)
        user.credits_balance += 99
        refuse(session)
        assert booked_balance(session, user.user_id) == 7
        check_books(session)

    await in_session(work)


@pytest.mark.parametrize("by", ["orm", "on conflict", "text"])
@pytest.mark.parametrize("is_new", [False, True])
async def test_a_purchase_after_its_sum_was_booked_is_refused(
    in_session: InSession, *, by: str, is_new: bool
) -> None:
    """A spend in between had to book the sum as something else: the purchase comes too late."""

    def work(session: Session) -> None:
        user = make_user(session, 0 if is_new else 7)
        if not is_new:
            session.commit()
        user.credits_balance += 100
        execute(session, [spend(user.user_id, 30)])
        if by == "orm":
            session.add(Transaction(**row(user.user_id)))
        else:
            INSERTS[by](session, user.user_id)
        refuse(session)
        assert session.scalar(select(func.count()).select_from(Transaction)) == 0

    await in_session(work)


async def test_a_purchase_with_a_sum_of_its_own_after_another_was_booked(
    in_session: InSession,
) -> None:
    """What a spend booked before stays an adjustment; the purchase has its own `+=`."""

    def work(session: Session) -> None:
        user = make_user(session, 7)
        session.commit()
        user.credits_balance += 100
        execute(session, [spend(user.user_id, 30)])
        session.add(Transaction(**row(user.user_id)))
        execute(session, [spend(user.user_id, 1)])  # not yet the end: the sum may follow
        user.credits_balance += 100
        session.commit()
        assert purchases(session, user) == [("~purchase:cs_1", 100)]
        assert [amount for _, amount in journal(session, user.user_id)] == [7, 100, -30, -1, 100]
        check_books(session)

    await in_session(work)


async def test_a_sum_taken_back_leaves_a_purchase_alone(in_session: InSession) -> None:
    """Booked up and down again is no change: the purchase alone credits nothing, and is listed."""

    def work(session: Session) -> None:
        user = make_user(session, 7)
        session.commit()
        user.credits_balance += 100
        execute(session, [spend(user.user_id, 1)])
        user.credits_balance -= 100
        execute(session, [spend(user.user_id, 1)])
        session.add(Transaction(**row(user.user_id)))
        session.commit()
        assert purchases(session, user) == []
        assert user.credits_balance == 5
        check_books(session)

    await in_session(work)


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("by_core", [False, True])
async def test_a_purchase_removed_beside_its_sum(
    in_session: InSession, *, flushed: bool, by_core: bool
) -> None:
    """Once flushed it was meant: without it the sum is nobody's, and refused."""

    def work(session: Session) -> None:
        user = make_user(session, 7)
        session.commit()
        purchase = Transaction(**row(user.user_id))
        session.add(purchase)
        user.credits_balance += 100
        if not flushed:
            session.expunge(purchase)
            session.commit()
            assert journal(session, user.user_id)[1:] == [("adjustment", 100)]
            return
        session.flush()
        if by_core:
            session.execute(text("DELETE FROM transactions"))
        else:
            session.delete(purchase)
        refuse(session)
        assert booked_balance(session, user.user_id) == 7
        check_books(session)

    await in_session(work)


async def test_a_purchase_removed_with_its_sum_leaves_nothing(in_session: InSession) -> None:
    """Both are taken back before the commit."""

    def work(session: Session) -> None:
        user = make_user(session, 7)
        session.commit()
        purchase = Transaction(**row(user.user_id))
        session.add(purchase)
        user.credits_balance += 100
        session.flush()
        session.delete(purchase)
        user.credits_balance -= 100
        session.commit()
        assert journal(session, user.user_id) == [("grant", 7)]
        check_books(session)

    await in_session(work)


@pytest.mark.parametrize("by_relationship", [False, True])
async def test_a_purchase_keeps_its_user_before_it_is_booked(
    in_session: InSession, *, by_relationship: bool
) -> None:
    """Whoever is to have it gets a row of their own."""

    def work(session: Session) -> None:
        first, second = make_user(session, 7), make_user(session, 7)
        session.commit()
        purchase = Transaction(**row(first.user_id))
        session.add(purchase)
        first.credits_balance += 100
        session.flush()
        if by_relationship:
            purchase.user = second
        else:
            purchase.user_id = second.user_id
        with pytest.raises(Conflict, match="refund") as caught:
            session.flush()
        assert caught.value.error_type == "BALANCE_CHANGE_AMBIGUOUS"
        session.rollback()
        check_books(session)

    await in_session(work)


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("change", ["moved", "moved by relationship", "deleted"])
async def test_a_credited_purchase_stays_where_it_is(
    in_session: InSession, *, change: str, committed: bool
) -> None:
    """Else its new owner would be credited as well, or the lot would name no purchase."""

    def work(session: Session) -> None:
        user, other = make_user(session, 7), make_user(session, 7)
        session.commit()
        purchase = Transaction(**row(user.user_id))
        session.add(purchase)
        user.credits_balance += 100
        if committed:
            session.commit()
        else:
            execute(session, [spend(user.user_id, 1)])
        if change == "moved":
            purchase.user_id = other.user_id
        elif change == "deleted":
            session.delete(purchase)
        else:
            purchase.user = other
        with pytest.raises(Conflict, match="refund") as caught:
            session.flush()
        assert caught.value.error_type == "BALANCE_CHANGE_AMBIGUOUS"
        session.rollback()
        assert len(purchases(session, user)) == committed
        check_books(session)

    await in_session(work)


async def test_a_savepoint_undoes_its_purchase_too(in_session: InSession) -> None:
    """A purchase by statement in a savepoint that is rolled back was never there."""

    def work(session: Session) -> None:
        user = make_user(session, 7)
        session.commit()
        user.credits_balance += 5
        session.flush()
        savepoint = session.begin_nested()
        INSERTS["core"](session, user.user_id)
        savepoint.rollback()
        session.commit()
        assert journal(session, user.user_id) == [("grant", 7), ("adjustment", 5)]
        check_books(session)

    await in_session(work)


def test_a_purchase_of_another_database_transaction_is_not_taken_up(
    fresh_database: ConnectionParameters,
) -> None:
    """Committed alone, before or meanwhile, it stays listed; a later sum is an adjustment."""
    assert fresh_database
    with SessionLocal.begin() as session:
        who = make_user(session, 7).user_id
        session.add(Transaction(**row(who)))
    with SessionLocal.begin() as session:
        session.execute(select(func.pg_current_xact_id()))
        with SessionLocal.begin() as meanwhile:
            meanwhile.add(a_transaction(user_id=who, stripe_session_id="cs_2", credits_added=5))
        session.get_one(User, who).credits_balance += 5
    with SessionLocal() as session:
        assert journal(session, who) == [("grant", 7), ("adjustment", 5)]
        check_books(session)


async def test_settling_a_purchase_takes_no_sum_for_it(in_session: InSession) -> None:
    """The grant of a purchase by its own call leaves another `+=` an adjustment."""

    def work(session: Session) -> None:
        user = make_user(session, 7)
        session.commit()
        purchase = Transaction(**row(user.user_id))
        session.add(purchase)
        session.flush()
        user.credits_balance += 5
        credit_transaction(session, purchase, actor="system:tests")
        execute(session, [grant(user.user_id, 1)])
        session.commit()
        assert journal(session, user.user_id)[1:] == [
            ("adjustment", 5),
            ("grant", 100),
            ("grant", 1),
        ]
        assert purchases(session, user) == [("~purchase:cs_1", 100)]
        check_books(session)

    await in_session(work)
