"""An application's own listeners may change balances too, at any point of a flush or commit."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, inspect
from sqlalchemy.orm import Session

from src.common.credits.domain.errors import InsufficientCredits
from src.common.credits.operations import execute
from src.common.exceptions import Conflict
from src.common.models.transaction import Transaction
from src.common.models.user import User
from tests.credits.books import (
    InSession,
    booked_balance,
    check_books,
    journal,
    make_user,
    purchases,
    spend,
)
from tests.models.examples import a_transaction, a_user

TARGETS = ["every session", "its class", "this session"]
targets = pytest.mark.parametrize("target", TARGETS)


@contextmanager
def listening(target: Any, name: str, hook: Callable[..., object]) -> Generator[None]:
    """Call the hook, as registered by application code that was loaded after ours."""
    event.listen(target, name, hook)
    try:
        yield
    finally:
        event.remove(target, name, hook)


def target_of(target: str, session: Session) -> Any:
    """What the hook is registered on."""
    return {"every session": Session, "its class": type(session), "this session": session}[target]


def once(work: Callable[[], object]) -> Callable[..., None]:
    """A hook that does the work at its first call."""
    done: list[bool] = []

    def hook(*_arguments: object) -> None:
        if not done:
            done.append(True)
            work()

    return hook


def outdate(session: Session, user: User) -> None:
    """The row moves on, and the loaded user does not see it."""
    session.commit()
    session.expunge(user)
    execute(session, [spend(user.user_id, 40)])
    session.commit()
    session.add(user)


@targets
@pytest.mark.parametrize("own_change", [0, 5])
async def test_a_hook_before_the_flush_may_change_a_balance(
    in_session: InSession, *, target: str, own_change: int
) -> None:
    """Its difference is booked on the row as it is, whatever the loaded user shows."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        outdate(session, user)

        def give() -> None:
            user.credits_balance += 10

        with listening(target_of(target, session), "before_flush", once(give)):
            user.credits_balance += own_change
            user.first_name = "Grace"
            session.commit()
        assert user.credits_balance == booked_balance(session, user.user_id) == 70 + own_change
        assert journal(session, user.user_id)[2:] == [("adjustment", 10 + own_change)]
        check_books(session)

    await in_session(work)


async def test_a_hook_before_the_flush_may_change_another_s_balance(
    in_session: InSession,
) -> None:
    """A user whom nobody else touched in this flush."""

    def work(session: Session) -> None:
        user, other = make_user(session, 100), make_user(session, 100)
        outdate(session, other)

        def give() -> None:
            other.credits_balance += 10

        with listening(Session, "before_flush", once(give)):
            user.credits_balance += 5
            session.commit()
        assert (user.credits_balance, other.credits_balance) == (105, 70)
        check_books(session)

    await in_session(work)


async def test_a_hook_takes_no_more_than_is_there(in_session: InSession) -> None:
    """INSUFFICIENT_CREDITS, as anywhere."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        outdate(session, user)

        def take() -> None:
            user.credits_balance -= 61

        with listening(Session, "before_flush", once(take)):
            user.first_name = "Grace"
            with pytest.raises(InsufficientCredits):
                session.commit()
        session.rollback()
        assert booked_balance(session, user.user_id) == 60
        check_books(session)

    await in_session(work)


async def test_a_hook_of_the_mapper_may_change_what_is_being_saved(in_session: InSession) -> None:
    """`before_update` on a user whose balance changes anyway, `before_insert` on a new one."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        outdate(session, user)

        def give(_mapper: object, _connection: object, target: User) -> None:
            target.credits_balance = (target.credits_balance or 0) + 10

        with listening(User, "before_update", give), listening(User, "before_insert", give):
            newcomer = a_user(credits_balance=1)
            session.add(newcomer)
            user.credits_balance += 5
            session.flush()
        session.commit()
        assert (user.credits_balance, newcomer.credits_balance) == (75, 11)
        assert journal(session, user.user_id)[2:] == [("adjustment", 15)]
        assert journal(session, newcomer.user_id) == [("opening", 11)]
        check_books(session)

    await in_session(work)


