"""Whatever writes an entry settles first: no road leads past what fell due before it."""

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from src.common.credits import ledger
from src.common.credits.domain import rules
from src.common.credits.domain.book import Book, Hold, Lot, StoredBook
from src.common.credits.due import expire_due
from src.common.credits.money_back import lot_of_purchase, settle_reversals
from src.common.credits.opening import opening_import
from src.common.credits.opening.opening import settle_books, write_openings
from src.common.credits.operations import execute, execute_each
from src.common.credits.persistence.storage import load_books
from src.common.database import SessionLocal
from src.common.models.credit_entry import CreditEntry, EntryKind
from src.common.models.credit_hold import HoldStatus
from src.common.models.credit_lot import CreditLot, LotSource
from src.common.models.transaction import Transaction
from src.common.models.user import User
from src.local_postgres import ConnectionParameters
from tests.credits.books import (
    InSession,
    adjust,
    booked_balance,
    capture,
    check_books,
    grant,
    hash_again,
    journal,
    make_user,
    open_hold,
    release,
    renew,
    spend,
    triggers_off,
)
from tests.credits.committed import look
from tests.credits.engine.batching import running

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
HOLD_OPEN = 3
"""The `seq` of the hold that `behind` leaves open."""
LEFT = 70 - 4
"""What they really have: the other lot died, the other hold came back."""

Road = Callable[[Session, User], Any]


def behind(session: Session) -> User:
    """Somebody for whom a hold and a lot fell due, and nobody has booked it.

    They are from before the ledger, with a purchase of then and no opening entry.
    """
    user = make_user(session)
    who = user.user_id
    then = session.scalars(select(func.now() - dt.timedelta(hours=1))).one()
    dies = then + dt.timedelta(seconds=10)
    commands = [
        grant(who, 50, expires_at=dies),
        grant(who, 70, priority=5),
        open_hold(who, 4, 86_400),
        open_hold(who, 5, 5),
    ]
    execute(session, commands, now=then)
    with triggers_off(session, "transactions"):
        session.add(
            Transaction(
                user_id=who,
                stripe_session_id=f"cs_{who}",
                amount_paid_cents=500,
                credits_added=500,
                predates_ledger=True,
            )
        )
    session.commit()
    return user


def the_purchase(session: Session, user: User) -> Transaction:
    """What was bought before the ledger."""
    return session.scalars(select(Transaction).where(Transaction.user_id == user.user_id)).one()


def money_back(session: Session, user: User) -> None:
    """All of the purchase from before the ledger is refunded, as `purchases` does it."""
    lot = lot_of_purchase(session, the_purchase(session, user))
    assert lot is not None
    settle_reversals(session, user.user_id, {lot: 500}, key="~refund:re", actor="system:stripe")


def assigned(session: Session, user: User) -> None:
    """The document's own line."""
    user.credits_balance += 9
    session.commit()


def bought(session: Session, user: User) -> None:
    """The document's own purchase."""
    purchase = {"stripe_session_id": f"cs_new_{user.user_id}", "amount_paid_cents": 9}
    session.add(Transaction(user_id=user.user_id, credits_added=9, **purchase))
    assigned(session, user)


def one(word: Callable[..., Any], *arguments: Any, **named: Any) -> Road:
    """One command through `execute`."""
    return lambda session, user: execute(session, [word(user.user_id, *arguments, **named)])


ROADS: dict[str, Road] = {
    "grant": one(grant, 1),
    "spend": one(spend, 1),
    "adjust": one(adjust, 1),
    "burn": one(adjust, -1),
    "hold": one(open_hold, 1),
    "capture": one(capture, HOLD_OPEN, 1),
    "release": one(release, HOLD_OPEN),
    "renew": one(renew, HOLD_OPEN, 60),
    "several": lambda session, user: execute_each(session, [spend(user.user_id, 1)] * 3),
    "assigned": assigned,
    "bought": bought,
    "settle_books": lambda session, user: settle_books(session, [user.user_id]),
    "write_openings": lambda session, user: write_openings(session, [user.user_id]),
    "lot_of_purchase": lambda session, user: lot_of_purchase(session, the_purchase(session, user)),
    "money_back": money_back,
    "expire_due": lambda session, _: expire_due(session),
}


