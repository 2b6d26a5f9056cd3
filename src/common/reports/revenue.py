"""`revenue`: what became of what was paid: still owed, spent, expired, refunded, disputed.

A payment's money is earned as its credits go. After each entry what is still owed of it is its
share for the credits that are left in the balance or held, rounded half up (`liability`); what the
entry takes off that share is what it earned. So the parts of a payment sum to all of it, a figure
of the past never changes, and the closing figures are what `liability` says. It is one scan of the
entries that touched purchases.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from src.common.models.credit_entry import EntryKind
from src.common.models.stripe_reversal import ReversalKind
from src.common.reports.columns import instant, integer, text
from src.common.reports.held import CAPTURED, OF_HOLDS
from src.common.reports.snapshots import EVER, OF_THE_MODE, UNBOOKED, Snapshot

COLUMNS = (
    instant("period_start", "The period begins after this instant."),
    instant("period_end", "It ends with this instant, and the closing figure is as of it."),
    text("currency", "What was paid in; currencies are never added."),
    integer("opening_cents", "Deferred revenue at the beginning, held credits included."),
    integer("sold_cents", "What was paid for credits."),
    integer("spent_cents", "Earned: credits that were spent, or kept of holds."),
    integer("reversed_cents", "Owed again: spends, and what operators took, that were undone."),
    integer("expired_cents", "Breakage: credits that expired."),
    integer("refunded_cents", "Credits that refunds took, less what they gave back."),
    integer("disputed_cents", "Credits that disputes took, less what they gave back."),
    integer("repaid_cents", "Credits that repaid the debts of other payments."),
    integer("adjusted_cents", "Credits that operators took."),
    integer("closing_cents", "Deferred revenue at the end, held credits included."),
)
INCOMING = ("sold_cents", "reversed_cents")
OUTGOING = (
    *("spent_cents", "expired_cents", "refunded_cents", "disputed_cents"),
    *("repaid_cents", "adjusted_cents"),
)
PARTS = {
    "opening_cents": 1,
    **dict.fromkeys(INCOMING, 1),
    **dict.fromkeys(OUTGOING, -1),
    "closing_cents": 1,
}
"""What is added to the opening figure, and taken off it."""
DISPUTED, KEPT = "disputed", "kept"
"""Besides the kinds of entry: what disputes took or gave back, and what captures kept."""

_COLUMN_OF_KIND: Mapping[str, str] = {
    EntryKind.GRANT: "sold_cents",
    EntryKind.REVERSAL: "reversed_cents",
    EntryKind.SPEND: "spent_cents",
    EntryKind.CAPTURE: "spent_cents",
    EntryKind.LOT_EXPIRY: "expired_cents",
    EntryKind.CLAWBACK: "refunded_cents",
    EntryKind.REINSTATEMENT: "refunded_cents",
    DISPUTED: "disputed_cents",
    EntryKind.DEBT_REPAYMENT: "repaid_cents",
    EntryKind.ADJUSTMENT: "adjusted_cents",
}
"""By kind of entry, or `disputed`: the column that it counts in."""
EARNED_AS = frozenset(_COLUMN_OF_KIND)
"""What a line may be `earned_as` (`earnings`)."""

_EARNED_AS = f"""
           CASE WHEN kind IN ('{EntryKind.CLAWBACK}', '{EntryKind.REINSTATEMENT}') AND EXISTS (
                    SELECT FROM stripe_reversals AS reversals
                    WHERE livemode = ANY (ARRAY[true, false])
                        AND reversals.kind = '{ReversalKind.DISPUTE}'
                        AND reversal_id = substring(idempotency_key from '^~reversal:(.*):[0-9]+$'))
                THEN '{DISPUTED}' ELSE kind END"""  # noqa: S608  nothing of anybody else's in it

_EARNINGS = """
valued AS NOT MATERIALIZED (
    SELECT lots.user_id, lots.seq AS lot_seq, source, granted, currency,
           CAST(amount_paid_cents AS bigint) AS paid_cents
    FROM credit_lots AS lots {join} (SELECT * FROM transactions WHERE {of_the_mode}) AS paid
        USING (transaction_id)
),
used AS (
    SELECT user_id, lot_seq, seq, effective_at, kind, {earned_as} AS earned_as,
           lines.amount, {change} AS change, source, granted, currency, paid_cents
    FROM valued JOIN credit_postings AS lines USING (user_id, lot_seq)
    JOIN credit_entries USING (user_id, seq) {where}
    UNION ALL
    SELECT user_id, lot_seq, seq, effective_at, kind, kind,
           lines.amount, {change}, source, granted, currency, paid_cents
    FROM valued JOIN unbooked AS lines USING (user_id, lot_seq) {where}
    UNION ALL
    SELECT user_id, lot_seq, seq, effective_at, '{kept}', '{capture}',
           amount, -amount, source, granted, currency, paid_cents
    FROM valued JOIN captured USING (user_id, lot_seq)
),
running AS (
    SELECT used.*,
           CAST(sum(change) OVER (PARTITION BY user_id, lot_seq ORDER BY seq) AS bigint) AS owed
    FROM used
),
earnings AS (
    SELECT user_id, seq, lot_seq, effective_at, kind, earned_as, source, amount, currency,
           (2 * paid_cents * owed + granted) / (2 * CAST(granted AS bigint))
         - (2 * paid_cents * (owed - change) + granted) / (2 * CAST(granted AS bigint)) AS cents
    FROM running
)"""


def earnings(*, of_every_lot: bool) -> str:
    """The common table expression `earnings`; it needs `unbooked` and `captured`.

    It has the lines of every lot, or those of lots that were paid for but their holds'. `cents` is
    what the line adds to (+) what is owed of the lot's payment, or takes off it (-): NULL where
    nothing was paid. Of the amounts, those of the kind `kept` are what captures kept of holds.
    """
    return _EARNINGS.format(
        join="LEFT JOIN" if of_every_lot else "JOIN",
        of_the_mode=OF_THE_MODE,
        earned_as=_EARNED_AS,
        change=f"CASE WHEN kind IN {OF_HOLDS} THEN 0 ELSE lines.amount END",
        where="" if of_every_lot else f"WHERE kind NOT IN {OF_HOLDS}",
        kept=KEPT,
        capture=EntryKind.CAPTURE,
    )


_STATEMENT = f"""
WITH {UNBOOKED}, {CAPTURED}, {earnings(of_every_lot=False)}
SELECT width_bucket(effective_at, :bounds) AS period, currency, earned_as, sum(cents)
FROM earnings GROUP BY 1, 2, 3
"""  # noqa: S608

_Sums = dict[tuple[int, str], defaultdict[str, int]]
"""By period and currency: cents by column."""


class Revenue:
    """What became of all payments' money in some periods, by currency."""

    def __init__(
        self,
        session: Session,
        snapshot: Snapshot,
        bounds: Sequence[dt.datetime],
        *,
        test_money: bool = False,
    ) -> None:
        """As of `movements.Movements`; `test_money` as of `liability.Liability`."""
        self.bounds = bounds
        ticks = [bound + dt.timedelta(microseconds=1) for bound in bounds]
        if bounds[-1] >= snapshot.now:
            ticks[-1] = EVER
        self._sums: _Sums = defaultdict(lambda: defaultdict(int))
        parameters = {"bounds": ticks, "test_money": test_money}
        for period, currency, kind, cents in snapshot.read(session, _STATEMENT, parameters):
            column = _COLUMN_OF_KIND[kind]
            sign = 1 if column in INCOMING else -1
            self._sums[period, currency][column] += sign * int(cents)

    @property
    def closing(self) -> dict[str, int]:
        """Deferred revenue at the end of the last period, by currency."""
        return {row[2]: row[-1] for row in self.rows() if row[1] == self.bounds[-1] and row[-1]}

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """In the order of the periods and the currencies; as `COLUMNS`."""
        currencies = sorted({currency for _, currency in self._sums})
        owed = {currency: self._net(0, currency) for currency in currencies}
        for period in range(1, len(self.bounds)):
            for currency in currencies:
                sums = self._sums[period, currency]
                opening = owed[currency]
                owed[currency] += self._net(period, currency)
                moved = [sums[column.name] for column in COLUMNS[4:-1]]
                start, end = self.bounds[period - 1], self.bounds[period]
                yield (start, end, currency, opening, *moved, owed[currency])

    def _net(self, period: int, currency: str) -> int:
        sums = self._sums[period, currency]
        incoming = sum(sums[column] for column in INCOMING)
        return incoming - sum(sums[column] for column in OUTGOING)
