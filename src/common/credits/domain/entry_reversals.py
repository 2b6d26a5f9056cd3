"""Undoes entries in the very lots they moved (rule 12): pure.

What was taken goes back to where it came from; what was given is taken back from its own lot. Money
that went back is another matter (`reversals.py`).
"""

from src.common.credits.domain import errors, steps
from src.common.credits.domain.book import Book, Entry, Original, burn_order
from src.common.credits.domain.commands import Reverse
from src.common.models.credit_entry import EntryKind
from src.common.models.credit_lot import LotSource

_OWN_KINDS = frozenset({EntryKind.SPEND, EntryKind.HOLD})
_TAKING_KINDS = frozenset({EntryKind.SPEND, EntryKind.HOLD, EntryKind.ADJUSTMENT})
_GIVING_KINDS = frozenset({EntryKind.GRANT, EntryKind.ADJUSTMENT})


def reverse(book: Book, command: Reverse) -> Entry:
    """Do what `command` asks to a settled book that knows the entry.

    Raises:
        ExceptionWithErrorType: a refusal of `errors.py`; the book is as before.
    """
    original = book.entry(command.seq)
    if original is None:
        raise errors.entry_not_found()
    if command.own_only and not (original.actor == command.actor and original.kind in _OWN_KINDS):
        raise errors.not_own_entry()
    if original.kind in _TAKING_KINDS and original.amount < 0:
        return _give_back(book, command, original)
    if original.kind in _GIVING_KINDS:
        return _take_back(book, command, original)
    instead = "its hold" if original.kind is EntryKind.CAPTURE else "a spend, a hold or a grant"
    raise errors.entry_not_reversible(
        f"A {original.kind} cannot be reversed, only {instead}", original.kind
    )


def _give_back(book: Book, command: Reverse, original: Original) -> Entry:
    """From the end of the burn order: what is kept is what a smaller spend would have taken."""
    kept = _kept(book, original)
    amount = _asked(command, sum(amount for _, amount in kept))
    steps.check_room(book, amount)
    lines: steps.Lines = []
    for lot, most in reversed(kept):
        if amount == 0:
            break
        given = min(amount, most)
        lines.append((lot, given))
        amount -= given
    entry = _write(book, command, lines)
    steps.after_return(book, book.now)
    return entry


def _take_back(book: Book, command: Reverse, original: Original) -> Entry:
    """From the lot that the entry made and from no other, as far as credits remain there."""
    lot = book.lots[original.seq]
    if lot.source is LotSource.PURCHASE:
        raise errors.entry_not_reversible("A purchase goes back by a refund", original.kind)
    taken_before = -sum(book.undone.get(original.seq, {}).values())
    amount = asked = _asked(command, lot.granted - taken_before)
    if command.as_far_as_possible:
        amount = min(asked, lot.remaining)
    if not 0 < amount <= lot.remaining:
        raise errors.InsufficientCredits(required=asked, available=lot.remaining)
    spent = lot.granted - taken_before - lot.remaining
    entry = _write(book, command, [(lot, -amount)])
    entry.spent = spent
    return entry


def _kept(book: Book, original: Original) -> steps.Lines:
    """What the entry took and nobody gave back, by lot, in burn order.

    Of a hold that is what was captured in time, which counts off its lots in burn order (rule 6).
    """
    is_hold = original.kind is EntryKind.HOLD
    rest = book.holds[original.seq].captured_in_time if is_hold else -original.amount
    undone = book.undone.get(original.seq, {})
    kept: steps.Lines = []
    for lot in sorted((book.lots[seq] for seq in original.moved), key=burn_order):
        taken = min(rest, -original.moved[lot.seq])
        rest -= taken
        if left := taken - undone.get(lot.seq, 0):
            kept.append((lot, left))
    return kept


def _asked(command: Reverse, reversible: int) -> int:
    """How much to undo, of what is left."""
    amount = reversible if command.amount is None else command.amount
    if not 0 < amount <= reversible:
        raise errors.reversal_exceeds_entry(reversible)
    return amount


def _write(book: Book, command: Reverse, lines: steps.Lines) -> Entry:
    undone = book.undone.setdefault(command.seq, {})
    for lot, amount in lines:
        undone[lot.seq] = undone.get(lot.seq, 0) + amount
    return steps.write_entry(book, command, lines, related_seq=command.seq)
