"""Reading the ledger: balance, history, holds, previews. Nothing here locks or writes entries.

Every answer is of one snapshot of the user's book. The rules that writes use bring it to the
present in memory. So what has expired does not count, whether or not a worker has booked that
(rule 8).

What the session has changed and not booked yet is flushed, and counts as its commit would book it.
What further statements read are rows up to that snapshot's newest entry, which never change.
"""

import datetime as dt
import uuid
from collections.abc import Iterable, Sequence
from typing import TypeVar

from sqlalchemy import (
    ColumnElement,
    Integer,
    Uuid,
    and_,
    bindparam,
    exists,
    func,
    or_,
    select,
)
from sqlalchemy.orm import Session

from src.common.credits import requests
from src.common.credits.assigned_balances import Pending, read_pending
from src.common.credits.domain import errors, rules
from src.common.credits.domain.arguments import (
    check_choice,
    check_instant,
    check_number,
    check_text,
    check_user_id,
)
from src.common.credits.domain.book import Book, Entry, StoredBook
from src.common.credits.domain.commands import (
    AMOUNT_MAX,
    KEY_LENGTH_MAX,
    Command,
)
from src.common.credits.domain.decisions import OPEN_HOLDS_MAX, entries_named, holds_named
from src.common.credits.domain.views import (
    Balance,
    DebtState,
    Explanation,
    HistoryEntry,
    HoldState,
    LotState,
    Preview,
    next_expiry,
)
from src.common.credits.entries import read_entries
from src.common.credits.past import balance_as_of
from src.common.credits.persistence.running import run
from src.common.credits.persistence.storage import EntryId, load_books, reading_connection_of
from src.common.models.credit_entry import (
    CreditEntry,
    EntryKind,
)
from src.common.models.credit_hold import CreditHold, HoldStatus
from src.common.models.user import User
from src.common.postgres.lagging_reads import may_lag
from src.common.postgres.pagination import PAGE_SIZE_DEFAULT, Page, decode_number_cursor
from src.common.sharding.refusals import refuse_other_groups

T = TypeVar("T")

_PAGE = (
    select(CreditEntry.seq)
    .where(
        CreditEntry.user_id == bindparam("user_id", type_=Uuid(as_uuid=True)),
        CreditEntry.seq < bindparam("before", type_=Integer),
    )
    .order_by(CreditEntry.seq.desc())
    .limit(bindparam("limit", type_=Integer))
)
"""The numbers of a page's entries."""


def balance(
    session: Session,
    user_id: uuid.UUID,
    *,
    as_of: dt.datetime | None = None,
    now: dt.datetime | None = None,
) -> Balance:
    """What a user may spend now, or could spend at a past instant.

    Args:
        session: May be in a database transaction or not; it is not committed.
        user_id: Whose balance.
        as_of: The past instant, with a time zone. Every entry counts whose `effective_at` is not
            after it, also one that is not booked yet. None is now.
        now: Replaces the database's clock, in tests.

    Raises:
        NotFound: USER_NOT_FOUND.
        Invalid: VALIDATION_ERROR, `as_of` has no time zone or lies in the future.
    """
    if as_of is not None:
        check_instant("as_of", as_of)
    book = settled_book(session, user_id, now=now)
    return balance_of(book) if as_of is None else balance_as_of(session, book, as_of)


@may_lag
def history(
    session: Session,
    user_id: uuid.UUID,
    *,
    cursor: str | None = None,
    limit: int = PAGE_SIZE_DEFAULT,
) -> Page[HistoryEntry]:
    """One page of the entries that are booked, the newest first.

    A page is a range of the primary key: the last costs as much as the first.

    Args:
        session: May be in a database transaction or not; it is not committed.
        user_id: Whose entries.
        cursor: `next_cursor` of the page before; None is the first page.
        limit: How many entries at most, 1 or more.

    Raises:
        NotFound: USER_NOT_FOUND.
        Invalid: VALIDATION_ERROR, the cursor is not one of ours.
    """
    check_user_id(user_id)
    parameters = {"user_id": user_id, "before": _before(cursor), "limit": _one_more(limit)}
    session.flush()
    seqs = run(reading_connection_of(session), _PAGE, parameters).scalars().all()
    if not seqs and not session.scalar(select(exists().where(User.user_id == user_id))):
        refuse_other_groups(session.connection(), [user_id])
        raise errors.user_not_found()
    entries = read_entries(session, user_id, seqs[:limit])
    return _page([entries[seq] for seq in seqs[:limit]], seqs, limit)


