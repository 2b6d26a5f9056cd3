"""Computes again what refunds, disputes and credit notes took. Pure.

Stripe's rows keep no former state. So an operation is recomputed from them where it was a
payment's last, or where the credits it moved tell how many were to be back; the others are taken
as they were written, and what there is in the end must be what Stripe's rows ask for.
"""

import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence

from src.common.credits.domain import reversals
from src.common.credits.domain.book import Book, Lot
from src.common.credits.domain.commands import AMOUNT_MAX, STRIPE_ACTOR
from src.common.credits.domain.own_commands import OPENING_KEY, cause_of, reversal_key
from src.common.credits.domain.reversals import (
    REVERSING_KINDS,
    Allocation,
    LotHistory,
    credits_to_be_back,
)
from src.common.credits.domain.reversed_money import money_back
from src.common.credits.verification.commands_of_entries import Inexplicable
from src.common.credits.verification.stored import EntryRow, PurchaseRow, StoredRows
from src.common.models.credit_entry import EntryKind

Targets = dict[int, int]
_CALLERS_KINDS = frozenset(
    {
        *(EntryKind.GRANT, EntryKind.SPEND, EntryKind.ADJUSTMENT, EntryKind.HOLD),
        *(EntryKind.CAPTURE, EntryKind.RELEASE, EntryKind.RENEWAL, EntryKind.REVERSAL),
    }
)


