"""What programs read: CSV, JSON, and workbooks with typed cells."""

import csv
import datetime as dt
import io
import json
import zipfile
from zoneinfo import ZoneInfo

import pytest

from src.common.reports.columns import Figures, instant, integer, text
from src.common.reports.formats import Format, harmless, write

NOON = dt.datetime(2026, 7, 1, 12, tzinfo=dt.UTC)
ROWS = [("=1+1", -5, NOON), ("@x", None, None), ("plain, text", 7, None)]


def written(format_: Format, *, bom: bool = False) -> bytes:
    """Those rows, in a zone two hours ahead."""
    figures = Figures(
        columns=(text("what", ""), integer("credits", ""), instant("at", "")), rows=iter(ROWS)
    )
    file = io.BytesIO()
    write(figures, format_, file, zone=ZoneInfo("Europe/Berlin"), bom=bom)
    return file.getvalue()


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_of_text_is_calculated(begin: str) -> None:
    """A spreadsheet shows it; other text stays as it is."""
    assert harmless(f"{begin}1") == f"'{begin}1"
    assert harmless(f"1{begin}") == f"1{begin}"
    assert harmless("") == ""


def test_csv_has_a_header_and_keeps_numbers() -> None:
    """A negative number is no text."""
    rows = list(csv.reader(io.StringIO(written(Format.CSV).decode())))
    assert rows == [
        ["what", "credits", "at"],
        ["'=1+1", "-5", "2026-07-01T14:00:00+02:00"],
        ["'@x", "", ""],
        ["plain, text", "7", ""],
    ]


def test_csv_says_it_is_utf8_where_asked() -> None:
    """By a mark in front, and nothing else differs."""
    assert written(Format.CSV, bom=True) == b"\xef\xbb\xbf" + written(Format.CSV)


def test_json_is_a_list_of_objects_with_the_text_as_it_is() -> None:
    """Programs calculate nothing of it."""
    assert json.loads(written(Format.JSON))[0] == {
        "what": "=1+1",
        "credits": -5,
        "at": "2026-07-01T14:00:00+02:00",
    }
    nothing = io.BytesIO()
    write(Figures(columns=(), rows=iter(())), Format.JSON, nothing, zone=dt.UTC)
    assert json.loads(nothing.getvalue()) == []


def test_a_workbook_has_types_and_no_formula() -> None:
    """Numbers and instants are numbers, text is text."""
    with zipfile.ZipFile(io.BytesIO(written(Format.XLSX))) as book:
        sheet = book.read("xl/worksheets/sheet1.xml").decode()
    assert "<f>" not in sheet
    assert '<c r="B2"><v>-5</v></c>' in sheet
    assert "'=1+1" in sheet
    assert 'r="C2" s="1"><v>46204.58' in sheet
