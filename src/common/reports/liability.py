"""`liability`: credits that customers have at an instant, by source and age, and their value.

The value is deferred revenue: of each payment that share which its credits still stand for. What a
payment brought is divided by largest remainder, so no cent is lost: first between what is
outstanding, held credits included, and what is gone; then the outstanding share between what is in
the balance and what is held. Of two parts that is to round half up.

It begins at the lots as they are and undoes what was booked after the instant. So the present needs
no entries, and the past one scan of them; `movements` adds up from the first entry.
"""

import datetime as dt
from collections.abc import Iterator
from typing import Any

from sqlalchemy.orm import Session

from src.common.models.credit_lot import LotSource
from src.common.reports.columns import added_up, integer, text
from src.common.reports.held import CAPTURED, HELD_NOW, OF_HOLDS
from src.common.reports.snapshots import (
    OF_THE_MODE,
    UNBOOKED,
    UNOPENED,
    Snapshot,
)

AGES = ((30, "0-30"), (90, "31-90"), (180, "91-180"), (365, "181-365"), (None, "366+"))
"""Days since the lot was made, up to and including so many, and what that is called."""

COLUMNS = (
    text("source", "Why the lots exist."),
    text("age_days", f"Days since the lots were made: {', '.join(name for _, name in AGES)}."),
    text("currency", "What was paid in; empty for credits that no real money here bought."),
    integer("lots", "How many lots."),
    integer("credits", "Credits in the balances."),
    integer("held_credits", "Credits that open holds have set aside; not in `credits`."),
    integer("value_cents", "Deferred revenue: what was paid for `credits`."),
    integer("held_value_cents", "What was paid for `held_credits`; not in `value_cents`."),
)

_AGE = " ".join(
    f"WHEN made_at >= :until - interval '{days} days' THEN '{name}'"
    for days, name in AGES
    if days is not None
)

_CHANGES = """
changes AS (
    SELECT user_id, lot_seq AS seq,
           CAST(sum(remaining) AS bigint) AS remaining, CAST(sum(held) AS bigint) AS held
    FROM (
        SELECT user_id, lot_seq, 0 AS remaining, amount AS held FROM held_now
        UNION ALL
        SELECT user_id, lot_seq, amount, CASE WHEN kind = 'hold_expiry' THEN -amount ELSE 0 END
        FROM unbooked WHERE effective_at <= :until
        {later}
    ) AS changes
    GROUP BY user_id, lot_seq
)"""
_LATER = f"""
        UNION ALL
        SELECT user_id, lot_seq, -lines.amount,
               CASE WHEN kind IN {OF_HOLDS} THEN lines.amount ELSE 0 END
        FROM credit_entries JOIN credit_postings AS lines USING (user_id, seq)
        WHERE effective_at > :until
        UNION ALL
        SELECT user_id, lot_seq, 0, amount FROM captured WHERE effective_at > :until"""  # noqa: S608

_STATEMENT = """
WITH {begin},
outstanding AS (
    SELECT user_id, seq, source, transaction_id, granted,
           lots.remaining + coalesce(changes.remaining, 0) AS remaining,
           coalesce(changes.held, 0) AS held
    FROM credit_lots AS lots LEFT JOIN changes USING (user_id, seq)
    WHERE lots.is_open OR changes.user_id IS NOT NULL
),
valued AS (
    SELECT source, effective_at AS made_at, currency, remaining, held,
           coalesce((2 * CAST(amount_paid_cents AS bigint) * (remaining + held) + granted)
                    / (2 * CAST(granted AS bigint)), 0) AS cents
    FROM outstanding
    JOIN credit_entries USING (user_id, seq)
    LEFT JOIN (SELECT * FROM transactions WHERE {of_the_mode}) AS paid USING (transaction_id)
    WHERE remaining > 0 OR held > 0
),
divided AS (
    SELECT source, made_at, currency, remaining, held, cents,
           CASE WHEN held = 0 THEN cents
                ELSE (2 * cents * remaining + remaining + held) / (2 * (remaining + held))
           END AS free_cents
    FROM valued
    {unopened}
)
SELECT source, CASE {age} ELSE '{oldest}' END AS age_days, currency, count(*) AS lots,
       sum(remaining) AS credits, sum(held) AS held_credits,
       sum(free_cents) AS value_cents, sum(cents - free_cents) AS held_value_cents
FROM divided GROUP BY 1, 2, 3
"""
# The greatest product, 2 * (2 ** 31 - 1) ** 2 + 2 ** 31, fits into a bigint.

_OPENINGS = f"""
    UNION ALL
    SELECT '{LotSource.OPENING}', :now, NULL, amount, 0, 0, 0 FROM unopened"""  # noqa: S608


def _worded(*, is_past: bool) -> str:
    parts = [UNBOOKED, HELD_NOW]
    parts += [CAPTURED] if is_past else [UNOPENED]
    parts.append(_CHANGES.format(later=_LATER if is_past else ""))
    return _STATEMENT.format(
        begin=",".join(parts),
        unopened="" if is_past else _OPENINGS,
        age=_AGE,
        of_the_mode=OF_THE_MODE,
        oldest=AGES[-1][1],
    )


_OF_THE_PAST = _worded(is_past=True)
_OF_THE_PRESENT = _worded(is_past=False)
_ORDER = {name: place for place, (_, name) in enumerate(AGES)}


class Liability:
    """What was outstanding at one instant."""

    def __init__(
        self,
        session: Session,
        snapshot: Snapshot,
        until: dt.datetime,
        *,
        test_money: bool = False,
    ) -> None:
        """Read and add up.

        Where `until` is not before the snapshot's own instant, all that is booked counts. All
        credits count; of money what really moved, or with `test_money` only what moved in Stripe's
        test mode.

        Raises:
            DatabaseBusy: a passing condition of the database.
        """
        is_past = until < snapshot.now
        asked = _OF_THE_PAST if is_past else _OF_THE_PRESENT
        parameters = {"until": until if is_past else snapshot.now, "test_money": test_money}
        found = added_up(snapshot.read(session, asked, parameters), keys=3)
        self._rows = sorted(found, key=lambda row: (row[0], row[2] or "", _ORDER[row[1]]))

    @property
    def credits(self) -> dict[str, int]:
        """Credits in the balances, by source."""
        totals: dict[str, int] = {}
        for row in self._rows:
            totals[row[0]] = totals.get(row[0], 0) + row[4]
        return {source: total for source, total in totals.items() if total}

    @property
    def cents(self) -> dict[str, int]:
        """Deferred revenue by currency, held credits included."""
        totals: dict[str, int] = {}
        for row in self._rows:
            if row[2] is not None:
                totals[row[2]] = totals.get(row[2], 0) + row[6] + row[7]
        return {currency: total for currency, total in totals.items() if total}

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """By source, currency and age; as `COLUMNS`."""
        return iter(self._rows)
