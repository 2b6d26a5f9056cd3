"""The ledger as double entries in plain text, read in order, and written by PostgreSQL itself.

A million entries are some four million lines: no object of Python's is made for each of them.
"""

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import accumulate, chain, groupby, islice
from operator import itemgetter
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DataError
from sqlalchemy.orm import Session

from src.common.exceptions import Invalid
from src.common.models.credit_entry import EntryKind
from src.common.models.credit_lot import LotSource
from src.common.reports.held import CAPTURED
from src.common.reports.journal_accounts import DEFERRED, OF_MONEY, OWED, Pair, pairs
from src.common.reports.revenue import KEPT, earnings
from src.common.reports.snapshots import EVER, UNBOOKED, UNOPENED, Snapshot, statement
from src.html_pages import DECIMALS

COMMODITY = "CREDITS"
ENTRIES_A_FETCH = 5_000
_DAY_COLUMN = -2


class Program(StrEnum):
    """What is to read the journal."""

    BEANCOUNT = "beancount"
    HLEDGER = "hledger"


_SETTINGS = text("SELECT set_config('TimeZone', :zone, true), set_config('DateStyle', 'ISO', true)")

_LINES = f"""
WITH {UNBOOKED}, {UNOPENED}, {CAPTURED}, {earnings(of_every_lot=True)},
lines AS MATERIALIZED (
    SELECT least(effective_at, :latest) AS effective_at, user_id, seq, lot_seq, kind, source,
           amount, earned_as, currency, cents
    FROM earnings
    UNION ALL
    SELECT :now, user_id, 1, 1, '{EntryKind.OPENING}', '{LotSource.OPENING}', amount,
           NULL, NULL, NULL
    FROM unopened
    UNION ALL
    SELECT coalesce((
               SELECT min(effective_at) FROM credit_entries AS taken
               WHERE taken.user_id = debts.user_id AND taken.kind = '{EntryKind.CLAWBACK}'
                   AND taken.related_seq = debts.seq), made.effective_at),
           debts.user_id, debts.seq, debts.seq, '{OWED}', '',
           outstanding + coalesce((
               SELECT -sum(amount) FROM credit_entries AS repaid
               WHERE repaid.user_id = debts.user_id AND repaid.kind = '{EntryKind.DEBT_REPAYMENT}'
                   AND repaid.related_seq = debts.seq), 0),
           NULL, NULL, NULL
    FROM credit_debts AS debts
    JOIN credit_entries AS made ON made.user_id = debts.user_id AND made.seq = debts.seq
)
"""  # noqa: S608  nothing of anybody else's in it


def _case(of: str, texts: Mapping[str, str]) -> str:
    """SQL: one of these expressions, by a column's value; the commonest stands for the rest."""
    [(commonest, times)] = Counter(texts.values()).most_common(1)
    if times == len(texts):
        return commonest
    rest = f" ELSE {commonest}" if times > 1 else ""
    cases = "".join(
        f" WHEN '{value}' THEN {said}"
        for value, said in texts.items()
        if not rest or said != commonest
    )
    return f"CASE {of}{cases}{rest} END"


def _accounts(written: Callable[[Pair], str]) -> str:
    """SQL: a text by kind and source."""
    by_kind: dict[str, dict[str, str]] = {}
    for kind, source, pair in pairs():
        by_kind.setdefault(kind, {})[source] = f"'{written(pair)}'"
    return _case("kind", {kind: _case("source", texts) for kind, texts in by_kind.items()})


def _currencies(decimals: int) -> str:
    return ", ".join(f"'{name}'" for name, places in DECIMALS.items() if places == decimals)


_UNIT = f"""CASE WHEN currency IN ({_currencies(0)}) THEN 1
         WHEN currency IN ({_currencies(3)}) THEN 0.001 ELSE 0.01 END"""
_MINUS = _accounts(lambda pair: f"  {pair.minus}  ")
_PLUS = _accounts(lambda pair: f" {COMMODITY}\n  {pair.plus}  ")
_EARNED_AS = _case("earned_as", {of: f"'\n  {account}  '" for of, account in OF_MONEY.items()})
# What is added to one account is taken off the other: they sum to 0 in each currency.
_WRITTEN = f"""
    CASE WHEN amount <> 0 THEN
        {_MINUS} || CAST(-amount AS text) || {_PLUS} || CAST(amount AS text) || ' {COMMODITY}\n'
        ELSE '' END
    || CASE WHEN cents <> 0 THEN
        '  {DEFERRED}  ' || CAST(-cents * {_UNIT} AS text) || ' ' || upper(currency)
        || {_EARNED_AS} || CAST(cents * {_UNIT} AS text) || ' ' || upper(currency) || '\n'
        ELSE '' END"""
