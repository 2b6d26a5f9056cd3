"""What is drawn has the size that it has for people."""

import datetime as dt
import io
import re
from typing import Any

import pytest

from src.common.reports.catalogue import REPORTS, ReportName
from src.common.reports.columns import instant, integer, text
from src.common.reports.plots import Panel, Picture, Plot, draw

COLUMNS = (
    *(instant("period_start", ""), instant("period_end", ""), text("currency", "")),
    *(integer("paid_cents", ""), integer("refunded_cents", ""), integer("disputed_cents", "")),
    integer("net_cents", ""),
)
PANEL = Panel(
    value="net_cents",
    series=("currency",),
    label="net sales",
    parts={"paid_cents": 1, "refunded_cents": -1, "disputed_cents": -1, "net_cents": 1},
    is_money=True,
)
JANUARY, FEBRUARY, MARCH = (dt.datetime(2026, month, 1, tzinfo=dt.UTC) for month in (1, 2, 3))


def drawn(rows: list[tuple[Any, ...]], *size: int) -> str:
    """The picture."""
    file = io.BytesIO()
    picture = Picture(file, *size)
    draw(Plot(title="Sales", panels=(PANEL,)), COLUMNS, rows, picture, zone=dt.UTC)
    return file.getvalue().decode()


def words(picture: str, axis: int) -> list[str]:
    """The labels of one axis."""
    written = picture.partition(f'id="matplotlib.axis_{axis}"')[2]
    return re.findall(r">([^<>\n]+)</text>", written.partition('id="matplotlib.axis_2"')[0])


def heights(rows: list[tuple[Any, ...]]) -> list[int]:
    """The labels of the axis of heights."""
    axis = drawn(rows).partition('id="matplotlib.axis_2"')[2]
    return [int(word.replace(",", "")) for word in re.findall(r">([\d,]+)</text>", axis)]


@pytest.mark.parametrize(("currency", "greatest"), [("usd", 50), ("jpy", 5_000), ("kwd", 5)])
def test_money_is_drawn_in_units_of_its_currency(currency: str, greatest: int) -> None:
    """5,000 of the smallest unit are 50 dollars, 5,000 yen, 5 dinars: the axis ends there."""
    rows = [
        (JANUARY, FEBRUARY, currency, 0, 0, 0, 0),
        (FEBRUARY, MARCH, currency, 5_000, 0, 0, 5_000),
    ]
    assert heights(rows)[-1] == greatest


def test_the_labels_of_a_small_amount_are_distinct_and_begin_at_nothing() -> None:
    """Five dollars alone are drawn between 0 and 5, not on an axis whose every label is 5."""
    assert heights([(JANUARY, FEBRUARY, "usd", 500, 0, 0, 500)]) == [0, 1, 2, 3, 4, 5]


def test_a_single_period_is_drawn_by_its_parts() -> None:
    """A line has no course there. What nobody has is left out; the period and its zone are said."""
    rows = [(JANUARY, FEBRUARY, "usd", 500, 200, 0, 300), (JANUARY, FEBRUARY, "eur", 0, 0, 0, 0)]
    picture = drawn(rows)
    said = " ".join(words(picture, 1))
    assert [name for name in ("paid", "refunded", "disputed", "net") if name in said] == [
        *("paid", "refunded", "net")
    ]
    assert "from 2026-01-01 00:00 to 2026-02-01 00:00, UTC" in said
    assert ">in the currency</text>" in picture
    assert {">usd</text>" in picture, ">eur</text>" in picture} == {True}


@pytest.mark.parametrize(
    ("size", "points"),
    [
        ((), ("720pt", "288pt")),
        ((400, 300), ("300pt", "225pt")),
        ((1_920, 200), ("1440pt", "150pt")),
    ],
)
def test_a_picture_is_as_large_as_is_asked(size: tuple[int, ...], points: tuple[str, str]) -> None:
    """In pixels, of which an inch has 96 and SVG's points 72."""
    found = re.search(r'<svg [^>]*width="([^"]+)" height="([^"]+)"', drawn([], *size))
    assert found is not None
    assert found.groups() == points


def test_nothing_is_a_picture_too() -> None:
    """Of no rows there are axes without bars."""
    assert drawn([]).startswith("<?xml")


@pytest.mark.parametrize("name", [name for name, report in REPORTS.items() if report.plot])
def test_parts_are_columns_of_their_report(name: ReportName) -> None:
    """Every report by period has some, and the value itself is the last of them."""
    report = REPORTS[name]
    assert report.plot is not None
    columns = {column.name for column in report.columns}
    for panel in report.plot.panels:
        assert panel.parts.keys() <= columns
        assert bool(panel.parts) == (report.plot.categories is None)
        assert not panel.parts or list(panel.parts)[-1] == panel.value