class ReplayedMoneyBack:
    """What each payment had to give back so far, and what it has to in the end."""

    def __init__(self, rows: StoredRows, purchases: Mapping[uuid.UUID, PurchaseRow]) -> None:
        self._entries = rows.entries
        self._lines: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for posting in rows.postings:
            self._lines[posting.seq].append((posting.lot_seq, posting.amount))
        self._known: Targets = {}
        self._is_guessed = False
        """Whether a number of an operation so far was told by nothing but the credits it moved."""
        self._histories: dict[int, LotHistory] = {}
        self._noted = 0
        """How many of the book's entries are in the histories."""
        payments = _payments(rows, purchases)
        self._final = _final_targets(payments, purchases)
        self._places: defaultdict[int | None, list[int]] = defaultdict(list)
        for place, entry in enumerate(rows.entries):
            if entry.kind in REVERSING_KINDS:
                self._places[entry.related_seq].append(place)
        openings = {row.seq for row in rows.entries if row.idempotency_key == OPENING_KEY}
        payable = {*payments.values(), *openings}
        self._outstanding = {
            debt.seq: debt.outstanding for debt in rows.debts if debt.seq in payable
        }
        """What is owed in the end; only payments and the opening can leave a debt."""
        self._causes: dict[str, int | None] = {}
        for purchase in rows.purchases:
            self._causes[purchase.stripe_session_id] = None
            for reversal in purchase.reversals:
                self._causes[reversal.reversal_id] = payments.get(purchase.transaction_id)
        """What may have made an operation: a purchase, or money back, which is of a payment."""
        mortal = {lot.seq for lot in rows.lots if lot.expires_at is not None}
        self._is_exact = not any(
            lot_seq in mortal
            for entry in rows.entries
            if entry.kind in reversals.TAKING_KINDS
            for lot_seq, _ in self._lines[entry.seq]
        )
        """Whether all that moved is in the journal: a dead lot gets nothing back, and no entry."""

    def replay(self, book: Book, place: int) -> None:
        """Have the rules write the operation that begins with the entry at this place.

        Raises:
            Inexplicable: nothing of the user's made anybody take or give back anything.
        """
        entry = self._entries[place]
        cause = cause_of(entry.idempotency_key)
        if cause is None or cause not in self._causes:
            raise Inexplicable("its key names no refund, dispute, credit note or purchase")
        if self._causes[cause] not in (None, entry.related_seq):
            raise Inexplicable(f"it is about lot {self._causes[cause]}")
        self._note(book)
        operation = self._operation(place)
        debts, are_all = self._debts_after(place + len(operation))
        told = sum(debts.values()) - book.debt - sum(row.amount for row in operation)
        targets, is_certain = self._targets(book, operation, told, place)
        written = self._written(operation)
        for each in targets:
            self._known = each
            allocation, lines = self._allocate(book, each, book.now)
            owed = _outstanding(allocation.debts)
            if is_certain or (lines == written and _may_be(owed, debts, are_all=are_all)):
                break
        else:
            self._known, self._is_guessed = targets[0], True
            self._adopt(book, operation, debts, cause)
            return
        if lines or written:
            self._reallocate(book, each, cause, entry.related_seq)
        else:
            # It says that a debt changed; what was owed before is not always known.
            self._adopt(book, operation, owed, cause)

    def imbalance(self, book: Book) -> tuple[int, int] | None:
        """What is to be back in the end and what was taken or is owed, where they differ.

        Dead lots get nothing back: they may have given more.
        """
        self._note(book)
        allocation, _ = self._allocate(book, self._final, book.last_effective_at)
        to_be_back = sum(allocation.taken.values()) + sum(allocation.debts.values())
        histories = self._histories
        found = sum(each.taken for each in histories.values()) + book.debt
        if book.balance and book.debt:
            return 0, book.debt  # credits repay debts before anything else
        dead = sum(
            histories[lot.seq].taken
            for lot in book.lots.values()
            if lot.seq in histories and lot.is_dead(book.last_effective_at)
        )
        return None if to_be_back <= found <= to_be_back + dead else (to_be_back, found)

    def _operation(self, place: int) -> Sequence[EntryRow]:
        first, *rest = self._entries[place : place + 2]
        for second in rest:
            if (
                first.kind == EntryKind.REINSTATEMENT
                and second.kind == EntryKind.CLAWBACK
                and second.created_at == first.created_at
                and second.result_balance == first.result_balance
                and cause_of(second.idempotency_key) == cause_of(first.idempotency_key)
            ):
                return (first, second)
        return (first,)

    def _debts_after(self, place: int) -> tuple[dict[int, int], bool]:
        """What was owed then, as far as later entries tell; and whether that is all of it.

        It is where credits were left in between: there are none beside a debt.
        """
        debts: defaultdict[int, int] = defaultdict(int)
        are_all = self._entries[place - 1].result_balance > 0
        for later in range(place, len(self._entries)):
            entry = self._entries[later]
            if entry.kind in REVERSING_KINDS:
                return _outstanding(debts), are_all
            if entry.kind == EntryKind.DEBT_REPAYMENT and entry.related_seq is not None:
                debts[entry.related_seq] -= entry.amount
            are_all |= entry.kind in _CALLERS_KINDS and entry.result_balance > 0
        for seq, outstanding in self._outstanding.items():
            debts[seq] += outstanding
        return _outstanding(debts), True

    def _targets(
        self, book: Book, operation: Sequence[EntryRow], told: int, place: int
    ) -> tuple[Sequence[Targets], bool]:
        """What every payment may have had to give back then; whether that is certain.

        `told` is what the credits moved say of the payment it was about.
        """
        payment = operation[0].related_seq
        if payment is None:
            return (self._known,), False
        final = self._known | {payment: self._final.get(payment, 0)}
        most = book.lots[payment].granted if payment in book.lots else AMOUNT_MAX
        told = max(0, min(most, self._known.get(payment, 0) + told))
        before = self._known | {payment: told}
        if self._places[payment][-1] >= place + len(operation):
            self._is_guessed = True
            return (before,), False
        is_certain = self._is_exact and not self._is_guessed
        if is_certain and self._no_other_is_between_operations(payment, place):
            return (final,), True
        return (final, before), False

    def _note(self, book: Book) -> None:
        """Bring the lots' histories up to what the book has written."""
        for entry in book.entries[self._noted :]:
            for line in entry.postings:
                before = self._histories.get(line.lot_seq, LotHistory())
                self._histories[line.lot_seq] = before.after(entry.kind, line.amount)
        self._noted = len(book.entries)

    def _allocate(
        self, book: Book, targets: Mapping[int, int], now: dt.datetime
    ) -> tuple[Allocation, dict[int, int]]:
        """The allocation for these numbers, and what each lot gains (+) or loses (-) by it."""
        wanted = dict(targets)
        if book.opening_seq is not None and book.opening_debt:
            wanted[book.opening_seq] = wanted.get(book.opening_seq, 0) + book.opening_debt
        allocation = reversals.allocate(book.lots.values(), self._histories, wanted, now)
        moved = {
            lot.seq: self._histories.get(lot.seq, LotHistory()).taken - allocation.taken[lot.seq]
            for lot in book.lots.values()
            if not lot.is_dead(now)
        }
        return allocation, {seq: amount for seq, amount in moved.items() if amount}

    def _reallocate(
        self, book: Book, targets: Targets, cause: str, related_seq: int | None
    ) -> None:
        """Have the rules do it: to them, what the histories hold is written already."""
        before, book.entries = book.entries, []
        try:
            reversals.reallocate(
                book,
                self._histories,
                targets,
                key=reversal_key(cause),
                actor=STRIPE_ACTOR,
                related_seq=related_seq,
            )
        finally:
            before += book.entries
            book.entries = before

    def _no_other_is_between_operations(self, payment: int, place: int) -> bool:
        return not any(
            places[0] < place < places[-1]
            for other, places in self._places.items()
            if other != payment
        )

    def _written(self, operation: Sequence[EntryRow]) -> dict[int, int]:
        return dict(line for entry in operation for line in self._lines[entry.seq])

    def _adopt(
        self, book: Book, operation: Sequence[EntryRow], debts: Mapping[int, int], cause: str
    ) -> None:
        """Take the operation as it was written."""
        written = [
            book.write(
                EntryKind(row.kind),
                [self._line(book, row, *line) for line in self._lines[row.seq]],
                key=f"{reversal_key(cause)}:{book.next_seq}",
                actor=STRIPE_ACTOR,
                related_seq=row.related_seq,
            )
            for row in operation
        ]
        for entry in written:
            entry.result_balance = book.balance
        for payment in book.debts.keys() | debts.keys():
            book.debts[payment] = debts.get(payment, 0)
            book.changed_debts |= {payment}

    def _line(self, book: Book, row: EntryRow, lot_seq: int, amount: int) -> tuple[Lot, int]:
        lot = book.lots.get(lot_seq)
        if lot is None or lot.is_dead(book.now):
            raise Inexplicable(f"lot {lot_seq} has nothing to give or take")
        if (amount > 0) is not (row.kind == EntryKind.REINSTATEMENT):
            raise Inexplicable(f"a {row.kind} of {amount}")
        if not 0 <= lot.remaining + amount <= lot.granted:
            raise Inexplicable(f"lot {lot_seq} holds {lot.remaining}, not {-amount}")
        return lot, amount


