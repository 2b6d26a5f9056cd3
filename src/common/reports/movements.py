"""`movements`: what came into the balances and what left them, period by period and by source.

A period has the entries after its beginning and up to its end, the end included: so its closing
balance is what `balance(as_of=…)` says of the same instant (rule 8). Everything comes from one scan
of the entries and their postings.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from src.common.models.credit_entry import EntryKind
from src.common.models.credit_lot import LotSource
from src.common.reports.columns import instant, integer, text
from src.common.reports.held import CAPTURED
from src.common.reports.snapshots import EVER, UNBOOKED, UNOPENED, Snapshot

COLUMNS = (
    instant("period_start", "The period begins after this instant."),
    instant("period_end", "It ends with this instant, and the closing balance is as of it."),
    text("source", "Why the lots exist that the credits lie in."),
    integer("opening", "The balances at the beginning."),
    integer("brought_over", "Balances from before the ledger."),
    integer("sold", "Credits of paid purchases."),
    integer("given", "Credits granted otherwise."),
    integer("adjusted", "What operators gave, less what they took."),
    integer("reinstated", "Given back because a refund or a dispute ended otherwise."),
    integer(
        "reversed",
        "Undone spends and takings of operators, less undone grants and gifts of theirs.",
    ),
    integer("spent", "Spends, and what captures kept of holds."),
    integer("held", "What holds set aside, less what came back or was kept: negative if more."),
    integer("expired", "What expired."),
    integer("clawed_back", "What refunds and disputes took."),
    integer("repaid", "What repaid the debts of refunds and disputes."),
    integer("closing", "The balances at the end."),
)
INCOMING = ("brought_over", "sold", "given", "adjusted", "reinstated", "reversed")
OUTGOING = ("spent", "held", "expired", "clawed_back", "repaid")
PARTS = {"opening": 1, **dict.fromkeys(INCOMING, 1), **dict.fromkeys(OUTGOING, -1), "closing": 1}
"""What is added to the opening balances, and taken off them."""
_CAPTURED = "captured"

_COLUMN_OF_KIND: Mapping[str, tuple[str, int]] = {
    EntryKind.OPENING: ("brought_over", 1),
    EntryKind.ADJUSTMENT: ("adjusted", 1),
    EntryKind.REINSTATEMENT: ("reinstated", 1),
    EntryKind.REVERSAL: ("reversed", 1),
    EntryKind.SPEND: ("spent", -1),
    EntryKind.HOLD: ("held", -1),
    EntryKind.CAPTURE: ("held", -1),
    EntryKind.RELEASE: ("held", -1),
    EntryKind.HOLD_EXPIRY: ("held", -1),
    EntryKind.LOT_EXPIRY: ("expired", -1),
    EntryKind.CLAWBACK: ("clawed_back", -1),
    EntryKind.DEBT_REPAYMENT: ("repaid", -1),
}
"""By kind of entry: the column that its postings count in, and with which sign."""

_OF_LOTS = """
SELECT width_bucket(effective_at, :bounds) AS period, source, {kind} AS kind,
       sum(lines.amount) AS amount
FROM {lines} JOIN credit_lots AS lots ON lots.user_id = lines.user_id AND lots.seq = lines.lot_seq
GROUP BY 1, 2, 3"""
_BOOKED = "credit_entries JOIN credit_postings AS lines USING (user_id, seq)"
# Each part by itself: so PostgreSQL may have several processes add up the long one.
_STATEMENT = f"""
WITH {UNBOOKED}, {UNOPENED}, {CAPTURED}
{_OF_LOTS.format(lines=_BOOKED, kind="kind")}
UNION ALL {_OF_LOTS.format(lines="unbooked AS lines", kind="kind")}
UNION ALL {_OF_LOTS.format(lines="captured AS lines", kind=f"'{_CAPTURED}'")}
UNION ALL
SELECT width_bucket(:now, :bounds), '{LotSource.OPENING}', '{EntryKind.OPENING}', sum(amount)
FROM unopened HAVING count(*) > 0
"""  # noqa: S608  nothing of anybody else's in it

_Sums = dict[tuple[int, str], defaultdict[str, int]]
"""By period and source: credits by column."""


class Movements:
    """The roll-forward of some periods, and what it says was there at their end, by source."""

    def __init__(self, session: Session, snapshot: Snapshot, bounds: Sequence[dt.datetime]) -> None:
        """Read and add up; `bounds` begin and end the periods (`periods.boundaries`).

        Where the last is not before the snapshot's own instant, all that is booked counts.

        Raises:
            DatabaseBusy: a passing condition of the database.
        """
        self.bounds = bounds
        is_open = bounds[-1] >= snapshot.now
        # `width_bucket` has each period without its end: one microsecond later it has it.
        ticks = [bound + dt.timedelta(microseconds=1) for bound in bounds]
        ticks[-1:] = [EVER] if is_open else ticks[-1:]
        self._sums: _Sums = defaultdict(lambda: defaultdict(int))
        found = snapshot.read(session, _STATEMENT, {"bounds": ticks})
        for period, source, kind, amount in found:
            self._add(period, source, kind, int(amount))

    @property
    def closing(self) -> dict[str, int]:
        """Credits in the balances at the end of the last period, by source."""
        return {row[2]: row[-1] for row in self.rows() if row[1] == self.bounds[-1] and row[-1]}

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """In the order of the periods, and of the sources' names; as `COLUMNS`."""
        sources = sorted({source for _, source in self._sums})
        balances = {source: self._net(0, source) for source in sources}
        for period, (start, end) in enumerate(
            zip(self.bounds, self.bounds[1:], strict=False), start=1
        ):
            for source in sources:
                sums = self._sums[period, source]
                opening = balances[source]
                balances[source] += self._net(period, source)
                moved = [sums[column] for column in (*INCOMING, *OUTGOING)]
                yield (start, end, source, opening, *moved, balances[source])

    def _add(self, period: int, source: str, kind: str, amount: int) -> None:
        sums = self._sums[period, source]
        if kind == EntryKind.GRANT:
            sums["sold" if source == LotSource.PURCHASE else "given"] += amount
        elif kind == _CAPTURED:
            sums["spent"] += amount
            sums["held"] -= amount
        else:
            column, sign = _COLUMN_OF_KIND[kind]
            sums[column] += sign * amount

    def _net(self, period: int, source: str) -> int:
        sums = self._sums[period, source]
        incoming = sum(sums[column] for column in INCOMING)
        return incoming - sum(sums[column] for column in OUTGOING)
