"""The ledger as double entries, read in order: which account each entry debits and credits.

Credits are a commodity of their own. What users have is owed to them, so it lies in liabilities, by
the lots' sources. What was paid for it is deferred revenue, in cents, until it is earned.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.exc import DataError
from sqlalchemy.orm import Session

from src.common.exceptions import Invalid
from src.common.models.credit_entry import EntryKind
from src.common.models.credit_lot import LotSource
from src.common.reports.held import CAPTURED
from src.common.reports.revenue import DISPUTED, EARNINGS
from src.common.reports.snapshots import (
    ROWS_A_FETCH,
    UNBOOKED,
    UNOPENED,
    Snapshot,
    statement,
)

BALANCES = "Liabilities:Credits"
HELD = "Liabilities:Held"
DEFERRED = "Liabilities:DeferredRevenue"
DEBTS = "Assets:Debts"
_SPENT = "Equity:Credits:Spent"
_KEPT, _OWED = "kept", "debt"
CREDITS = ""
"""In place of a currency."""

_OF_CREDITS: dict[str, str] = {
    EntryKind.OPENING: "Equity:Credits:BroughtOver",
    EntryKind.GRANT: "Equity:Credits:Given",
    EntryKind.ADJUSTMENT: "Equity:Credits:Adjusted",
    EntryKind.REINSTATEMENT: "Equity:Credits:ClawedBack",
    EntryKind.CLAWBACK: "Equity:Credits:ClawedBack",
    EntryKind.REVERSAL: "Equity:Credits:Reversed",
    EntryKind.SPEND: _SPENT,
    EntryKind.LOT_EXPIRY: "Equity:Credits:Expired",
    EntryKind.DEBT_REPAYMENT: DEBTS,
}
_SOLD = "Equity:Credits:Sold"
_OF_MONEY: dict[str, str] = {
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
_DEBTS_ARISEN = "Equity:Credits:Owed"


def _of_source(account: str, source: str) -> str:
    return f"{account}:{source.capitalize()}"


ACCOUNTS = sorted(
    {
        *(_of_source(BALANCES, source) for source in LotSource),
        *(_of_source(HELD, source) for source in LotSource),
        *_OF_CREDITS.values(),
        *_OF_MONEY.values(),
        *(DEFERRED, _SOLD, _DEBTS_ARISEN),
    }
)
"""Every account that a journal may name."""


class DoubleEntry(NamedTuple):
    """One entry of the ledger, or all of one day."""

    day: dt.date
    entry: tuple[Any, int] | None
    """Whose and its number; None where it is a day."""
    narration: str
    lines: dict[tuple[str, str], int]
    """By account and currency (or `CREDITS`): what is added; they sum to 0 in each currency."""


# An entry of the very instant at which a day ends belongs to it, as in `movements`. The zone is the
# session's: `AT TIME ZONE` takes CET and its like for abbreviations, which know no summer time.
_DAY = "CAST(effective_at - interval '1 microsecond' AS date)"
_SET_ZONE = text("SELECT set_config('TimeZone', :zone, true)")

_ENTRIES = f"""
WITH {UNBOOKED}, {UNOPENED}, {CAPTURED}, {EARNINGS},
lines AS (
    SELECT effective_at, user_id, seq, kind, lot_seq, lines.amount
    FROM credit_postings AS lines JOIN credit_entries USING (user_id, seq)
    UNION ALL
    SELECT effective_at, user_id, seq, kind, lot_seq, amount FROM unbooked
    UNION ALL
    SELECT effective_at, user_id, seq, '{_KEPT}', lot_seq, amount FROM captured
),
double_entries AS (
    SELECT effective_at, lines.user_id, lines.seq, kind, source, '{CREDITS}' AS currency, amount
    FROM lines
    JOIN credit_lots AS lots ON lots.user_id = lines.user_id AND lots.seq = lines.lot_seq
    UNION ALL
    SELECT :now, user_id, 1, '{EntryKind.OPENING}', '{LotSource.OPENING}', '{CREDITS}', amount
    FROM unopened
    UNION ALL
    SELECT effective_at, user_id, seq, kind, '{LotSource.PURCHASE}', currency, cents
    FROM earnings WHERE cents <> 0
    UNION ALL
    SELECT coalesce((
               SELECT min(effective_at) FROM credit_entries AS taken
               WHERE taken.user_id = debts.user_id AND taken.kind = '{EntryKind.CLAWBACK}'
                   AND taken.related_seq = debts.seq), made.effective_at),
           debts.user_id, debts.seq, '{_OWED}', '', '{CREDITS}',
           outstanding + coalesce((
               SELECT -sum(amount) FROM credit_entries AS repaid
               WHERE repaid.user_id = debts.user_id AND repaid.kind = '{EntryKind.DEBT_REPAYMENT}'
                   AND repaid.related_seq = debts.seq), 0)
    FROM credit_debts AS debts
    JOIN credit_entries AS made ON made.user_id = debts.user_id AND made.seq = debts.seq
)
"""  # noqa: S608  nothing of anybody else's in it
# Not added up: of most entries there is one row.
_BY_ENTRY = f"""{_ENTRIES}
SELECT {_DAY} AS day, user_id, seq, kind, source, currency, CAST(amount AS bigint)
FROM double_entries WHERE effective_at <= :until
ORDER BY effective_at, user_id, seq, kind, source, currency
"""  # noqa: S608
_BY_DAY = f"""{_ENTRIES}
SELECT {_DAY} AS day, NULL, NULL, kind, source, currency, CAST(sum(amount) AS bigint)
FROM double_entries WHERE effective_at <= :until
GROUP BY 1, kind, source, currency
HAVING sum(amount) <> 0
ORDER BY 1, kind, source, currency
"""  # noqa: S608


def read_double_entries(
    session: Session,
    snapshot: Snapshot,
    until: dt.datetime,
    *,
    zone: str,
    by_day: bool,
    test_money: bool = False,
) -> Iterator[DoubleEntry]:
    """In the order of time; fetched while they are iterated.

    Days are those of `zone`, which stays the time zone of the session's database transaction.

    Raises:
        DatabaseBusy: a passing condition of the database.
        Invalid: VALIDATION_ERROR, PostgreSQL does not know the time zone.
    """
    try:
        session.execute(_SET_ZONE, {"zone": zone})
    except DataError:
        raise Invalid(
            f"time_zone: PostgreSQL does not know {zone}", "VALIDATION_ERROR", field="time_zone"
        ) from None
    parameters = snapshot.parameters() | {"until": until, "test_money": test_money}
    rows = session.execute(
        statement(_BY_DAY if by_day else _BY_ENTRY),
        parameters,
        execution_options={"yield_per": ROWS_A_FETCH},
    )
    for (day, user_id, seq), group in groupby(rows, itemgetter(0, 1, 2)):
        lines: defaultdict[tuple[str, str], int] = defaultdict(int)
        kinds: dict[str, None] = {}
        for *_, kind, source, currency, amount in group:
            kinds[kind] = None
            for line, sign in _accounts(kind, source, currency):
                lines[line] += sign * amount
        yield DoubleEntry(
            day=day,
            entry=None if by_day else (user_id, seq),
            narration="entries of the day" if by_day else _narration(tuple(kinds)),
            lines={line: amount for line, amount in sorted(lines.items()) if amount},
        )


@cache
def _narration(kinds: tuple[str, ...]) -> str:
    told = [kind for kind in kinds if kind not in {_KEPT, DISPUTED}]
    return ", ".join(told) or EntryKind.CAPTURE


@cache
def _accounts(kind: str, source: str, currency: str) -> tuple[tuple[tuple[str, str], int], ...]:
    """Which accounts, with the currency, an amount counts in, and with which sign."""
    return tuple(((account, currency), sign) for account, sign in _signs(kind, source, currency))


def _signs(kind: str, source: str, currency: str) -> tuple[tuple[str, int], ...]:
    if kind == _OWED:
        return (DEBTS, 1), (_DEBTS_ARISEN, -1)
    if currency != CREDITS:
        return (DEFERRED, -1), (_OF_MONEY[kind], 1)
    if kind == _KEPT:
        return (_of_source(HELD, source), 1), (_SPENT, -1)
    balance = (_of_source(BALANCES, source), -1)
    if kind == EntryKind.GRANT and source == LotSource.PURCHASE:
        return balance, (_SOLD, 1)
    return balance, (_OF_CREDITS.get(kind, _of_source(HELD, source)), 1)
