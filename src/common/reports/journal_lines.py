"""The ledger as double entries in plain text, read in order, and written by PostgreSQL itself.

A million entries are some four million lines: no object of Python's is made for each of them.
"""

import datetime as dt
import uuid
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
from src.common.reports.columns import added_up
from src.common.reports.held import CAPTURED
from src.common.reports.journal_accounts import DEFERRED, OF_MONEY, OWED, Pair, pairs
from src.common.reports.revenue import KEPT, earnings
from src.common.reports.snapshots import EVER, UNBOOKED, UNOPENED, Snapshot, statement
from src.common.time_zones import in_order
from src.html_pages import DECIMALS

COMMODITY = "CREDITS"
ENTRIES_A_FETCH = 5_000


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
# The lines are read once, for both: what is owed, and what is written. That is done as late as
# possible, so that what is sorted is short.
_OF_ENTRIES = """{lines}
SELECT width_bucket(effective_at, :bounds) AS period, currency,
       CAST(sum(cents) AS bigint) AS cents, CAST(NULL AS timestamptz) AS effective_at,
       CAST(NULL AS uuid) AS user_id, CAST(NULL AS date) AS day, NULL AS written
FROM lines WHERE cents <> 0 AND effective_at <= :until
GROUP BY 1, 2
UNION ALL (
SELECT NULL, NULL, NULL, effective_at, user_id, {day},
       CAST({day} AS text) || {heading} || string_agg({written}, '' ORDER BY lot_seq, kind)
FROM (SELECT lines.*, CASE kind WHEN '{kept}' THEN '{capture}' ELSE kind END AS named FROM lines)
    AS lines
WHERE effective_at <= :until
GROUP BY effective_at, user_id, seq, named
ORDER BY effective_at, user_id, seq, named
)"""
_OF_DAYS = f"""{_LINES}
SELECT width_bucket(effective_at, :bounds) AS period, currency, CAST(NULL AS date) AS day,
       NULL AS kind, NULL AS source, NULL AS earned_as,
       0 AS amount, CAST(sum(cents) AS bigint) AS cents
FROM lines WHERE cents <> 0 AND effective_at <= :until
GROUP BY 1, 2
UNION ALL
SELECT NULL, currency, {_DAY}, kind, source, earned_as,
       CAST(sum(amount) AS bigint), CAST(coalesce(sum(cents), 0) AS bigint)
FROM lines WHERE effective_at <= :until
GROUP BY 2, 3, 4, 5, 6
"""  # noqa: S608  nothing of anybody else's in it
_KEYS_OF_DAYS = 6
_WRITTEN_DAYS = """
SELECT day, CAST(day AS text) || {heading} || string_agg(
    {written}, '' ORDER BY kind, source, earned_as, currency)
FROM unnest(:currencies, :days, :kinds, :sources, :earned_as, :amounts, :cents)
    AS sums (currency, day, kind, source, earned_as, amount, cents)
WHERE amount <> 0 OR cents <> 0
GROUP BY day ORDER BY day
"""
_ARRAYS_OF_DAYS = ("currencies", "days", "kinds", "sources", "earned_as", "amounts", "cents")
_BEFORE_ALL = (dt.datetime.min.replace(tzinfo=dt.UTC), uuid.UUID(int=0))


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
        parameters = {
            "until": bounds[-1],
            # All that is booked counts by now, whatever its instant (as of `Movements`).
            "latest": bounds[-1] if bounds[-1] >= snapshot.now else EVER,
            "bounds": [bound + dt.timedelta(microseconds=1) for bound in bounds],
            "test_money": test_money,
        }
        earned: _Earned = defaultdict(lambda: defaultdict(int))
        read = _read_days if by_day else _read_entries
        self._texts = read(session, snapshot, program, parameters, earned)
        self.owed = {
            currency: list(accumulate(cents[period] for period in range(1, len(bounds))))
            for currency, cents in sorted(earned.items())
        }
        """By currency: cents that are owed at the end of each period."""

    def __iter__(self) -> Iterator[tuple[dt.date, str]]:
        """Texts of one day each, in the order of time; fetched while they are iterated, once."""
        while portion := list(islice(self._texts, ENTRIES_A_FETCH)):
            for day, of_day in groupby(portion, itemgetter(0)):
                yield day, "\n".join(text for _, text in of_day)


_Earned = defaultdict[str, defaultdict[int, int]]
"""By currency and period: cents that came to be owed (+), or were earned (-)."""


def _read_entries(
    session: Session,
    snapshot: Snapshot,
    program: Program,
    parameters: Mapping[str, Any],
    earned: _Earned,
) -> Iterator[tuple[dt.date, str]]:
    """Each entry's day and text; what was earned is there when this returns."""
    asked = _OF_ENTRIES.format(
        lines=_LINES,
        day=_DAY,
        heading=_OF_ENTRY[program],
        written=_WRITTEN,
        kept=KEPT,
        capture=EntryKind.CAPTURE,
    )
    rows = snapshot.read_in_order(
        session, asked, parameters, key=_order_of_entries, rows_a_fetch=ENTRIES_A_FETCH
    )
    first: list[tuple[Any, ...]] = []
    for row in rows:
        period, currency, cents, *_ = row
        if period is None:
            first.append(row)
            break
        earned[currency][period] += cents
    return map(itemgetter(-2, -1), chain(first, rows))


def _order_of_entries(row: tuple[Any, ...]) -> tuple[dt.datetime, uuid.UUID]:
    """What is owed comes first. A user's entries of one instant are in their order already."""
    period, _, _, effective_at, user_id, *_ = row
    return _BEFORE_ALL if period is not None else (in_order(effective_at), user_id)


def _read_days(
    session: Session,
    snapshot: Snapshot,
    program: Program,
    parameters: Mapping[str, Any],
    earned: _Earned,
) -> Iterator[tuple[dt.date, str]]:
    """Each day and its text. All groups' sums are added up before PostgreSQL writes them."""
    found = added_up(snapshot.read(session, _OF_DAYS, parameters), keys=_KEYS_OF_DAYS)
    for period, currency, *_, cents in found:
        if period is not None:
            earned[currency][period] += cents
    days = [row[1:] for row in found if row[0] is None]
    columns = list(zip(*days, strict=True)) or [()] * len(_ARRAYS_OF_DAYS)
    arrays = {name: list(column) for name, column in zip(_ARRAYS_OF_DAYS, columns, strict=True)}
    asked = _WRITTEN_DAYS.format(heading=_OF_DAY[program], written=_WRITTEN)
    return ((day, text) for day, text in session.execute(statement(asked), arrays))
