"""What is drawn has the size that it has for people."""

import datetime as dt
import io
import re

import pytest

from src.common.reports.columns import instant, integer, text
from src.common.reports.plots import Panel, Plot, draw

COLUMNS = (instant("period_end", ""), text("currency", ""), integer("net_cents", ""))
PANEL = Panel(value="net_cents", series=("currency",), label="net", is_money=True)


def heights(rows: list[tuple[dt.datetime, str, int]]) -> list[int]:
    """The labels of the axis of heights."""
    file = io.BytesIO()
    draw(Plot(title="Sales", panels=(PANEL,)), COLUMNS, rows, file, zone=dt.UTC)
    axis = file.getvalue().decode().partition('id="matplotlib.axis_2"')[2]
    return [int(word.replace(",", "")) for word in re.findall(r">([\d,]+)</text>", axis)]


@pytest.mark.parametrize(("currency", "greatest"), [("usd", 50), ("jpy", 5_000), ("kwd", 5)])
def test_money_is_drawn_in_units_of_its_currency(currency: str, greatest: int) -> None:
    """5,000 of the smallest unit are 50 dollars, 5,000 yen, 5 dinars: the axis ends there."""
    ends = [dt.datetime(2026, month, 1, tzinfo=dt.UTC) for month in (1, 2)]
    rows = [(ends[0], currency, 0), (ends[1], currency, 5_000)]
    assert heights(rows)[-1] == greatest


def test_the_labels_of_a_small_amount_are_distinct_and_begin_at_nothing() -> None:
    """Five dollars alone are drawn between 0 and 5, not on an axis whose every label is 5."""
    row = (dt.datetime(2026, 11, 30, tzinfo=dt.UTC), "usd", 500)
    assert heights([row]) == [0, 1, 2, 3, 4, 5]
