"""A commit that changes one balance writes the user's row once, and nobody can tell."""

from collections.abc import Callable

import pytest
from sqlalchemy import event, func, inspect, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from src.common.models.transaction import Transaction
from src.common.models.user import User
from tests.credits.books import (
    InSession,
    booked_balance,
    check_books,
    from_before,
    journal,
    make_user,
    purchases,
)
from tests.credits.test_orm_hooks import listening
from tests.models.examples import a_transaction


def _statements(session: Session, work: Callable[[], object]) -> list[str]:
    """What `work` sends, without savepoints."""
    sent: list[str] = []

    def keep(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "SAVEPOINT" not in statement:
            sent.append(statement)

    connection = session.connection()
    event.listen(connection, "before_cursor_execute", keep)
    work()
    event.remove(connection, "before_cursor_execute", keep)
    return sent


@pytest.mark.parametrize("delta", [7, -7])
async def test_an_assignment_costs_two_statements(in_session: InSession, *, delta: int) -> None:
    """One locks and reads, one writes; the row changes in the second alone."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()
        user.credits_balance += delta
        sent = _statements(session, session.commit)
        assert ["UPDATE users" in statement for statement in sent] == [False, True]
        assert journal(session, user.user_id) == [("grant", 100), ("adjustment", delta)]
        assert user.credits_balance == booked_balance(session, user.user_id) == 100 + delta
        check_books(session)

    await in_session(work)


@pytest.mark.parametrize("by_id", [True, False])
async def test_a_purchase_costs_one_more(in_session: InSession, *, by_id: bool) -> None:
    """Its own INSERT, between the two, whether it names its user by id or as an object."""

    def work(session: Session) -> None:
        user = make_user(session)
        session.commit()
        whose = {"user_id": user.user_id} if by_id else {"user": user}
        user.credits_balance += 50
        session.add(a_transaction(**whose, stripe_session_id="cs_1", credits_added=50))
        sent = _statements(session, session.commit)
        assert ["INSERT INTO transactions" in statement for statement in sent] == [
            *(False, True, False)
        ]
        assert purchases(session, user) == [("~purchase:cs_1", 50)]
        check_books(session)

    await in_session(work)


async def test_the_user_shows_what_the_row_has(in_session: InSession) -> None:
    """Balance, version and `updated_at`, with what else was assigned, and nothing is left over."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()
        session.execute(select(func.pg_sleep(0.001)))
        user.credits_balance += 5
        user.first_name = "Grace"
        session.commit()
        columns = (User.credits_balance, User.credits_version, User.updated_at, User.first_name)
        row = session.execute(select(*columns).where(User.user_id == user.user_id)).one()
        shown = (user.credits_balance, user.credits_version, user.updated_at, user.first_name)
        assert tuple(row) == shown
        assert (user.credits_version, user.first_name) == (2, "Grace")
        assert not session.dirty
        assert _statements(session, session.commit) == []

    await in_session(work)


async def test_a_core_insert_s_purchase_is_booked_all_the_same(in_session: InSession) -> None:
    """Nobody told the session of it: PostgreSQL did, and nothing was written before."""

    def work(session: Session) -> None:
        user = make_user(session)
        session.commit()
        values = {"user_id": user.user_id, "stripe_session_id": "cs_1", "amount_paid_cents": 5}
        session.execute(insert(Transaction).values(**values, credits_added=50))
        user.credits_balance += 50
        session.commit()
        assert purchases(session, user) == [("~purchase:cs_1", 50)]
        assert journal(session, user.user_id) == [("grant", 50)]
        check_books(session)

    await in_session(work)


@pytest.mark.parametrize("name", ["before_flush", "after_flush", "after_flush_postexec"])
async def test_who_listens_to_the_flush_finds_the_row_written(
    in_session: InSession, *, name: str
) -> None:
    """Before it the old balance and the change, after it the new one, as with any column."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()
        seen: list[int] = []

        def look(heard: Session, *_: object) -> None:
            with heard.no_autoflush:
                seen.append(booked_balance(heard, user.user_id))

        with listening(session, name, look):
            user.credits_balance += 5
            session.commit()
        assert seen[0] == (100 if name == "before_flush" else 105)
        assert journal(session, user.user_id)[1:] == [("adjustment", 5)]

    await in_session(work)


@pytest.mark.parametrize("name", ["before_update", "after_update"])
async def test_who_listens_to_the_row_is_told_of_the_change(
    in_session: InSession, *, name: str
) -> None:
    """The attribute's history has the old balance and the new one."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()
        told: list[tuple[list[int], list[int]]] = []

        def look(_mapper: object, _connection: object, target: User) -> None:
            history = inspect(target).attrs.credits_balance.history
            told.append((list(history.deleted), list(history.added)))

        with listening(User, name, look):
            user.credits_balance += 5
            session.commit()
        assert told == [([100], [105])]

    await in_session(work)


async def test_a_user_from_before_the_ledger_is_opened_in_the_same_write(
    in_session: InSession,
) -> None:
    """Two entries, the opening first."""

    def work(session: Session) -> None:
        user = from_before(session, 30)
        user.credits_balance += 5
        session.commit()
        assert journal(session, user.user_id) == [("opening", 30), ("adjustment", 5)]
        check_books(session)

    await in_session(work)
