"""Reading the ledger; nothing here locks or writes.

Every answer counts from one snapshot of the user's book, brought to the present in memory by the
same rules that writes use, so it is exact without a worker (DESIGN §4 rule 8). What further
statements read are rows up to that snapshot's newest entry, which never change.
"""

import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeVar

from sqlalchemy import ARRAY, Integer, cast, exists, func, select
from sqlalchemy.orm import Session

from src.common.credits import errors, rules
from src.common.credits.book import Book, Entry, Lot, Posting, StoredBook
from src.common.credits.commands import Capture, Command, Release, Renew
from src.common.credits.decisions import OPEN_HOLDS_MAX
from src.common.credits.storage import load_books
from src.common.credits.views import (
    Balance,
    DebtState,
    Explanation,
    HistoryEntry,
    HoldState,
    LotState,
    Preview,
)
from src.common.exceptions import Invalid
from src.common.models.credit_entry import (
    CreditEntry,
    CreditEntryMetadata,
    CreditPosting,
    EntryKind,
)
from src.common.models.credit_hold import CreditHold
from src.common.models.credit_lot import CreditLot, LotSource
from src.common.models.user import User
from src.common.pagination import Page, decode_number_cursor

T = TypeVar("T")

_HISTORY_COLUMNS = (
    CreditEntry.seq,
    CreditEntry.kind,
    CreditEntry.amount,
    CreditEntry.balance_after,
    CreditEntry.captured,
    CreditEntry.related_seq,
    CreditEntry.idempotency_key,
    CreditEntry.reference,
    CreditEntry.actor,
    CreditEntry.effective_at,
    CreditEntry.created_at,
)
_BEFORE_THE_LEDGER = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)


def balance(
    session: Session,
    user_id: uuid.UUID,
    *,
    as_of: dt.datetime | None = None,
    now: dt.datetime | None = None,
) -> Balance:
    """The effective balance now, or as of a past instant T.

    As of T everything counts whose `effective_at` is at most T, be it booked yet or not.

    Raises:
        NotFound: USER_NOT_FOUND.
        Invalid: VALIDATION_ERROR, `as_of` has no time zone or lies in the future.
    """
    book = _settled(session, user_id, now=now)
    return _balance_of(book) if as_of is None else _balance_as_of(session, book, as_of)


def history(
    session: Session, user_id: uuid.UUID, *, cursor: str | None, limit: int
) -> Page[HistoryEntry]:
    """One page of the journal as booked, newest first; a primary-key range scan at any depth.

    Raises:
        NotFound: USER_NOT_FOUND.
        Invalid: VALIDATION_ERROR, the cursor is not one of ours.
    """
    statement = (
        select(CreditEntry.seq)
        .where(CreditEntry.user_id == user_id, CreditEntry.seq < decode_number_cursor(cursor))
        .order_by(CreditEntry.seq.desc())
        .limit(limit + 1)
    )
    seqs = session.scalars(statement).all()
    if not seqs and not session.scalar(select(exists().where(User.user_id == user_id))):
        raise errors.user_not_found()
    entries = _entries(session, user_id, seqs[:limit])
    return _page([entries[seq] for seq in seqs[:limit]], seqs, limit)


def holds(
    session: Session,
    user_id: uuid.UUID,
    *,
    cursor: str | None,
    limit: int,
    now: dt.datetime | None = None,
) -> Page[HoldState]:
    """One page of the user's holds, whatever their status, newest first.

    Raises:
        NotFound: USER_NOT_FOUND.
        Invalid: VALIDATION_ERROR, the cursor is not one of ours.
    """
    statement = (
        select(CreditHold.seq)
        .where(CreditHold.user_id == user_id, CreditHold.seq < decode_number_cursor(cursor))
        .order_by(CreditHold.seq.desc())
        .limit(limit + 1)
    )
    seqs = session.scalars(statement).all()
    book = _settled(session, user_id, hold_seqs=seqs[:limit], now=now)
    return _page(_hold_states(session, book, seqs[:limit]), seqs, limit)


def get_hold(
    session: Session, user_id: uuid.UUID, seq: int, *, now: dt.datetime | None = None
) -> HoldState:
    """One hold as it is now.

    Raises:
        NotFound: USER_NOT_FOUND, HOLD_NOT_FOUND.
    """
    book = _settled(session, user_id, hold_seqs=[seq], now=now)
    if seq not in book.holds:
        raise errors.hold_not_found()
    return _hold_states(session, book, [seq])[0]


