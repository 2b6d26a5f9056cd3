"""The rules of every operation: pure functions over a `Book` (rules 2 to 8).

Each operation checks everything before it changes anything, so that a refusal leaves the book as
it was. `settle` comes first, everywhere: it brings the book to the present, and only what it
returns can be changed. What it decides is written only with an operation that succeeds.
"""

import datetime as dt
from collections.abc import Callable
from typing import Any

from src.common.credits.domain import entry_reversals, errors, steps
from src.common.credits.domain.book import Book, Entry, Hold, Lot, StoredBook, burn_order
from src.common.credits.domain.commands import (
    DEFAULT_PRIORITY,
    Adjust,
    Capture,
    Command,
    Grant,
    OpenHold,
    Release,
    Renew,
    Result,
    Reverse,
    Spend,
)
from src.common.credits.domain.own_commands import (
    OPENING_KEY,
    ApprovedAdjustment,
    ApprovedGrant,
    ApprovedRelease,
    ApprovedReversal,
    Assignment,
    Opening,
    Purchase,
    opening,
)
from src.common.models.credit_entry import EntryKind
from src.common.models.credit_hold import HoldStatus
from src.common.models.credit_lot import LotSource


def settle(stored: StoredBook) -> Book:
    """Bring the book to `now`: everything that fell due counts from its own instant.

    In the order of the instants, at the same instant holds before lots. What was due before the
    last entry, as a faulty release left it, counts from that entry's instant (rule 8). A balance
    from before the ledger gets its opening entry: then there is nothing else to be due.
    """
    if not isinstance(stored, Book):
        raise TypeError("a book is read by storage.py")
    book = stored  # the same one: it costs nothing, and nobody else writes into it
    now = book.settled_at = book.now
    if book.version == 0 and book.balance != 0:
        _write_opening(book)
        return book
    last = book.last_effective_at
    due: list[tuple[dt.datetime, int, int]] = []
    for hold in book.holds.values():
        if hold.status is HoldStatus.OPEN and hold.expires_at <= now:
            due.append((max(hold.expires_at, last), 0, hold.seq))  # noqa: PERF401
    for lot in book.lots.values():
        if lot.expires_at is not None and lot.expires_at <= now:
            due.append((max(lot.expires_at, last), 1, lot.seq))  # noqa: PERF401
    if not due:  # as mostly
        return book
    for instant, is_lot, seq in sorted(due):
        if is_lot:
            steps.expire_lot(book, book.lots[seq], instant)
        else:
            _expire_hold(book, book.holds[seq], instant)
    return book


def write_late_opening(book: Book) -> None:
    """Write the opening entry of one who has nothing from before the ledger but purchases.

    They were all spent by then: it is an entry of 0 without a lot, to which money back for them
    refers, however much the ledger has booked since.
    """
    book.opening_seq = book.next_seq
    book.write(EntryKind.OPENING, [], key=OPENING_KEY)


def _write_opening(book: Book) -> None:
    """Write the entry that stands for the balance from before the ledger (decision 0010).

    A positive balance becomes a lot. A negative one becomes 0 and a debt, by an entry of 0 without
    a lot.
    """
    before = book.balance
    book.balance = 0
    if before < 0:
        write_late_opening(book)
        seq = book.version
        book.opening_debt = -before
        book.debts[seq] = -before
        book.changed_debts |= {seq}
        return
    book.opening_seq = book.next_seq
    entry = _grant(book, opening(book.user_id, before))
    entry.result_balance = book.balance


def apply(book: Book, command: Command, *, open_holds_max: int) -> Result:
    """Do what `command` asks to a settled book.

    Raises:
        ExceptionWithErrorType: the refusals of `errors.py`; the book is as before.
    """
    entry = write(book, command, open_holds_max=open_holds_max)
    result = result_of(book, entry)
    book.answers[entry.key] = (entry.digest, result)
    return result