# An entry of the very instant at which a day ends belongs to it, as in `movements`. The zone is the
# session's: `AT TIME ZONE` takes CET and its like for abbreviations, which know no summer time.
_DAY = "CAST(effective_at - interval '1 microsecond' AS date)"
_OF_ENTRY = {
    Program.BEANCOUNT: (
        """' * "' || named || '"\n  user: "' || user_id || '"\n  seq: ' || seq || '\n'"""
    ),
    Program.HLEDGER: """' * ' || named || '  ; user:' || user_id || ', seq:' || seq || '\n'""",
}
_OF_DAY = {
    Program.BEANCOUNT: "' * \"entries of the day\"\n'",
    Program.HLEDGER: "' * entries of the day\n'",
}
# The lines are read once, for both: first what is owed, then what is written. That is done as late
# as possible, so that what is sorted is short.
_OWED = """{lines}
SELECT width_bucket(effective_at, :bounds) AS period, currency,
       CAST(sum(cents) AS bigint) AS cents, CAST(NULL AS date) AS day, NULL AS written
FROM lines WHERE cents <> 0 AND effective_at <= :until
GROUP BY 1, 2
UNION ALL
"""
_BY_ENTRY = """(
SELECT NULL, NULL, NULL, {day},
       CAST({day} AS text) || {heading} || string_agg({written}, '' ORDER BY lot_seq)
FROM (SELECT lines.*, CASE kind WHEN '{kept}' THEN '{capture}' ELSE kind END AS named FROM lines)
    AS lines
WHERE effective_at <= :until
GROUP BY effective_at, user_id, seq, named
ORDER BY effective_at, user_id, seq, named
)"""
_BY_DAY = """(
SELECT NULL, NULL, NULL, day,
       CAST(day AS text) || {heading} || string_agg({written}, '' ORDER BY {order})
FROM (
    SELECT {day} AS day, kind, source, earned_as, currency,
           CAST(sum(amount) AS bigint) AS amount, CAST(sum(cents) AS bigint) AS cents
    FROM lines WHERE effective_at <= :until
    GROUP BY 1, 2, 3, 4, 5
    HAVING sum(amount) <> 0 OR sum(cents) <> 0
) AS days
GROUP BY day ORDER BY day
)"""


def _worded(program: Program, *, by_day: bool) -> str:
    return (_OWED + (_BY_DAY if by_day else _BY_ENTRY)).format(
        lines=_LINES,
        day=_DAY,
        heading=(_OF_DAY if by_day else _OF_ENTRY)[program],
        written=_WRITTEN,
        kept=KEPT,
        capture=EntryKind.CAPTURE,
        order="kind, source, earned_as, currency",
    )


class Entries:
    """Every entry's text, or every day's, and how much of the payments' money is owed when."""

    def __init__(
        self,
        session: Session,
        snapshot: Snapshot,
        program: Program,
        bounds: Sequence[dt.datetime],
        *,
        zone: str,
        by_day: bool,
        test_money: bool = False,
    ) -> None:
        """Read them up to the last of `bounds`, which begin and end periods.

        Days are those of `zone`, which stays the time zone of the session's database transaction.

        Raises:
            DatabaseBusy: a passing condition of the database.
            Invalid: VALIDATION_ERROR, PostgreSQL does not know the time zone.
        """
        try:
            session.execute(_SETTINGS, {"zone": zone})
        except DataError:
            raise Invalid(
                f"time_zone: PostgreSQL does not know {zone}", "VALIDATION_ERROR", field="time_zone"
            ) from None
        parameters = snapshot.parameters() | {
            "until": bounds[-1],
            # All that is booked counts by now, whatever its instant (as of `Movements`).
            "latest": bounds[-1] if bounds[-1] >= snapshot.now else EVER,
            "bounds": [bound + dt.timedelta(microseconds=1) for bound in bounds],
            "test_money": test_money,
        }
        rows = session.execute(
            statement(_worded(program, by_day=by_day)),
            parameters,
            execution_options={"yield_per": ENTRIES_A_FETCH},
        )
        self._rows: Iterator[tuple[Any, ...]] = iter(rows)
        self._first: list[tuple[Any, ...]] = []
        earned: defaultdict[str, dict[int, int]] = defaultdict(dict)
        for row in self._rows:
            period, currency, cents, *_ = row
            if period is None:
                self._first.append(row)
                break
            earned[currency][period] = cents
        self.owed = {
            currency: list(accumulate(cents.get(period, 0) for period in range(1, len(bounds))))
            for currency, cents in sorted(earned.items())
        }
        """By currency: cents that are owed at the end of each period."""

    def __iter__(self) -> Iterator[tuple[dt.date, str]]:
        """Texts of one day each, in the order of time; fetched while they are iterated, once."""
        rows = chain(self._first, self._rows)
        while portion := list(islice(rows, ENTRIES_A_FETCH)):
            for day, of_day in groupby(portion, itemgetter(_DAY_COLUMN)):
                yield day, "\n".join(row[-1] for row in of_day)