def holds(
    session: Session,
    user_id: uuid.UUID,
    *,
    cursor: str | None = None,
    limit: int = PAGE_SIZE_DEFAULT,
    status: HoldStatus | None = None,
    now: dt.datetime | None = None,
) -> Page[HoldState]:
    """One page of the user's holds, the newest first.

    Args:
        session: May be in a database transaction or not; it is not committed.
        user_id: Whose holds.
        cursor: `next_cursor` of the page before; None is the first page.
        limit: How many holds at most, 1 or more.
        status: Only holds that have it now; None is all. A hold whose time has come has expired,
            whether or not that is booked.
        now: Replaces the database's clock, in tests.

    Raises:
        NotFound: USER_NOT_FOUND.
        Invalid: VALIDATION_ERROR, the cursor is not one of ours, or there is no such status.
    """
    _check(user_id, now)
    if status is not None:
        check_choice("status", status, list(HoldStatus))
    statement = (
        select(CreditHold.seq)
        .where(CreditHold.user_id == user_id, CreditHold.seq < _before(cursor))
        .order_by(CreditHold.seq.desc())
        .limit(_one_more(limit))
    )
    if status is not None:
        statement = statement.where(_has_status(status, now))
    seqs = session.scalars(statement).all()
    book = settled_book(session, user_id, hold_seqs=seqs[:limit], now=now)
    return _page(_hold_states(session, book, seqs[:limit]), seqs, limit)


def get_hold(
    session: Session, user_id: uuid.UUID, seq: int, *, now: dt.datetime | None = None
) -> HoldState:
    """One hold as it is now, by the number of the entry that opened it.

    Raises:
        NotFound: USER_NOT_FOUND, HOLD_NOT_FOUND.
        Invalid: VALIDATION_ERROR, `seq` is no integer of 1 or more.
    """
    check_number("seq", seq)
    book = settled_book(session, user_id, hold_seqs=[seq], now=now)
    if seq not in book.holds:
        raise errors.hold_not_found()
    return _hold_states(session, book, [seq])[0]


def preview(session: Session, command: Command, *, now: dt.datetime | None = None) -> Preview:
    """What a command would answer and write now; nothing is written.

    Its key is neither looked up nor used: a preview never answers a replay.

    Args:
        session: May be in a database transaction or not; it is not committed.
        command: As the functions of `requests.py` make it.
        now: Replaces the database's clock, in tests.

    Raises:
        ExceptionWithErrorType: What the command would be refused with.
    """
    requests.of_caller(command)
    named = holds_named([command])
    book = settled_book(
        session, command.user_id, hold_seqs=named, originals=entries_named([command]), now=now
    )
    result = rules.apply(book, command, open_holds_max=OPEN_HOLDS_MAX)
    return Preview(result=result, entries=list(map(_not_booked, book.entries)))


@may_lag
def explain(session: Session, user_id: uuid.UUID, *, now: dt.datetime | None = None) -> Explanation:
    """Why the balance is what it is: lots, holds and debts, each with the entry that made it.

    It sums all the user's entries. So it is for a person who asks, not for every request.

    Raises:
        NotFound: USER_NOT_FOUND.
    """
    stored, pending = _stored(session, user_id, now=now)
    if stored.version == 0:  # from before the ledger: as its opening entry, if any, will have it
        rules.settle(stored)
    booked_balance = stored.balance
    in_lots = sum(lot.remaining for lot in stored.lots.values())
    book = rules.settle(stored)
    total_by_kind = _total_by_kind(session, book)
    _apply_pending(book, pending)
    lots = book.live_lots()
    open_holds = sorted(hold.seq for hold in book.open_holds)
    owed = {seq: outstanding for seq, outstanding in sorted(book.debts.items()) if outstanding}
    booked = read_entries(session, user_id, [*(lot.seq for lot in lots), *owed])
    entries = booked | {entry.seq: _not_booked(entry) for entry in book.entries}
    return Explanation(
        now=balance_of(book),
        booked_balance=booked_balance,
        total_by_kind=total_by_kind,
        lots=[LotState(lot=lot, entry=entries[lot.seq]) for lot in lots],
        holds=_hold_states(session, book, open_holds),
        debts=[DebtState(outstanding=owed[seq], entry=entries[seq]) for seq in owed],
        due=list(map(_not_booked, book.entries)),
        agrees=booked_balance == in_lots == sum(total_by_kind.values()),
    )