def _payments(rows: StoredRows, purchases: Mapping[uuid.UUID, PurchaseRow]) -> dict[uuid.UUID, int]:
    """By purchase: its lot, or the opening entry of one from before the ledger."""
    payments = {lot.transaction_id: lot.seq for lot in rows.lots if lot.transaction_id is not None}
    for entry in rows.entries:
        if entry.idempotency_key == OPENING_KEY:
            for purchase in purchases.values():
                if purchase.predates_ledger:
                    payments.setdefault(purchase.transaction_id, entry.seq)
    return payments


def _final_targets(
    payments: Mapping[uuid.UUID, int], purchases: Mapping[uuid.UUID, PurchaseRow]
) -> Targets:
    """How many credits are to be back of each payment, as Stripe's rows have it now."""
    targets: defaultdict[int, int] = defaultdict(int)
    for purchase in purchases.values():
        seq = payments.get(purchase.transaction_id)
        if purchase.reversals and seq is not None:
            targets[seq] += credits_to_be_back(
                purchase.credits_added,
                purchase.amount_paid_cents,
                money_back(purchase.reversals, purchase.currency).total_cents,
            )
    return dict(targets)


def _outstanding(debts: Mapping[int, int]) -> dict[int, int]:
    return {payment: amount for payment, amount in debts.items() if amount}


def _may_be(owed: Mapping[int, int], told: Mapping[int, int], *, are_all: bool) -> bool:
    """Whether these debts agree with what later entries tell of them."""
    if are_all:
        return owed == told
    return all(owed.get(payment, 0) >= amount for payment, amount in told.items())
