"""Which credits refunds and disputes take from which lots: pure.

The result does not depend on the order in which refunds and disputes became known: every time the
whole allocation is computed anew, from what every lot could give at most (rule 5). All
numbers are whole credits, never negative, unless said otherwise.
"""

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from src.common.credits.domain import errors
from src.common.credits.domain.book import Book, Entry, Lot
from src.common.credits.domain.commands import AMOUNT_MAX
from src.common.models.credit_entry import EntryKind

TAKING_KINDS = (EntryKind.CLAWBACK, EntryKind.DEBT_REPAYMENT, EntryKind.REINSTATEMENT)
"""The entries whose postings make up what was taken from a lot."""

REVERSING_KINDS = frozenset({EntryKind.CLAWBACK, EntryKind.REINSTATEMENT})
"""The entries that `reallocate` writes."""

Lines = list[tuple[Lot, int]]


@dataclass(frozen=True, slots=True)
class LotHistory:
    """What left a lot otherwise than by use."""

    taken: int = 0
    """By clawbacks and debt repayments, net of reinstatements."""
    expired: int = 0

    def after(self, kind: EntryKind, amount: int) -> "LotHistory":
        """The history once an entry of this kind has posted `amount` (- out of the lot)."""
        if kind in TAKING_KINDS:
            return replace(self, taken=self.taken - amount)
        if kind is EntryKind.LOT_EXPIRY:
            return replace(self, expired=self.expired - amount)
        return self


@dataclass(frozen=True, slots=True)
class Allocation:
    """Where credits that are to be back come from; `taken + forgiven + debts` is all of them."""

    taken: Mapping[int, int]
    """By lot, every lot named: what money back takes from it. From a dead lot perhaps less than
    has been taken: it gets nothing back."""
    forgiven: Mapping[int, int]
    """By payment, every payment named: what is not asked for because it expired in its own lot."""
    debts: Mapping[int, int]
    """By payment, every payment named: what nothing is left to pay."""


def credits_to_be_back(granted: int, paid_cents: int, reversed_cents: int) -> int:
    """The share of a payment's credits that its reversed money bought, half a credit rounded up.

    More than was paid counts as all of it; where nothing was paid nothing is to be back.
    """
    if paid_cents == 0:
        return 0
    reversed_cents = min(reversed_cents, paid_cents)
    return (2 * granted * reversed_cents + paid_cents) // (2 * paid_cents)


def allocate(
    lots: Collection[Lot],
    histories: Mapping[int, LotHistory],
    targets: Mapping[int, int],
    now: dt.datetime,
) -> Allocation:
    """Decide what money back takes from each of a settled book's lots.

    `targets` has the credits to be back of each payment. A payment is the `seq` of its lot, which
    is among `lots`. It may also be the `seq` of an opening entry without a lot, which has nothing
    of its own to give.

    A lot without a history has an empty one. A lot can give what remains in it and what was taken
    from it before. So an allocation that is booked already comes out the same.
    """
    nothing = LotHistory()
    reach = {lot.seq: lot.remaining + histories.get(lot.seq, nothing).taken for lot in lots}
    left = dict(reach)
    forgiven: dict[int, int] = {}
    rests: dict[int, int] = {}
    for payment, target in targets.items():
        own = min(target, left.get(payment, 0))
        if own:
            left[payment] -= own
        forgiven[payment] = min(target - own, histories.get(payment, nothing).expired)
        rests[payment] = target - own - forgiven[payment]
    # The oldest payment is served first; which lot serves which payment makes no difference.
    supply = sum(left.values())
    debts: dict[int, int] = {}
    for payment in sorted(rests):
        served = min(rests[payment], supply)
        supply -= served
        debts[payment] = rests[payment] - served
    wanted = sum(rests.values()) - sum(debts.values())
    for lot in sorted(lots, key=lambda lot: (not lot.is_dead(now), lot.burn_order)):
        given = min(wanted, left[lot.seq])
        left[lot.seq] -= given
        wanted -= given
    return Allocation({seq: reach[seq] - left[seq] for seq in reach}, forgiven, debts)


