"""`sales`: what was bought, by package and currency, and what money went back of it since."""

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy.orm import Session

from src.common.reports.columns import added_up, instant, integer, text
from src.common.reports.snapshots import Snapshot

COLUMNS = (
    instant("period_start", "The period begins after this instant."),
    instant("period_end", "It ends with this instant."),
    text("package_id", "What was bought; empty where no order of ours says it."),
    text("currency", "What was paid in; currencies are never added."),
    text("livemode", "`live`, or `test` where no real money moved; empty where nobody said."),
    integer("purchases", "How many purchases."),
    integer("credits", "Credits that they bought."),
    integer("paid_cents", "What was paid."),
    integer("refunded_cents", "What was refunded of that by now, also where `--to` is past."),
    integer("disputed_cents", "What disputes have withdrawn of that by now."),
    integer("net_cents", "What is left: paid, less refunded, less disputed."),
)

PARTS = {"paid_cents": 1, "refunded_cents": -1, "disputed_cents": -1, "net_cents": 1}
"""How the net figure came about."""
LIVEMODE = "CASE livemode WHEN true THEN 'live' WHEN false THEN 'test' END"

_STATEMENT = f"""
SELECT width_bucket(bought.created_at, :bounds) AS period, package_id, bought.currency,
       {LIVEMODE.replace("livemode", "bought.livemode")} AS livemode,
       count(*), sum(credits_added), sum(amount_paid_cents), sum(refunded_cents),
       sum(disputed_cents),
       sum(CAST(amount_paid_cents AS bigint) - refunded_cents - disputed_cents)
FROM transactions AS bought
LEFT JOIN checkout_orders AS orders USING (stripe_session_id)
WHERE bought.created_at > :since AND bought.created_at <= :until
GROUP BY 1, 2, 3, 4
"""  # noqa: S608  nothing of anybody else's in it


def read_sales(
    session: Session, snapshot: Snapshot, bounds: Sequence[dt.datetime]
) -> Iterator[tuple[Any, ...]]:
    """In the order of the periods; as `COLUMNS`. A range of the index by time.

    Raises:
        DatabaseBusy: a passing condition of the database.
    """
    ticks = [bound + dt.timedelta(microseconds=1) for bound in bounds]
    parameters = {"bounds": ticks, "since": bounds[0], "until": bounds[-1]}
    found = added_up(snapshot.read(session, _STATEMENT, parameters), keys=4)
    for period, *row in sorted(found, key=_order):
        yield (*bounds[period - 1 : period + 1], *row)


def _order(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """By period, package, currency and mode; what nobody said comes last.

    Names are in the order of their characters' numbers, whatever the database's collation.
    """
    return tuple((value is None, value) for value in row[:4])