async def test_a_balance_changed_while_its_row_is_written_is_refused(
    in_session: InSession,
) -> None:
    """The last listener of all: too late to lock the row, and a sentence says where to do it."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        outdate(session, user)

        def give(_mapper: object, _connection: object, target: User) -> None:
            target.credits_balance += 10

        with listening(User, "before_update", give):
            user.first_name = "Grace"
            with pytest.raises(Conflict, match="before_flush") as caught:
                session.commit()
        assert caught.value.error_type == "BALANCE_CHANGE_AMBIGUOUS"
        session.rollback()
        assert booked_balance(session, user.user_id) == 60
        check_books(session)

    await in_session(work)


@targets
@pytest.mark.parametrize("flushes", [False, True])
async def test_a_hook_before_the_commit_may_change_a_balance(
    in_session: InSession, *, target: str, flushes: bool
) -> None:
    """After ours has booked what there was, flushed by the hook or by the commit."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        outdate(session, user)

        def give() -> None:
            user.credits_balance += 10
            if flushes:
                session.flush()

        with listening(target_of(target, session), "before_commit", once(give)):
            user.credits_balance += 5
            session.commit()
        assert user.credits_balance == booked_balance(session, user.user_id) == 75
        assert sum(amount for _, amount in journal(session, user.user_id)) == 75
        check_books(session)
        user.credits_balance += 1  # the commit is over: this one waits for its own
        session.flush()
        assert sum(amount for _, amount in journal(session, user.user_id)) == 75
        session.commit()
        check_books(session)

    await in_session(work)


async def test_a_hook_before_the_commit_may_write_a_purchase(in_session: InSession) -> None:
    """With its sum, in one flush."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()

        def buy() -> None:
            session.add(a_transaction(user=user, stripe_session_id="cs_1", credits_added=50))
            user.credits_balance += 50

        with listening(Session, "before_commit", once(buy)):
            session.commit()
        assert purchases(session, user) == [("~purchase:cs_1", 50)]
        check_books(session)

    await in_session(work)


async def test_a_hook_s_lone_purchase_after_the_booking_is_refused(in_session: InSession) -> None:
    """The sum was booked as an adjustment before the hook wrote what it was for."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()

        def buy() -> None:
            session.add(a_transaction(user=user, stripe_session_id="cs_1", credits_added=50))

        with listening(Session, "before_commit", once(buy)):
            user.credits_balance += 50
            with pytest.raises(Conflict) as caught:
                session.commit()
        assert caught.value.error_type == "BALANCE_CHANGE_AMBIGUOUS"
        session.rollback()
        assert inspect(user).session is session
        assert booked_balance(session, user.user_id) == 100
        assert session.query(Transaction).count() == 0
        check_books(session)

    await in_session(work)


async def test_a_hook_before_the_commit_may_call_the_ledger(in_session: InSession) -> None:
    """And assign beside it."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()

        def use() -> None:
            user.credits_balance += 10
            execute(session, [spend(user.user_id, 115)])
            user.credits_balance += 1

        with listening(Session, "before_commit", once(use)):
            user.credits_balance += 5
            session.commit()
        assert user.credits_balance == booked_balance(session, user.user_id) == 1
        check_books(session)

    await in_session(work)


async def test_after_a_commit_that_a_hook_refused_all_goes_on(in_session: InSession) -> None:
    """What was booked stays booked, and the next commit does the rest."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()

        def refuse() -> None:
            raise ZeroDivisionError

        with listening(Session, "before_commit", once(refuse)):
            user.credits_balance += 5
            with pytest.raises(ZeroDivisionError):
                session.commit()
            session.add(a_transaction(user=user, stripe_session_id="cs_1", credits_added=50))
            user.credits_balance += 50
            session.commit()
        assert journal(session, user.user_id)[1:] == [("adjustment", 5), ("grant", 50)]
        assert purchases(session, user) == [("~purchase:cs_1", 50)]
        check_books(session)

    await in_session(work)