def write(book: Book, command: Command, *, open_holds_max: int) -> Entry:
    """As `apply`, for who wants no answer: the command's own entry."""
    if type(command) is OpenHold:
        entry = _open_hold(book, command, open_holds_max)
    elif (rule := _RULES.get(type(command))) is not None:
        entry = rule(book, command)
    else:
        raise TypeError(f"no rule for {type(command).__name__}")
    entry.result_balance = book.balance
    book.is_changed = True
    return entry


def result_of(book: Book, entry: Entry) -> Result:
    """What the caller is told about the operation's own entry."""
    expires_at = entry.hold_expires_at
    if expires_at is None and (lot := book.lots.get(entry.seq)) and lot.expires_at:
        expires_at = lot.expires_at.astimezone(dt.UTC)
    return Result(
        book.user_id,
        entry.seq,
        str(entry.kind),
        entry.amount,
        entry.captured,
        entry.result_balance,
        entry.created_at,
        expires_at,
        entry.spent,
    )


def _grant(book: Book, command: Grant) -> Entry:
    steps.check_room(book, command.amount)
    if command.expires_at is not None and command.expires_at <= book.now:
        raise errors.must_expire_later()
    priority = command.priority
    return _come_in(
        book,
        command,
        source=command.source,
        amount=command.amount,
        priority=DEFAULT_PRIORITY[command.source] if priority is None else priority,
        expires_at=command.expires_at,
    )


def _spend(book: Book, command: Spend) -> Entry:
    _check_active(book)
    steps.check_funds(book, command.amount)
    return steps.write_entry(book, command, steps.burn(book.live_lots(), command.amount))


def _adjust(book: Book, command: Adjust) -> Entry:
    if command.amount > 0:
        steps.check_room(book, command.amount)
        return _come_in(
            book,
            command,
            source=LotSource.ADJUSTMENT,
            amount=command.amount,
            priority=DEFAULT_PRIORITY[LotSource.ADJUSTMENT],
            expires_at=None,
        )
    steps.check_funds(book, -command.amount)
    return steps.write_entry(book, command, steps.burn(book.live_lots(), -command.amount))


def _open_hold(book: Book, command: OpenHold, open_holds_max: int) -> Entry:
    _check_active(book)
    steps.check_funds(book, command.amount)
    if len(book.open_holds) >= open_holds_max:
        raise errors.too_many_holds(open_holds_max)
    expires_at = book.now + dt.timedelta(seconds=command.expires_in_seconds)
    lines = steps.burn(book.live_lots(), command.amount)
    entry = steps.write_entry(book, command, lines, hold_expires_at=expires_at)
    book.holds[entry.seq] = Hold(
        seq=entry.seq,
        amount=command.amount,
        captured=0,
        status=HoldStatus.OPEN,
        expires_at=expires_at,
        allocations={lot.seq: -amount for lot, amount in lines},
    )
    book.new_holds |= {entry.seq}
    return entry


def _capture(book: Book, command: Capture) -> Entry:
    hold = _find_hold(book, command.hold_seq)
    if hold.status is HoldStatus.EXPIRED and command.if_expired == "retake":
        return _retake(book, hold, command)
    _check_open(hold)
    if command.amount > hold.uncaptured:
        raise errors.capture_exceeds_hold(hold.uncaptured)
    _change(book, hold)
    hold.captured += command.amount
    closes = command.final or hold.uncaptured == 0
    lines = returned(book, hold) if closes else []
    if closes:
        hold.status = HoldStatus.CAPTURED
    entry = steps.write_entry(book, command, lines, related_seq=hold.seq, captured=command.amount)
    steps.after_return(book, book.now)
    return entry