def _stored(
    session: Session,
    user_id: uuid.UUID,
    *,
    hold_seqs: Iterable[int] = (),
    originals: Sequence[EntryId] = (),
    now: dt.datetime | None,
) -> tuple[StoredBook, Pending]:
    """The user's book as booked, and what the session has changed and not booked yet."""
    _check(user_id, now)
    session.flush()
    pending = read_pending(session).get(user_id, Pending())
    stored = load_books(session, [user_id], hold_seqs=hold_seqs, originals=originals, now=now).get(
        user_id
    )
    if stored is None:
        raise errors.user_not_found()
    stored.balance -= pending.delta
    return stored, pending


def settled_book(
    session: Session,
    user_id: uuid.UUID,
    *,
    hold_seqs: Iterable[int] = (),
    originals: Sequence[EntryId] = (),
    now: dt.datetime | None,
) -> Book:
    """The user's book as the next operation would find it; nothing of it is to be written.

    Raises:
        NotFound: USER_NOT_FOUND.
    """
    stored, pending = _stored(session, user_id, hold_seqs=hold_seqs, originals=originals, now=now)
    book = rules.settle(stored)
    _apply_pending(book, pending)
    return book


def _apply_pending(book: Book, pending: Pending) -> None:
    for command in pending.commands(book.user_id):
        rules.apply(book, command, open_holds_max=OPEN_HOLDS_MAX)


def balance_of(book: Book) -> Balance:
    """What the user of a settled book has."""
    lots = book.live_lots()
    return Balance(
        balance=book.balance,
        held=book.held,
        debt=book.debt,
        lots=lots,
        next_expiry=next_expiry(lots),
        version=book.version_before,
    )


def _total_by_kind(session: Session, book: Book) -> dict[str, int]:
    rows = session.execute(
        select(CreditEntry.kind, func.sum(CreditEntry.amount))
        .where(CreditEntry.user_id == book.user_id, CreditEntry.seq <= book.version_before)
        .group_by(CreditEntry.kind)
    )
    totals = {kind: int(total) for kind, total in rows}
    openings = (entry for entry in book.entries if entry.kind is EntryKind.OPENING)
    return totals | {str(entry.kind): entry.amount for entry in openings}


def _hold_states(session: Session, book: Book, seqs: Sequence[int]) -> list[HoldState]:
    entries = read_entries(session, book.user_id, seqs)
    return [HoldState(hold=book.holds[seq], entry=entries[seq]) for seq in seqs]


def _not_booked(entry: Entry) -> HistoryEntry:
    """An entry the rules have decided on, shown as it would be booked."""
    return HistoryEntry(
        seq=entry.seq,
        kind=str(entry.kind),
        amount=entry.amount,
        balance_after=entry.balance_after,
        captured=entry.captured,
        related_seq=entry.related_seq,
        idempotency_key=entry.key,
        reference=entry.reference,
        actor=entry.actor,
        effective_at=entry.effective_at,
        created_at=entry.created_at,
        postings=entry.postings,
        metadata=entry.metadata,
    )


def _has_status(status: HoldStatus, now: dt.datetime | None) -> ColumnElement[bool]:
    """As of now: an open hold whose time has come has expired, booked or not."""
    is_over = CreditHold.expires_at <= func.coalesce(now, func.statement_timestamp())
    is_open = CreditHold.status == HoldStatus.OPEN
    if status == HoldStatus.OPEN:
        return and_(is_open, ~is_over)
    if status == HoldStatus.EXPIRED:
        return or_(CreditHold.status == HoldStatus.EXPIRED, and_(is_open, is_over))
    return CreditHold.status == status


def _check(user_id: uuid.UUID, now: dt.datetime | None) -> None:
    check_user_id(user_id)
    if now is not None:
        check_instant("now", now)


def _before(cursor: str | None) -> int:
    """The number a page ends before."""
    if cursor is not None:
        check_text("cursor", cursor, KEY_LENGTH_MAX)
    return decode_number_cursor(cursor)


def _one_more(limit: int) -> int:
    """How many rows to ask for: the last only tells that there is a next page."""
    check_number("limit", limit, AMOUNT_MAX - 1)
    return limit + 1


def _page(items: Sequence[T], seqs: Sequence[int], limit: int) -> Page[T]:
    """The page of these items; `seqs` has one more where there is a next page."""
    return Page(items, str(seqs[limit - 1]) if len(seqs) > limit else None)
