"""What is drawn has the size that it has for people."""

import datetime as dt
import io
import re

import pytest

from src.common.reports.columns import instant, integer, text
from src.common.reports.plots import Plot, draw

COLUMNS = (instant("period_end", ""), text("currency", ""), integer("net_cents", ""))
PLOT = Plot(value="net_cents", series=("currency",), label="net", is_money=True)


@pytest.mark.parametrize(("currency", "greatest"), [("usd", 50), ("jpy", 5_000), ("kwd", 5)])
def test_money_is_drawn_in_units_of_its_currency(currency: str, greatest: int) -> None:
    """5,000 of the smallest unit are 50 dollars, 5,000 yen, 5 dinars: the axis ends there."""
    ends = [dt.datetime(2026, month, 1, tzinfo=dt.UTC) for month in (1, 2)]
    rows = [(ends[0], currency, 0), (ends[1], currency, 5_000)]
    file = io.BytesIO()
    draw(PLOT, COLUMNS, rows, file, zone=dt.UTC)
    words = re.findall(r">([\d,]+)</text>", file.getvalue().decode())
    assert max(int(word.replace(",", "")) for word in words) == greatest


def test_the_labels_of_a_small_amount_are_distinct_and_begin_at_nothing() -> None:
    """Five dollars alone are drawn between 0 and 5, not on an axis whose every label is 5."""
    file = io.BytesIO()
    row = (dt.datetime(2026, 11, 30, tzinfo=dt.UTC), "usd", 500)
    draw(PLOT, COLUMNS, [row], file, zone=dt.UTC)
    labels = re.findall(r">(\d)</text>", file.getvalue().decode())
    assert labels == ["0", "1", "2", "3", "4", "5"]