def preview(session: Session, command: Command, *, now: dt.datetime | None = None) -> Preview:
    """What `command` would do if it were asked now; its key is neither looked up nor used.

    Raises:
        ExceptionWithErrorType: what the command would be refused with.
    """
    named = [command.hold_seq] if isinstance(command, Capture | Release | Renew) else []
    book = _settled(session, command.user_id, hold_seqs=named, now=now)
    result = rules.apply(book, command, open_holds_max=OPEN_HOLDS_MAX)
    return Preview(result=result, entries=list(map(_not_booked, book.entries)))


def explain(session: Session, user_id: uuid.UUID, *, now: dt.datetime | None = None) -> Explanation:
    """Why the balance is what it is: lots, holds and debts with the entry behind each.

    Sums the user's whole journal: made for a person who asks, not for a hot path.

    Raises:
        NotFound: USER_NOT_FOUND.
    """
    stored = _stored(session, user_id, now=now)
    if stored.version == 0:  # from before the ledger: as its opening entry, if any, will have it
        rules.settle(stored)
    booked_balance = stored.balance
    in_lots = sum(lot.remaining for lot in stored.lots.values())
    book = rules.settle(stored)
    total_by_kind = _total_by_kind(session, book)
    lots = book.live_lots()
    open_holds = sorted(hold.seq for hold in book.open_holds)
    owed = {seq: outstanding for seq, outstanding in sorted(book.debts.items()) if outstanding}
    booked = _entries(session, user_id, [*(lot.seq for lot in lots), *owed])
    entries = booked | {entry.seq: _not_booked(entry) for entry in book.entries}
    return Explanation(
        now=_balance_of(book),
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
    now: dt.datetime | None,
) -> StoredBook:
    """The user's book as booked."""
    stored = load_books(session, [user_id], hold_seqs=hold_seqs, now=now).get(user_id)
    if stored is None:
        raise errors.user_not_found()
    return stored


def _settled(
    session: Session,
    user_id: uuid.UUID,
    *,
    hold_seqs: Iterable[int] = (),
    now: dt.datetime | None,
) -> Book:
    return rules.settle(_stored(session, user_id, hold_seqs=hold_seqs, now=now))


def _balance_of(book: Book) -> Balance:
    lots = book.live_lots()
    return Balance(
        balance=book.balance,
        held=book.held,
        debt=book.debt,
        lots=lots,
        next_expiry=_next_expiry(lots),
        version=_booked_version(book),
    )


def _balance_as_of(session: Session, book: Book, as_of: dt.datetime) -> Balance:
    """Entries count in the order of `effective_at`: what counts by then is a first part of them."""
    if as_of.tzinfo is None:
        raise Invalid("as_of: must have a time zone", "VALIDATION_ERROR", field="as_of")
    if as_of > book.now:
        raise Invalid("as_of: lies in the future", "VALIDATION_ERROR", field="as_of")
    newest = session.execute(
        select(CreditEntry.seq, CreditEntry.balance_after)
        .where(
            CreditEntry.user_id == book.user_id,
            CreditEntry.seq <= _booked_version(book),
            CreditEntry.effective_at <= max(as_of, _BEFORE_THE_LEDGER),
        )
        .order_by(CreditEntry.seq.desc())
        .limit(1)
    ).one_or_none()
    version, total = (newest.seq, newest.balance_after) if newest else (0, 0)
    lots = _lots_after(session, book.user_id, version)
    held = _held_after(session, book.user_id, version)
    for due in book.entries:
        if due.effective_at <= as_of:
            total += due.amount
            held -= due.amount if due.kind is EntryKind.HOLD_EXPIRY else 0
            for posting in due.postings:
                lots[posting.lot_seq].remaining = posting.remaining_after
    live = sorted((lot for lot in lots.values() if lot.remaining), key=lambda lot: lot.burn_order)
    return Balance(
        balance=total,
        held=held,
        debt=None,
        lots=live,
        next_expiry=_next_expiry(live),
        version=version,
    )


