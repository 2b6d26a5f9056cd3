"""What is flushed and not yet booked counts in every answer, as the commit would book it."""

import datetime as dt
from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from src.common.credits import ledger
from src.common.credits.domain.errors import InsufficientCredits
from src.common.credits.operations import execute
from src.common.exceptions import Conflict
from src.common.models.user import User
from tests.credits.books import (
    InSession,
    check_books,
    from_before,
    grant,
    journal,
    make_user,
    owe,
    spend,
)
from tests.models.examples import a_transaction, a_user

Change = Callable[[Session, User], object]
LONG_AGO = dt.datetime.now(dt.UTC) - dt.timedelta(days=9)


def up(_session: Session, user: User) -> None:
    """An adjustment."""
    user.credits_balance += 50


def down(_session: Session, user: User) -> None:
    """Takes from what does not expire."""
    user.credits_balance -= 25


def bought(session: Session, user: User) -> None:
    """A purchase."""
    session.add(a_transaction(user=user, stripe_session_id="cs_1", credits_added=50))
    user.credits_balance += 50


def none(_session: Session, _user: User) -> None:
    """Only what is due."""


CHANGES: list[Change] = [up, down, bought, none]
changes = pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)


def somebody(session: Session) -> User:
    """40 credits, and 60 that have expired unnoticed."""
    user = make_user(session)
    expiry = LONG_AGO + dt.timedelta(days=1)
    execute(session, [grant(user.user_id, 60, expires_at=expiry)], now=LONG_AGO)
    execute(session, [grant(user.user_id, 40)], now=LONG_AGO)
    session.commit()
    return user


@changes
@pytest.mark.parametrize("autoflush", [False, True])
async def test_reads_agree_with_what_the_commit_leaves(
    in_session: InSession, *, change: Change, autoflush: bool
) -> None:
    """`balance`, `explain` and `preview`, with the session's autoflush or without."""

    def work(session: Session) -> None:
        user = somebody(session)
        who = user.user_id
        session.autoflush = autoflush
        change(session, user)
        before = ledger.balance(session, who)
        explanation = ledger.explain(session, who)
        command = spend(who, before.balance)
        with pytest.raises(InsufficientCredits):
            ledger.preview(session, spend(who, before.balance + 1))
        preview = ledger.preview(session, command)
        assert preview.result.balance == 0
        assert sum(entry.amount for entry in preview.entries) == -explanation.booked_balance
        assert explanation.agrees
        assert explanation.now == before
        assert before.balance == sum(lot.remaining for lot in before.lots)
        assert journal(session, who) == [("grant", 60), ("grant", 40)]
        session.commit()
        after = ledger.balance(session, who)
        assert (after.balance, after.debt, after.held) == (before.balance, 0, 0)
        assert [(lot.seq, lot.source, lot.remaining) for lot in after.lots] == [
            (lot.seq, lot.source, lot.remaining) for lot in before.lots
        ]
        [result] = execute(session, [command])
        assert (result.balance, result.amount) == (0, preview.result.amount)
        session.commit()
        check_books(session)

    await in_session(work)


async def test_a_sum_repays_debts_in_every_answer(in_session: InSession) -> None:
    """As it will when it is booked."""

    def work(session: Session) -> None:
        user = make_user(session, 10)
        user.credits_balance -= 10
        session.commit()
        owe(session, user.user_id, 1, 7)
        session.commit()
        user.credits_balance += 20
        seen = ledger.balance(session, user.user_id)
        assert (seen.balance, seen.debt) == (13, 0)
        assert ledger.preview(session, spend(user.user_id, 13)).result.balance == 0
        session.commit()
        assert user.credits_balance == 13
        check_books(session)

    await in_session(work)


async def test_a_newcomer_s_balance_is_read_as_opened(in_session: InSession) -> None:
    """Before any entry is there."""

    def work(session: Session) -> None:
        user = a_user(credits_balance=40)
        session.add(user)
        session.flush()
        seen = ledger.balance(session, user.user_id)
        assert [lot.remaining for lot in seen.lots] == [seen.balance] == [40]
        assert ledger.preview(session, spend(user.user_id, 40)).result.balance == 0
        session.commit()
        assert journal(session, user.user_id) == [("opening", 40)]
        check_books(session)

    await in_session(work)


async def test_what_the_commit_would_refuse_is_refused(in_session: InSession) -> None:
    """No answer can be given for books that will not be."""

    def work(session: Session) -> None:
        user = make_user(session, 10)
        session.commit()
        session.add(a_transaction(user=user, credits_added=50))
        user.credits_balance += 49
        for read in (ledger.balance, ledger.explain):
            with pytest.raises(Conflict) as caught:
                read(session, user.user_id)
            assert caught.value.error_type == "BALANCE_CHANGE_AMBIGUOUS"
        session.rollback()
        assert ledger.balance(session, user.user_id).balance == 10

    await in_session(work)


async def test_the_past_knows_nothing_of_it(in_session: InSession) -> None:
    """As of the present instant it counts, as of an earlier one it does not."""

    def work(session: Session) -> None:
        user = make_user(session, 10)
        session.commit()
        now = session.execute(text("SELECT clock_timestamp()")).scalar_one()
        later = now + dt.timedelta(seconds=60)
        user.credits_balance += 5
        assert ledger.balance(session, user.user_id, as_of=now, now=later).balance == 10
        seen = ledger.balance(session, user.user_id, as_of=later, now=later)
        assert (seen.balance, sum(lot.remaining for lot in seen.lots)) == (15, 15)

    await in_session(work)


async def test_a_balance_from_before_the_ledger_counts_as_of_now(in_session: InSession) -> None:
    """Its opening entry is not written yet; as of this very instant it counts all the same."""

    def work(session: Session) -> None:
        user = from_before(session, 30)
        now = session.execute(text("SELECT clock_timestamp()")).scalar_one()
        seen = ledger.balance(session, user.user_id, as_of=now, now=now)
        assert (seen.balance, sum(lot.remaining for lot in seen.lots)) == (30, 30)

    await in_session(work)