def _retake(book: Book, hold: Hold, command: Capture) -> Entry:
    """A late capture: a spend from today's lots, of at most what was not captured (rule 7)."""
    if command.amount > hold.uncaptured:
        raise errors.capture_exceeds_hold(hold.uncaptured)
    steps.check_funds(book, command.amount)
    _change(book, hold)
    hold.captured += command.amount
    hold.retaken += command.amount
    lines = steps.burn(book.live_lots(), command.amount)
    return steps.write_entry(
        book,
        command,
        lines,
        kind=EntryKind.SPEND,
        related_seq=hold.seq,
        captured=command.amount,
    )


def _release(book: Book, command: Release) -> Entry:
    hold = _find_hold(book, command.hold_seq)
    _check_open(hold)
    lines = returned(book, hold)
    _change(book, hold)
    hold.status = HoldStatus.RELEASED
    entry = steps.write_entry(book, command, lines, related_seq=hold.seq, captured=0)
    steps.after_return(book, book.now)
    return entry


def _renew(book: Book, command: Renew) -> Entry:
    hold = _find_hold(book, command.hold_seq)
    _check_open(hold)
    _change(book, hold)
    hold.expires_at = book.now + dt.timedelta(seconds=command.expires_in_seconds)
    return steps.write_entry(
        book, command, [], related_seq=hold.seq, captured=0, hold_expires_at=hold.expires_at
    )


def _expire_hold(book: Book, hold: Hold, instant: dt.datetime) -> None:
    lines = returned(book, hold)
    _change(book, hold)
    hold.status = HoldStatus.EXPIRED
    book.write(EntryKind.HOLD_EXPIRY, lines, effective_at=instant, related_seq=hold.seq, captured=0)
    steps.after_return(book, instant)


def _come_in(
    book: Book,
    command: Command,
    *,
    source: LotSource,
    amount: int,
    priority: int,
    expires_at: dt.datetime | None,
) -> Entry:
    """A new lot, then the debts it repays."""
    seq = book.next_seq
    transaction_id = command.transaction_id if isinstance(command, Grant) else None
    lot = Lot(seq, source, priority, amount, expires_at, 0, seq, transaction_id)
    book.lots[seq] = lot
    book.new_lots |= {seq}
    entry = steps.write_entry(book, command, [(lot, amount)])
    steps.repay_debts(book, book.now)
    return entry


def returned(book: Book, hold: Hold) -> steps.Lines:
    """What closing a hold gives back to which lot; of an open one, what it holds of each.

    Captured credits count off the hold's lots in burn order.
    """
    kept = hold.captured
    lines: steps.Lines = []
    lots = sorted((book.lots[seq] for seq in hold.allocations), key=burn_order)
    for lot in lots:
        taken = hold.allocations[lot.seq]
        stays = min(kept, taken)
        kept -= stays
        if taken > stays:
            lines.append((lot, taken - stays))
    return lines


def _change(book: Book, hold: Hold) -> None:
    if hold.seq not in book.new_holds:
        book.changed_holds |= {hold.seq}


def _find_hold(book: Book, seq: int) -> Hold:
    hold = book.holds.get(seq)
    if hold is None:
        raise errors.hold_not_found()
    return hold


def _check_open(hold: Hold) -> None:
    if hold.status is HoldStatus.EXPIRED:
        raise errors.hold_expired()
    if hold.status is not HoldStatus.OPEN:
        raise errors.hold_closed(hold.status)


def _check_active(book: Book) -> None:
    if not book.is_active:
        raise errors.user_inactive()


_RULES: dict[type[Command], Callable[[Book, Any], Entry]] = {
    **dict.fromkeys((Grant, ApprovedGrant, Purchase, Opening), _grant),
    **dict.fromkeys((Adjust, ApprovedAdjustment, Assignment), _adjust),
    Spend: _spend,
    Capture: _capture,
    **dict.fromkeys((Release, ApprovedRelease), _release),
    Renew: _renew,
    **dict.fromkeys((Reverse, ApprovedReversal), entry_reversals.reverse),
}
"""By a command's very type: `match` asks a struct's metaclass, which takes ten times as long."""
