"""Bulk statements cannot change balances: nobody would know by how much (rule 10)."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import insert, literal, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from src.common.exceptions import Conflict
from src.common.models.user import User
from tests.credits.books import InSession, booked_balance, check_books, journal, make_user

Bulk = Callable[[Session, uuid.UUID], object]


def newcomer(**columns: Any) -> dict[str, Any]:
    """The columns of a user nobody knows."""
    return {"email": f"{uuid.uuid4()}@example.com", "password_hash": "x", **columns}


def by_query(session: Session, who: uuid.UUID) -> None:
    """The legacy form."""
    session.query(User).filter_by(user_id=who).update({User.credits_balance: 140})


def from_select(session: Session, who: uuid.UUID) -> None:
    """Rows out of other rows."""
    rows = select(literal(f"{who}@copy.example"), User.password_hash, User.credits_balance)
    session.execute(insert(User).from_select(["email", "password_hash", "credits_balance"], rows))


def on_conflict(session: Session, who: uuid.UUID) -> None:
    """An upsert."""
    row = newcomer(user_id=who)
    statement = upsert(User).values(row)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[User.user_id], set_={"credits_balance": 140}
        )
    )


REFUSED: dict[str, Bulk] = {
    "values": lambda db, _: db.execute(update(User).values(credits_balance=140)),
    "by attribute": lambda db, _: db.execute(update(User).values({User.credits_balance: 140})),
    "an expression": lambda db, _: db.execute(
        update(User).values(credits_balance=User.credits_balance + 40)
    ),
    "ordered": lambda db, _: db.execute(
        update(User).ordered_values((User.first_name, "Ada"), (User.credits_balance, 140))
    ),
    "evaluated": lambda db, who: db.execute(
        update(User).where(User.user_id == who).values(credits_balance=140),
        execution_options={"synchronize_session": "evaluate"},
    ),
    "returning": lambda db, _: db.scalars(
        update(User).values(credits_balance=140).returning(User)
    ).all(),
    "a parameter": lambda db, who: db.execute(
        update(User).where(User.user_id == who), {"credits_balance": 140}
    ),
    "by primary key": lambda db, who: db.execute(
        update(User), [{"user_id": who, "credits_balance": 140}]
    ),
    "the version": lambda db, _: db.execute(update(User).values(credits_version=9)),
    "the query's": by_query,
    "an upsert": on_conflict,
    "insert": lambda db, _: db.execute(insert(User).values(newcomer(credits_balance=40))),
    "insert several": lambda db, _: db.execute(
        insert(User).values([newcomer(credits_balance=0), newcomer(credits_balance=40)])
    ),
    "insert rows": lambda db, _: db.execute(
        insert(User), [newcomer(credits_balance=0), newcomer(credits_balance=40)]
    ),
    "insert returning": lambda db, _: db.scalars(
        insert(User).returning(User), [newcomer(credits_balance=40)]
    ).all(),
    "insert from select": from_select,
}


@pytest.mark.parametrize("bulk", REFUSED)
async def test_a_bulk_change_of_balances_is_refused(in_session: InSession, bulk: str) -> None:
    """At once, before anything is sent, with a sentence that says what to do instead."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()
        with pytest.raises(Conflict, match=r"src\.common\.credits") as caught:
            REFUSED[bulk](session, user.user_id)
        assert caught.value.error_type == "BALANCE_CHANGE_AMBIGUOUS"
        session.commit()
        assert user.credits_balance == booked_balance(session, user.user_id) == 100
        assert journal(session, user.user_id) == [("grant", 100)]
        check_books(session)

    await in_session(work)


PASSES: dict[str, Bulk] = {
    "another column": lambda db, _: db.execute(update(User).values(timezone="UTC")),
    "by balance": lambda db, _: db.execute(
        update(User).where(User.credits_balance > 5).values(timezone="UTC")
    ),
    "by primary key": lambda db, who: db.execute(
        update(User), [{"user_id": who, "timezone": "UTC"}]
    ),
    "insert without": lambda db, _: db.execute(insert(User).values(newcomer())),
    "insert with 0": lambda db, _: db.execute(
        insert(User), [newcomer(credits_balance=0, credits_version=0)]
    ),
}


@pytest.mark.parametrize("bulk", PASSES)
async def test_other_bulk_statements_pass(in_session: InSession, bulk: str) -> None:
    """Profiles may be written as ever, and newcomers without credits."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()
        PASSES[bulk](session, user.user_id)
        session.commit()
        assert booked_balance(session, user.user_id) == 100
        check_books(session)

    await in_session(work)


PAST_EVENTS: dict[str, Bulk] = {
    "update": lambda db, who: db.bulk_update_mappings(
        User.__mapper__, [{"user_id": who, "credits_balance": 140}]
    ),
    "insert": lambda db, _: db.bulk_insert_mappings(
        User.__mapper__, [newcomer(credits_balance=40)]
    ),
    "save": lambda db, _: db.bulk_save_objects([User(**newcomer(credits_balance=40))]),
}


@pytest.mark.parametrize("bulk", PAST_EVENTS)
async def test_the_old_bulk_methods_are_refused_by_the_database(
    in_session: InSession, bulk: str
) -> None:
    """No event tells of them: the triggers refuse them at commit."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()
        PAST_EVENTS[bulk](session, user.user_id)
        with pytest.raises(DBAPIError, match="LEDGER_UNBALANCED"):
            session.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
        session.rollback()
        assert booked_balance(session, user.user_id) == 100
        check_books(session)

    await in_session(work)


async def test_a_stale_copy_saved_in_bulk_keeps_its_balance(in_session: InSession) -> None:
    """`bulk_save_objects` writes what was changed, and only that."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()
        session.expunge(user)
        session.get_one(User, user.user_id).credits_balance -= 40
        session.commit()
        user.first_name = "Grace"
        session.bulk_save_objects([user])
        session.commit()
        assert booked_balance(session, user.user_id) == 60
        check_books(session)

    await in_session(work)