def reallocate(
    book: Book,
    booked: Mapping[int, LotHistory],
    targets: Mapping[int, int],
    *,
    key: str,
    actor: str,
    related_seq: int | None = None,
) -> list[Entry]:
    """Bring a settled book to the allocation for `targets`; returns the entries written, if any.

    `booked` has the lots' histories before the book's unwritten entries. The book holds all lots in
    the user's reach and those of `targets`. A payment not named has nothing to be back.

    The opening entry stands for all purchases from before the ledger. Their credits to be back are
    added up, and may be more than its lot was granted, if it has one. What was owed when the ledger
    began is to be back for ever beside them.

    At most one reinstatement (+) is written, then one clawback (-), on live lots. Where only debts
    change, an entry of 0 says so: a reinstatement if their sum shrinks, else a clawback. An entry's
    key is `key` and its own `seq`.

    Raises:
        Invalid: BALANCE_LIMIT_EXCEEDED, what comes back does not fit; the book is as before.
        ValueError: more credits are to be back than a lot was granted, or fewer than none.
    """
    for payment, target in targets.items():
        is_opening = payment == book.opening_seq
        most = AMOUNT_MAX - book.opening_debt if is_opening else book.lots[payment].granted
        if not 0 <= target <= most:
            raise ValueError(f"lot {payment} cannot have {target} credits to be back")
    wanted = dict(targets)
    if book.opening_seq is not None and book.opening_debt:
        wanted[book.opening_seq] = targets.get(book.opening_seq, 0) + book.opening_debt
    histories = _histories(book, booked)
    allocation = allocate(book.lots.values(), histories, wanted, book.now)
    gains, losses = _differences(book, histories, allocation)
    if book.balance + book.held + sum(amount for _, amount in gains) > AMOUNT_MAX:
        raise errors.balance_limit_exceeded(AMOUNT_MAX)
    owed_before = book.debt
    debts_changed = _owe(book, allocation.debts)
    steps: list[tuple[EntryKind, Lines]] = []
    if gains:
        steps.append((EntryKind.REINSTATEMENT, gains))
    if losses:
        steps.append((EntryKind.CLAWBACK, losses))
    if debts_changed and not steps:
        shrunk = book.debt < owed_before
        steps.append((EntryKind.REINSTATEMENT if shrunk else EntryKind.CLAWBACK, []))
    entries = [
        book.write(kind, lines, key=f"{key}:{book.next_seq}", actor=actor, related_seq=related_seq)
        for kind, lines in steps
    ]
    for entry in entries:
        entry.result_balance = book.balance
    return entries


def _histories(book: Book, booked: Mapping[int, LotHistory]) -> dict[int, LotHistory]:
    """The histories up to now: as booked, and what the book has yet to write."""
    histories = dict(booked)
    for entry in book.entries:
        for line in entry.postings:
            before = histories.get(line.lot_seq, LotHistory())
            histories[line.lot_seq] = before.after(entry.kind, line.amount)
    return histories


def _differences(
    book: Book, histories: Mapping[int, LotHistory], allocation: Allocation
) -> tuple[Lines, Lines]:
    """What live lots gain (+) and lose (-) to come to the allocation, in burn order."""
    lots = sorted(book.lots.values(), key=lambda lot: lot.burn_order)
    lines = [
        (lot, histories.get(lot.seq, LotHistory()).taken - allocation.taken[lot.seq])
        for lot in lots
        if not lot.is_dead(book.now)
    ]
    return [line for line in lines if line[1] > 0], [line for line in lines if line[1] < 0]


def _owe(book: Book, debts: Mapping[int, int]) -> bool:
    """Make these the user's debts; whether any changed."""
    changed = {
        payment
        for payment in book.debts.keys() | debts.keys()
        if book.debts.get(payment, 0) != debts.get(payment, 0)
    }
    for payment in changed:
        book.debts[payment] = debts.get(payment, 0)
    book.changed_debts |= changed
    return bool(changed)