def _lots_after(session: Session, user_id: uuid.UUID, version: int) -> dict[int, Lot]:
    """All lots as they were right after entry `version`."""
    rows = session.execute(
        select(
            CreditLot.seq,
            CreditLot.source,
            CreditLot.priority,
            CreditLot.granted,
            CreditLot.expires_at,
            CreditLot.transaction_id,
            func.sum(CreditPosting.amount).label("remaining"),
            func.max(CreditPosting.seq).label("last_seq"),
        )
        .join(
            CreditPosting,
            (CreditPosting.user_id == CreditLot.user_id) & (CreditPosting.lot_seq == CreditLot.seq),
        )
        .where(CreditLot.user_id == user_id, CreditPosting.seq <= version)
        .group_by(CreditLot.user_id, CreditLot.seq)
    )
    return {
        row.seq: Lot(
            seq=row.seq,
            source=LotSource(row.source),
            priority=row.priority,
            granted=row.granted,
            expires_at=row.expires_at,
            remaining=row.remaining,
            last_seq=row.last_seq,
            transaction_id=row.transaction_id,
        )
        for row in rows
    }


def _held_after(session: Session, user_id: uuid.UUID, version: int) -> int:
    """What open holds kept out of the balance: taken, less what was captured or came back."""
    moved = func.sum(CreditEntry.amount + func.coalesce(CreditEntry.captured, 0))
    moving = [EntryKind.HOLD, EntryKind.CAPTURE, EntryKind.RELEASE, EntryKind.HOLD_EXPIRY]
    total = session.scalars(
        select(moved).where(
            CreditEntry.user_id == user_id,
            CreditEntry.seq <= version,
            CreditEntry.kind.in_(moving),
        )
    ).one()
    return -(total or 0)


def _total_by_kind(session: Session, book: Book) -> dict[str, int]:
    rows = session.execute(
        select(CreditEntry.kind, func.sum(CreditEntry.amount))
        .where(CreditEntry.user_id == book.user_id, CreditEntry.seq <= _booked_version(book))
        .group_by(CreditEntry.kind)
    )
    totals = {kind: int(total) for kind, total in rows}
    openings = (entry for entry in book.entries if entry.kind is EntryKind.OPENING)
    return totals | {str(entry.kind): entry.amount for entry in openings}


def _hold_states(session: Session, book: Book, seqs: Sequence[int]) -> list[HoldState]:
    entries = _entries(session, book.user_id, seqs)
    return [HoldState(hold=book.holds[seq], entry=entries[seq]) for seq in seqs]


def _entries(session: Session, user_id: uuid.UUID, seqs: Sequence[int]) -> dict[int, HistoryEntry]:
    """The booked ones of these entries, by `seq`."""
    wanted = func.any(cast(list(seqs), ARRAY(Integer)))
    postings: dict[int, list[Posting]] = defaultdict(list)
    for line in session.execute(
        select(
            CreditPosting.seq,
            CreditPosting.lot_seq,
            CreditPosting.amount,
            CreditPosting.remaining_after,
        )
        .where(CreditPosting.user_id == user_id, CreditPosting.seq == wanted)
        .order_by(CreditPosting.seq, CreditPosting.lot_seq)
    ):
        postings[line.seq].append(Posting(line.lot_seq, line.amount, line.remaining_after))
    rows = session.execute(
        select(*_HISTORY_COLUMNS, CreditEntryMetadata.document.label("metadata"))
        .outerjoin(
            CreditEntryMetadata,
            (CreditEntryMetadata.user_id == CreditEntry.user_id)
            & (CreditEntryMetadata.seq == CreditEntry.seq),
        )
        .where(CreditEntry.user_id == user_id, CreditEntry.seq == wanted)
    ).mappings()
    return {row["seq"]: HistoryEntry(**row, postings=postings.get(row["seq"], [])) for row in rows}


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


def _booked_version(book: Book) -> int:
    return book.version - len(book.entries)


def _next_expiry(lots: Iterable[Lot]) -> dt.datetime | None:
    return min((lot.expires_at for lot in lots if lot.expires_at is not None), default=None)


def _page(items: Sequence[T], seqs: Sequence[int], limit: int) -> Page[T]:
    """The page of these items; `seqs` has one more where there is a next page."""
    return Page(items, str(seqs[limit - 1]) if len(seqs) > limit else None)