def overdue(session: Session, user_id: uuid.UUID) -> list[int]:
    """Lots that were dead when the newest entry counted, and still hold credits."""
    newest = (
        select(CreditEntry.effective_at)
        .where(CreditEntry.user_id == user_id)
        .order_by(CreditEntry.seq.desc())
        .limit(1)
        .scalar_subquery()
    )
    return list(
        session.scalars(
            select(CreditLot.seq).where(
                CreditLot.user_id == user_id,
                CreditLot.expires_at <= newest,
                CreditLot.remaining > 0,
            )
        )
    )


def goes_on(session: Session, user_id: uuid.UUID) -> None:
    """Their books balance, nothing is overdue, and they can be written to."""
    check_books(session)
    assert overdue(session, user_id) == []
    execute(session, [grant(user_id, 1_000), spend(user_id, 1)])
    check_books(session)


@pytest.mark.parametrize("road", ROADS.values(), ids=ROADS)
async def test_every_road_settles_first(in_session: InSession, road: Road) -> None:
    """What fell due is booked before the new entry, which is the last; then all goes on."""

    def work(session: Session) -> None:
        user = behind(session)
        road(session, user)
        written = [kind for kind, _ in journal(session, user.user_id)][4:]
        assert written[:2] == [EntryKind.HOLD_EXPIRY, EntryKind.LOT_EXPIRY]
        goes_on(session, user.user_id)

    await in_session(work)


def test_an_import_settles_first(fresh_database: ConnectionParameters) -> None:
    """So does a whole import, which says what a dry run said and changes what nobody has."""
    assert fresh_database
    with SessionLocal() as session:
        who = behind(session).user_id
    *_, foretold = opening_import.import_openings(SessionLocal, dry_run=True)
    *_, report = opening_import.import_openings(SessionLocal)
    assert report == foretold
    assert report.opened == 1
    assert look(lambda session: booked_balance(session, who)) == LEFT
    assert look(lambda session: journal(session, who))[-1] == (EntryKind.OPENING, 0)
    assert list(opening_import.import_openings(SessionLocal)) == []
    with SessionLocal() as session:
        goes_on(session, who)


@pytest.mark.xdist_group("credits_engine")
async def test_the_engine_settles_first(fresh_database: ConnectionParameters) -> None:
    """The first batch of a connection, which locks, and the next, which does not."""
    assert fresh_database
    with SessionLocal() as session:
        people = [behind(session).user_id for _ in range(2)]
    async with running(credits_engine_lanes=1) as engine:
        for who in people:
            await engine.grant(who, 1, key="k")
    with SessionLocal() as session:
        for who in people:
            assert [kind for kind, _ in journal(session, who)][4:] == [
                EntryKind.HOLD_EXPIRY,
                EntryKind.LOT_EXPIRY,
                EntryKind.GRANT,
            ]
            goes_on(session, who)


def write_opening_past_what_is_due(session: Session, user: User) -> None:
    """As releases before did it, past triggers that found nothing wrong with it then."""
    with triggers_off(session, "users"), triggers_off(session, "credit_entries"):
        session.execute(
            text(
                """
                WITH opening AS (
                  INSERT INTO credit_entries (user_id, seq, kind, amount, balance_after,
                    result_balance, idempotency_key, request_digest, actor, effective_at,
                    created_at)
                  SELECT user_id, credits_version + 1, 'opening', 0, credits_balance,
                    credits_balance, '~opening', sha256(''), 'system:ledger', now(), now()
                  FROM users WHERE user_id = :user_id)
                UPDATE users SET credits_version = credits_version + 1 WHERE user_id = :user_id
                """
            ),
            {"user_id": user.user_id},
        )
    hash_again(session, user.user_id)


WRITING = [name for name in ROADS if name not in {"write_openings", "lot_of_purchase"}]
"""The others have nothing to write for those who have an opening entry."""


@pytest.mark.parametrize("name", WRITING)
async def test_who_was_left_behind_is_healed_by_the_next_write(
    in_session: InSession, name: str
) -> None:
    """What is due from before the last entry counts from that entry's instant."""

    def work(session: Session) -> None:
        user = behind(session)
        write_opening_past_what_is_due(session, user)
        ROADS[name](session, user)
        goes_on(session, user.user_id)
        rows = session.execute(
            select(CreditEntry.kind, CreditEntry.effective_at)
            .where(CreditEntry.user_id == user.user_id, CreditEntry.seq >= 5)
            .order_by(CreditEntry.seq)
        ).all()
        assert [kind for kind, _ in rows[:3]] == [
            EntryKind.OPENING,
            EntryKind.HOLD_EXPIRY,
            EntryKind.LOT_EXPIRY,
        ]
        assert len({instant for _, instant in rows[:3]}) == 1

    await in_session(work)


