"""A user's balance over time and lots, as charts; every figure comes from the ledger's readings."""

import datetime as dt
from collections.abc import Sequence

from src.common.credits.balance_history import BalanceHistory
from src.common.credits.balance_history import Series as Credits
from src.common.credits.lot_shares import LotShares
from src.console.charts import Chart, Mark, Series
from src.console.wording import KINDS, SHARES, lot_name

_TO_THE_SECOND = "%Y-%m-%d %H:%M:%S"


def history_chart(history: BalanceHistory) -> Chart:
    """The balance, stacked by lot or by source, with what happened."""
    labels = dict(zip(history.instants, _labels(history.instants), strict=True))
    return Chart(
        title="The balance over time",
        unit="credits",
        kind="line",
        is_stacked=True,
        labels=[labels[instant] for instant in history.instants],
        instants=history.instants,
        series=[Series(_series_name(each), each.credits) for each in history.series],
        marks=[
            Mark(label=labels[each.at], text=_told(each.kind, each.entries, each.amount))
            for each in history.marks
        ],
    )


def lots_chart(lots: Sequence[LotShares]) -> Chart:
    """What became of each lot; the shares of each sum to what was granted."""
    return Chart(
        title="The lots, and what became of them",
        unit="credits",
        is_stacked=True,
        labels=[lot_name(lot.seq, lot.source) for lot in lots],
        series=[
            Series(title, [getattr(lot, name) for lot in lots]) for name, title in SHARES.items()
        ],
    )


def _labels(instants: Sequence[dt.datetime]) -> list[str]:
    """Each instant in UTC; in full where the seconds do not tell them apart."""
    utc = [instant.astimezone(dt.UTC) for instant in instants]
    short = [f"{instant:{_TO_THE_SECOND}}" for instant in utc]
    if len(set(short)) == len(short):
        return short
    return [f"{instant:{_TO_THE_SECOND}.%f}" for instant in utc]


def _series_name(series: Credits) -> str:
    if series.source is None:
        return "the balance"
    if series.lot_seq is None:
        return f"all lots: {series.source}"
    return lot_name(series.lot_seq, series.source)


def _told(kind: str, entries: int, amount: int) -> str:
    many = f" ({entries:,} entries)" if entries > 1 else ""
    return f"{KINDS[kind]} {amount:+,}{many}"
