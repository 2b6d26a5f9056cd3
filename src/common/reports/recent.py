"""The last days at a glance: credits that moved, purchases and what went back of them, day by day.

As booked: what has expired and is not booked yet is not among it, as it is in `movements`.
"""

import datetime as dt
from collections import Counter
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from src.common.reports.snapshots import Snapshot

_MOVED = """
SELECT CAST(entries.effective_at AT TIME ZONE 'UTC' AS date) AS day,
       sum(amount) FILTER (WHERE kind = 'grant' AND lots.source = 'purchase') AS sold,
       sum(amount) FILTER (WHERE kind = 'grant' AND lots.source <> 'purchase') AS given,
       sum(CASE kind WHEN 'spend' THEN -amount ELSE captured END)
           FILTER (WHERE kind IN ('spend', 'capture')) AS spent,
       -sum(amount) FILTER (WHERE kind = 'lot_expiry') AS expired
FROM credit_entries AS entries
LEFT JOIN credit_lots AS lots ON kind = 'grant'
    AND lots.user_id = entries.user_id AND lots.seq = entries.seq
WHERE entries.effective_at >= :since
GROUP BY 1
"""
_BOUGHT = """
SELECT CAST(created_at AT TIME ZONE 'UTC' AS date) AS day, currency, count(*),
       sum(amount_paid_cents), sum(refunded_cents + disputed_cents)
FROM transactions
WHERE created_at >= :since AND coalesce(livemode, true) = :is_live
GROUP BY 1, 2
"""


@dataclass
class Day:
    """One day, in UTC: credits that moved, purchases, and money by currency, in smallest units."""

    sold: int = 0
    given: int = 0
    spent: int = 0
    expired: int = 0
    purchases: int = 0
    paid_cents: Counter[str] = field(default_factory=Counter[str])
    reversed_cents: Counter[str] = field(default_factory=Counter[str])
    """What was refunded or disputed by now of that day's purchases."""


def read_recent_days(
    session: Session, snapshot: Snapshot, today: dt.date, *, days: int, livemode: bool
) -> dict[dt.date, Day]:
    """So many days up to today, each of them, in their order.

    Of purchases, those of real money, or of test mode; who did not say is taken to have moved
    real money, as in the other reports. Two statements for each group of users, each over
    the rows of these days; two where there are no groups.

    Raises:
        DatabaseBusy: a passing condition of the database.
    """
    wanted = [today - dt.timedelta(days=back) for back in range(days)][::-1]
    found = {day: Day() for day in wanted}
    since = dt.datetime.combine(wanted[0], dt.time(), dt.UTC)
    for day, sold, given, spent, expired in snapshot.read(session, _MOVED, {"since": since}):
        if day in found:
            of_day = found[day]
            of_day.sold += int(sold or 0)
            of_day.given += int(given or 0)
            of_day.spent += int(spent or 0)
            of_day.expired += int(expired or 0)
    parameters = {"since": since, "is_live": livemode}
    for day, currency, purchases, paid, back in snapshot.read(session, _BOUGHT, parameters):
        if day in found:
            of_day = found[day]
            of_day.purchases += purchases
            of_day.paid_cents[currency] += int(paid)
            of_day.reversed_cents[currency] += int(back)
    return found
