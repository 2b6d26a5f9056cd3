"""Steps that several rules share: taking from lots, what returned credits do, a command's entry."""

import datetime as dt
from collections.abc import Iterable

from src.common.credits.domain import errors
from src.common.credits.domain.book import Book, Entry, Lot
from src.common.credits.domain.commands import AMOUNT_MAX, Command
from src.common.models.credit_entry import EntryKind

Lines = list[tuple[Lot, int]]
"""Lots, and what an entry gives to each (+) or takes from it (-)."""


def burn(lots: Iterable[Lot], amount: int) -> Lines:
    """Take `amount` from lots already in `Lot.burn_order`: (lot, minus what it gives)."""
    lines: Lines = []
    for lot in lots:
        if amount == 0:
            break
        taken = min(amount, lot.remaining)
        lines.append((lot, -taken))
        amount -= taken
    return lines


def write_entry(
    book: Book,
    command: Command,
    lines: Iterable[tuple[Lot, int]],
    *,
    kind: EntryKind | None = None,
    related_seq: int | None = None,
    captured: int | None = None,
    hold_expires_at: dt.datetime | None = None,
) -> Entry:
    """The command's own entry."""
    return book.write(
        kind or command.kind,
        lines,
        key=command.key,
        digest=command.digest,
        actor=command.actor,
        reference=command.noted,
        metadata=command.metadata,
        related_seq=related_seq,
        captured=captured,
        hold_expires_at=hold_expires_at,
    )


def after_return(book: Book, instant: dt.datetime) -> None:
    """What came back repays debts first; what came back to a dead lot then expires (rule 8)."""
    repay_debts(book, instant)
    for lot in book.live_lots():
        if lot.is_dead(instant):
            expire_lot(book, lot, instant)


def repay_debts(book: Book, instant: dt.datetime) -> None:
    """Credits that came in repay the oldest payment's debt first (rule 5).

    From dead lots before live ones: what would expire this instant pays first.
    """
    for lot_seq in sorted(book.debts):
        amount = min(book.debts[lot_seq], book.balance)
        if amount == 0:
            continue
        lots = sorted(book.live_lots(), key=lambda lot: not lot.is_dead(instant))
        book.write(
            EntryKind.DEBT_REPAYMENT, burn(lots, amount), effective_at=instant, related_seq=lot_seq
        )
        book.debts[lot_seq] -= amount
        book.changed_debts |= {lot_seq}


def expire_lot(book: Book, lot: Lot, instant: dt.datetime) -> None:
    """What remains of a dead lot expires."""
    if lot.remaining:
        book.write(EntryKind.LOT_EXPIRY, [(lot, -lot.remaining)], effective_at=instant)


def check_funds(book: Book, amount: int) -> None:
    """Nothing is taken that is not there."""
    if amount > book.balance:
        raise errors.InsufficientCredits(required=amount, available=book.balance)


def check_room(book: Book, amount: int) -> None:
    """Held credits come back: balance and holds together must fit."""
    if book.balance + book.held + amount > AMOUNT_MAX:
        raise errors.balance_limit_exceeded(AMOUNT_MAX)
