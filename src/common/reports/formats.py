"""Writes figures as CSV, JSON or an Excel workbook, a row at a time, whatever their number."""

import csv
import datetime as dt
import io
import json
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import IO, Any, cast

from src.common.exceptions import Invalid
from src.common.reports.columns import Figures, Holds

_BOM = "\ufeff"
_BEGINS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_XLSX_ROWS_MAX = 1_048_575
_INSTANT_IN_XLSX = "yyyy-mm-dd hh:mm:ss"
_PORTION_ROWS = 500


class Format(StrEnum):
    """What a program can read."""

    CSV = "csv"
    JSON = "json"
    XLSX = "xlsx"
    BEANCOUNT = "beancount"
    HLEDGER = "hledger"


MEDIA_TYPES = {
    Format.CSV: "text/csv; charset=utf-8",
    Format.JSON: "application/json",
    Format.XLSX: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    Format.BEANCOUNT: "text/plain; charset=utf-8",
    Format.HLEDGER: "text/plain; charset=utf-8",
}


def write(
    figures: Figures, format_: Format, file: IO[bytes], *, zone: dt.tzinfo, bom: bool = False
) -> None:
    """Write figures into a file.

    Args:
        figures: Their rows are used up.
        format_: CSV, JSON or XLSX.
        file: Open, in binary; a workbook wants one that can be sought.
        zone: The time zone that instants are written in.
        bom: Whether CSV begins with a byte order mark, which tells Excel that it is UTF-8.

    Raises:
        Invalid: VALIDATION_ERROR, more rows than a workbook's sheet can have.
    """
    if format_ is Format.XLSX:
        _write_workbook(figures, file, zone)
        return
    lines = _csv(figures, zone, bom=bom) if format_ is Format.CSV else _json(figures, zone)
    for portion in lines:
        file.write(portion.encode())


def written_instant(instant: dt.datetime, zone: dt.tzinfo) -> str:
    """ISO 8601 with the zone's offset at that time, and `Z` where the zone is UTC."""
    return instant.astimezone(zone).isoformat().replace("+00:00", "Z")


def readable(value: object, zone: dt.tzinfo) -> str:
    """A value for people: an instant in the zone, a number with its thousands apart."""
    if value is None:
        return ""
    if isinstance(value, dt.datetime):
        there = value.astimezone(zone)
        return f"{there:%Y-%m-%d %H:%M:%S} {there:%Z}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def harmless(text: str) -> str:
    """The text of a cell, with an apostrophe in front of what a spreadsheet would calculate."""
    return f"'{text}" if text.startswith(_BEGINS_A_FORMULA) else text


def _csv(figures: Figures, zone: dt.tzinfo, *, bom: bool) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    buffer.write(_BOM if bom else "")
    writer.writerow(column.name for column in figures.columns)
    for number, row in enumerate(figures.rows, start=1):
        writer.writerow(_cells(row, zone))
        if number % _PORTION_ROWS == 0:
            yield _taken(buffer)
    yield _taken(buffer)


def _taken(buffer: io.StringIO) -> str:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text


def _cells(row: Iterable[Any], zone: dt.tzinfo) -> Iterator[Any]:
    for value in row:
        if isinstance(value, dt.datetime):
            yield written_instant(value, zone)
        elif value is None or isinstance(value, int):
            yield value
        else:
            yield harmless(str(value))


def _json(figures: Figures, zone: dt.tzinfo) -> Iterator[str]:
    names = [column.name for column in figures.columns]

    def plain(value: object) -> str:
        return written_instant(value, zone) if isinstance(value, dt.datetime) else str(value)

    begin = "["
    for row in figures.rows:
        record = dict(zip(names, row, strict=True))
        yield f"{begin}\n{json.dumps(record, default=plain, ensure_ascii=False)}"
        begin = ","
    yield "[]\n" if begin == "[" else "\n]\n"


def _write_workbook(figures: Figures, file: IO[bytes], zone: dt.tzinfo) -> None:
    """One sheet; rows go to a file as they come, so memory is bounded."""
    from xlsxwriter import Workbook

    with Workbook(file, {"constant_memory": True, "strings_to_formulas": False}) as book:
        sheet = book.add_worksheet()
        instant = book.add_format({"num_format": _INSTANT_IN_XLSX})
        sheet.write_row(0, 0, [column.name for column in figures.columns])
        sheet.freeze_panes(1, 0)
        sheet.set_column(0, len(figures.columns) - 1, 18)
        for number, row in enumerate(figures.rows, start=1):
            if number > _XLSX_ROWS_MAX:
                raise Invalid(
                    f"format: a workbook's sheet has room for {_XLSX_ROWS_MAX:,} rows; take csv",
                    "VALIDATION_ERROR",
                    field="format",
                )
            for place, (column, value) in enumerate(zip(figures.columns, row, strict=True)):
                if value is None:
                    continue
                if column.holds is Holds.INSTANT:
                    there = cast("dt.datetime", value).astimezone(zone).replace(tzinfo=None)
                    sheet.write_datetime(number, place, there, instant)
                elif column.holds is Holds.INTEGER:
                    sheet.write_number(number, place, value)
                else:
                    sheet.write_string(number, place, harmless(str(value)))
