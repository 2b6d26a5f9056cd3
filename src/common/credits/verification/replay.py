"""Replays a user's whole journal through the rules: what every table should hold. Pure.

The journal says what was asked and when; the rules say what that led to. The book that comes out
has never been written: `changed_rows.rows_of` tells what it would write, row by row (decision
0021).
"""

import uuid
from dataclasses import dataclass
from operator import attrgetter

from src.common.credits.domain import own_commands, rules
from src.common.credits.domain.book import BEFORE_ALL, Book, Hold, Lot
from src.common.credits.domain.commands import ORM_ACTOR
from src.common.credits.domain.reversals import REVERSING_KINDS
from src.common.credits.verification.commands_of_entries import Inexplicable, command_of
from src.common.credits.verification.replayed_money_back import ReplayedMoneyBack
from src.common.credits.verification.stored import EntryRow, LotRow, PurchaseRow, StoredRows
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.credit_entry import EntryKind
from src.common.models.credit_hold import HoldStatus

_ANY_NUMBER = 2**31
"""How many holds were allowed then is not known."""
_KEPT_MIN = 64
"""Lots and holds that the rules look through at each step before closed ones are put aside."""
_KIND = attrgetter("kind")


@dataclass(slots=True)
class Replay:
    """What came of a user's journal."""

    rows: StoredRows
    book: Book
    money_back: ReplayedMoneyBack | None
    lots: dict[int, LotRow]
    purchases: dict[uuid.UUID, PurchaseRow]
    closed_lots: dict[int, Lot]
    closed_holds: dict[int, Hold]
    kept_max: int = _KEPT_MIN
    """How many lots and holds there are before closed ones are put aside once more."""
    stopped: str | None = None
    """Why the entry after the book's last is none that the rules could have written."""


def replay(rows: StoredRows) -> Replay:
    """Go through the journal, as far as the rules lead."""
    result = _beginning(rows)
    book, entries = result.book, rows.entries
    count = len(entries)
    while (place := len(book.entries)) < count:
        try:
            _step(result, entries[place])
        except (Inexplicable, ExceptionWithErrorType, RuntimeError, ValueError, KeyError) as error:
            result.stopped = str(error) or type(error).__name__
            break
        if len(book.entries) == place:
            result.stopped = "the rules write no entry here"
            break
        if len(book.lots) + len(book.holds) > result.kept_max:
            _put_aside(result)
    _take_back(result)
    return result


def _beginning(rows: StoredRows) -> Replay:
    entries = rows.entries
    balance = opening_debt = 0
    if not entries:
        balance = 0 if rows.version or rows.lots else rows.balance
    elif entries[0].kind == EntryKind.OPENING and entries[0].actor != ORM_ACTOR:
        opening_debt = next((debt.opening_debt for debt in rows.debts if debt.seq == 1), 0)
        balance = entries[0].amount or -opening_debt
    book = Book(rows.user_id, balance, 0, True, BEFORE_ALL)
    if entries and entries[-1].entry_hash is not None:
        book.last_hash = rows.ledger.ledger_id
    purchases = {purchase.transaction_id: purchase for purchase in rows.purchases}
    reverses = not REVERSING_KINDS.isdisjoint(map(_KIND, entries)) or any(
        purchase.reversals for purchase in rows.purchases
    )
    return Replay(
        rows,
        book,
        ReplayedMoneyBack(rows, purchases) if reverses else None,
        {lot.seq: lot for lot in rows.lots},
        purchases,
        {},
        {},
    )


def _step(replayed: Replay, entry: EntryRow) -> None:
    """Have the rules write the next entry, with all that its operation wrote."""
    book, place = replayed.book, len(replayed.book.entries)
    if entry.seq != place + 1:
        raise Inexplicable(f"entry {place + 1} is missing")
    book.now = entry.created_at
    if entry.kind == EntryKind.OPENING and place:
        # Written once without settling: what was due then is booked after it, and stays so.
        book.settled_at = book.now
        rules.write_late_opening(book)
        return
    rules.settle(book)
    if len(book.entries) > place:
        if entry.kind == EntryKind.OPENING and entry.result_balance == 0:
            # So written for a while; nobody is ever answered with it.
            book.entries[place].result_balance = 0
        return
    if entry.kind == EntryKind.OPENING:
        _open(book, entry)
    elif replayed.money_back is not None and entry.kind in REVERSING_KINDS:
        _take_back(replayed)
        replayed.money_back.replay(book, place)
    else:
        hold = replayed.closed_holds.pop(entry.related_seq or 0, None)
        if hold is not None:
            book.holds[hold.seq] = hold
        if entry.kind == EntryKind.REVERSAL:
            _take_lots_back(replayed, entry.related_seq or 0)
        command = command_of(entry, book.user_id, replayed.lots, replayed.purchases)
        rules.write(book, command, open_holds_max=_ANY_NUMBER)


def _open(book: Book, entry: EntryRow) -> None:
    if entry.amount:
        command = own_commands.opening(book.user_id, entry.amount, actor=entry.actor)
        rules.write(book, command, open_holds_max=_ANY_NUMBER)
    else:
        rules.write_late_opening(book)


def _put_aside(replayed: Replay) -> None:
    """Take what is closed out of the rules' way, who look through all there is."""
    book = replayed.book
    for hold in list(book.holds.values()):
        if hold.status is not HoldStatus.OPEN:
            replayed.closed_holds[hold.seq] = book.holds.pop(hold.seq)
    needed = {seq for hold in book.holds.values() for seq in hold.allocations}
    for lot in list(book.lots.values()):
        if not lot.remaining and lot.seq not in needed:
            replayed.closed_lots[lot.seq] = book.lots.pop(lot.seq)
    # Twice what stays: so each is looked at for this a few times, however many are open.
    replayed.kept_max = max(_KEPT_MIN, 2 * (len(book.lots) + len(book.holds)))


def _take_lots_back(replayed: Replay, seq: int) -> None:
    """The lots that an entry moved are looked at again, now that it is undone."""
    if 0 < seq <= len(replayed.book.entries):
        for line in replayed.book.entries[seq - 1].postings:
            lot = replayed.closed_lots.pop(line.lot_seq, None)
            if lot is not None:
                replayed.book.lots[lot.seq] = lot


def _take_back(replayed: Replay) -> None:
    replayed.book.holds |= replayed.closed_holds
    replayed.book.lots |= replayed.closed_lots
    replayed.closed_holds.clear()
    replayed.closed_lots.clear()