async def test_reading_who_was_left_behind_shows_what_they_have(in_session: InSession) -> None:
    """The balance is what the next write will book."""

    def work(session: Session) -> None:
        user = behind(session)
        write_opening_past_what_is_due(session, user)
        assert ledger.balance(session, user.user_id).balance == LEFT
        assert ledger.explain(session, user.user_id).now.balance == LEFT
        assert expire_due(session) == 1
        assert booked_balance(session, user.user_id) == LEFT

    await in_session(work)


async def test_a_books_instants_are_in_utc(in_session: InSession) -> None:
    """Whatever the session's time zone: in its own, two instants an hour apart may look alike."""

    def work(session: Session) -> None:
        session.execute(text("SET LOCAL TIME ZONE 'Europe/Berlin'"))
        user = make_user(session, 5)
        book = load_books(session, [user.user_id])[user.user_id]
        assert {book.now.tzinfo, book.last_effective_at.tzinfo} == {dt.UTC}

    await in_session(work)


def a_book(**others: Any) -> Book:
    """One lot that is long dead, another that lives."""
    lots = {
        1: Lot(1, LotSource.PROMO, 10, 30, LONG_AGO, 30, 1),
        2: Lot(2, LotSource.PROMO, 10, 40, None, 40, 2),
    }
    return Book(uuid.uuid4(), 70, 2, True, NOW, lots=lots, **others)


def test_nothing_is_appended_to_a_book_that_is_not_settled() -> None:
    """A bug of ours, told at once, however the book came to be unsettled; it stays as it was."""
    book = a_book()
    with pytest.raises(RuntimeError, match="settle the book first"):
        rules.apply(book, spend(book.user_id, 1), open_holds_max=1)
    assert (book.entries, book.version, book.balance) == ([], 2, 70)
    rules.settle(book)
    rules.apply(book, spend(book.user_id, 1), open_holds_max=1)
    assert [str(entry.kind) for entry in book.entries] == ["lot_expiry", "spend"]
    book.now += dt.timedelta(seconds=1)
    with pytest.raises(RuntimeError, match="settle the book first"):
        rules.write_late_opening(book)
    later = book.succeeded_by(StoredBook(book.user_id, 0, 0, True, book.now))
    with pytest.raises(RuntimeError, match="settle the book first"):
        rules.apply(later, spend(book.user_id, 1), open_holds_max=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [-1, 1])
def test_no_entry_counts_from_before_the_last_or_from_the_future(seconds: int) -> None:
    """No later entry could follow it."""
    book = rules.settle(a_book(last_effective_at=NOW))
    with pytest.raises(RuntimeError, match="does not follow"):
        book.write(EntryKind.RENEWAL, [], effective_at=NOW + dt.timedelta(seconds=seconds))


def test_what_was_due_before_the_last_entry_counts_from_it() -> None:
    """At the same instant then: holds before lots, so that debts are repaid before lots die."""
    last = NOW - dt.timedelta(seconds=5)
    book = a_book(last_effective_at=last, debts={2: 10})
    book.lots[2].remaining, book.balance = 0, 30
    later = LONG_AGO + dt.timedelta(seconds=1)
    book.holds[3] = Hold(3, 10, 0, HoldStatus.OPEN, later, {1: 10})
    rules.settle(book)
    assert [(str(entry.kind), entry.amount, entry.effective_at) for entry in book.entries] == [
        ("hold_expiry", 10, last),
        ("debt_repayment", -10, last),
        ("lot_expiry", -30, last),
    ]


def test_what_is_read_is_no_book_yet() -> None:
    """Only `storage.py` makes books."""
    with pytest.raises(TypeError):
        rules.settle(StoredBook(uuid.uuid4(), 0, 0, True, NOW))


def test_an_opening_entry_says_the_balance_it_left() -> None:
    """What was there before the ledger is what its entry, too, answers with."""
    [entry] = rules.settle(Book(uuid.uuid4(), 70, 0, True, NOW)).entries
    assert (entry.amount, entry.balance_after, entry.result_balance) == (70, 70, 70)
