"""The journal's accounts, and between which two of them each line of the ledger moves something.

Credits are a commodity of their own. What users have is owed to them, so it lies in liabilities, by
the lots' sources. What was paid for it is deferred revenue, in cents, until it is earned.
"""

from collections.abc import Iterator
from typing import NamedTuple

from src.common.models.credit_entry import EntryKind
from src.common.models.credit_lot import LotSource
from src.common.reports.revenue import DISPUTED, KEPT

BALANCES = "Liabilities:Credits"
HELD = "Liabilities:Held"
DEFERRED = "Liabilities:DeferredRevenue"
OWED = "debt"
"""Beside the kinds of entry: what a clawback could not take."""
_DEBTS = "Assets:Debts"
_DEBTS_ARISEN = "Equity:Credits:Owed"
_SPENT = "Equity:Credits:Spent"
_SOLD = "Equity:Credits:Sold"

_OF_CREDITS: dict[str, str] = {
    EntryKind.OPENING: "Equity:Credits:BroughtOver",
    EntryKind.GRANT: "Equity:Credits:Given",
    EntryKind.ADJUSTMENT: "Equity:Credits:Adjusted",
    EntryKind.REINSTATEMENT: "Equity:Credits:ClawedBack",
    EntryKind.CLAWBACK: "Equity:Credits:ClawedBack",
    EntryKind.REVERSAL: "Equity:Credits:Reversed",
    EntryKind.SPEND: _SPENT,
    EntryKind.LOT_EXPIRY: "Equity:Credits:Expired",
    EntryKind.DEBT_REPAYMENT: _DEBTS,
}
"""By kind of entry; those of holds move credits between a balance and what is held."""
OF_MONEY: dict[str, str] = {
    EntryKind.GRANT: "Assets:Payments",
    EntryKind.REVERSAL: "Income:Reversed",
    EntryKind.SPEND: "Income:Spent",
    EntryKind.CAPTURE: "Income:Spent",
    EntryKind.LOT_EXPIRY: "Income:Breakage",
    EntryKind.CLAWBACK: "Liabilities:Refunded",
    EntryKind.REINSTATEMENT: "Liabilities:Refunded",
    DISPUTED: "Liabilities:Disputed",
    EntryKind.DEBT_REPAYMENT: "Liabilities:Refunded",
    EntryKind.ADJUSTMENT: "Income:Adjusted",
}
"""By what it is earned as: where money goes that is owed no longer, or comes from (`earnings`)."""


class Pair(NamedTuple):
    """What a line of the ledger takes its amount off, and what it adds it to."""

    minus: str
    plus: str


def of_source(account: str, source: str) -> str:
    """The part of an account that is for lots of one source."""
    return f"{account}:{source.capitalize()}"


def pair_of(kind: str, source: str) -> Pair:
    """Between which accounts a line of this kind, on a lot of this source, moves credits."""
    if kind == OWED:
        return Pair(_DEBTS_ARISEN, _DEBTS)
    if kind == KEPT:
        return Pair(_SPENT, of_source(HELD, source))
    if kind == EntryKind.GRANT and source == LotSource.PURCHASE:
        return Pair(of_source(BALANCES, source), _SOLD)
    other = _OF_CREDITS.get(kind) or of_source(HELD, source)
    return Pair(of_source(BALANCES, source), other)


def pairs() -> Iterator[tuple[str, str, Pair]]:
    """Every kind of line and source, and its accounts."""
    for kind in (*EntryKind, KEPT):
        for source in LotSource:
            yield kind, source, pair_of(kind, source)
    yield OWED, "", pair_of(OWED, "")


ACCOUNTS = sorted(
    {account for *_, pair in pairs() for account in pair} | {DEFERRED, *OF_MONEY.values()}
)
"""Every account that a journal may name."""
