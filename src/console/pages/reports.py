"""Reports: those of the command line, with charts, as pages and as files."""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse
from sqlalchemy.orm import Session

from src.common.async_database import run_in_async_database_transaction
from src.common.exceptions import ExceptionWithErrorType, Invalid
from src.common.postgres.lagging_reads import ReadFrom, may_lag
from src.common.replicas import Reader
from src.common.reports.catalogue import REPORTS, ReportName, Wanted, read_report
from src.common.reports.columns import Column, Holds
from src.common.reports.formats import MEDIA_TYPES, Format, readable
from src.common.reports.making import chunks_of, make_report, read_in_place
from src.common.reports.periods import By
from src.common.reports.plots import Panel
from src.common.reports.snapshots import begin_report
from src.common.time_zones import find_zone
from src.console.audit import record
from src.console.charts import Chart, Series
from src.console.people import Person, require
from src.console.permissions import Permission
from src.console.rendering import render
from src.console.service import settings_of, source_of_lists
from src.html_pages import whole_units

router = APIRouter(prefix="/reports")

ROWS_SHOWN_MAX = 500
_JOURNAL_FORMATS = (Format.BEANCOUNT, Format.HLEDGER)
Day = Annotated[str, Query(max_length=10, pattern=r"^(\d{4}-\d{2}-\d{2})?$")]


def _chosen(
    since: Day = "",
    until: Day = "",
    by: str = "",
    time_zone: Annotated[str, Query(max_length=64)] = "UTC",
    test_money: bool = False,  # noqa: FBT001, FBT002  FastAPI names it
) -> Mapping[str, str]:
    """What of a report is asked for, as the page's form writes it; empty where nothing is."""
    return {
        "since": since,
        "until": until,
        "by": by,
        "time_zone": time_zone,
        "test_money": "true" if test_money else "",
    }


Choice = Annotated[Mapping[str, str], Depends(_chosen)]


@router.get("", name="console_reports")
async def show_reports(
    request: Request, person: Annotated[Person, require(Permission.REPORTS_SEE)]
) -> Response:
    """What there is."""
    meanings = {name: report.meaning for name, report in REPORTS.items()}
    return render(request, person, "reports.html", meanings=meanings)


@router.get("/{name}", name="console_report")
async def show_report(
    request: Request,
    person: Annotated[Person, require(Permission.REPORTS_SEE)],
    name: ReportName,
    chosen: Choice,
) -> Response:
    """A report's first rows and its charts, once it is asked for; the files have all rows.

    Over many entries it takes a while: the page itself never does.
    """
    is_asked = bool(request.query_params)
    shown: dict[str, Any] = {
        "columns": (),
        "rows": [],
        "charts": [],
        "is_cut": False,
        "numbers": set(),
    }
    problem: ExceptionWithErrorType | None = None
    read_from: ReadFrom | None = None
    if is_asked and name is not ReportName.JOURNAL:
        try:
            found = await run_in_threadpool(
                read_in_place, _reader(request), _read, _wanted(name, chosen)
            )
            shown, read_from = found.value, found.read_from
        except Invalid as error:
            problem = error
    return render(
        request,
        person,
        "report.html",
        problem=problem,
        name=name,
        report=REPORTS.get(name),
        chosen={key: value for key, value in chosen.items() if value},
        formats=_JOURNAL_FORMATS if name is ReportName.JOURNAL else tuple(_figures()),
        may_download=person.may(Permission.REPORTS_DOWNLOAD),
        rows_max=ROWS_SHOWN_MAX,
        read_from=read_from,
        is_asked=is_asked,
        is_test_mode=settings_of(request).stripe_livemode is False,
        **shown,
    )


@router.get("/{name}/file", name="console_report_file")
async def download_report(
    request: Request,
    person: Annotated[Person, require(Permission.REPORTS_DOWNLOAD)],
    name: ReportName,
    chosen: Choice,
    format_: Annotated[Format, Query(alias="format")] = Format.CSV,
) -> Response:
    """All of a report as a file; that it was taken is recorded."""
    made = await run_in_threadpool(
        partial(make_report, _wanted(name, chosen), format_, reader=_reader(request))
    )
    taken = {key: value for key, value in chosen.items() if value} | {"format": format_}
    await run_in_async_database_transaction(
        lambda session: record(session, person, "reports.download", target=name, after=taken)
    )
    return StreamingResponse(
        chunks_of(made.value),
        media_type=MEDIA_TYPES[format_],
        headers={"Content-Disposition": f'attachment; filename="{name}.{format_}"'},
    )


def _reader(request: Request) -> Reader:
    return Reader(source_of_lists(settings_of(request)))


def _figures() -> Iterator[Format]:
    return (each for each in Format if each not in _JOURNAL_FORMATS)


def _wanted(name: ReportName, chosen: Mapping[str, str]) -> Wanted:
    """The days begin and end in the time zone; `until` is the last day that is in it."""
    zone = find_zone("time_zone", chosen["time_zone"] or "UTC")
    last = _day("until", chosen["until"])
    try:
        by = By(chosen["by"]) if chosen["by"] else None
        until = None if last is None else _midnight(last + dt.timedelta(days=1), zone)
    except (ValueError, OverflowError):
        raise Invalid("by, until: not understood", "VALIDATION_ERROR", field="by") from None
    first = _day("since", chosen["since"])
    since = None if first is None else _midnight(first, zone)
    return Wanted(
        name=name,
        since=since,
        until=until,
        by=by,
        zone=zone,
        test_money=bool(chosen["test_money"]),
    )


def _day(field: str, written: str) -> dt.date | None:
    try:
        return dt.date.fromisoformat(written) if written else None
    except ValueError:
        raise Invalid(
            f"{field}: a day, such as 2030-01-31", "VALIDATION_ERROR", field=field
        ) from None


def _midnight(day: dt.date, zone: dt.tzinfo) -> dt.datetime:
    """A period begins after this instant."""
    return dt.datetime.combine(day, dt.time(), zone)


@may_lag
def _read(session: Session, wanted: Wanted) -> dict[str, Any]:
    begin_report(session)
    figures = read_report(session, wanted)
    rows = list(islice(figures.rows, ROWS_SHOWN_MAX + 1))
    shown = rows[:ROWS_SHOWN_MAX]
    return {
        "columns": figures.columns,
        "rows": [[readable(value, wanted.zone) for value in row] for row in shown],
        "charts": list(_charts(wanted, figures.columns, shown)),
        "is_cut": len(rows) > ROWS_SHOWN_MAX,
        "numbers": {each.name for each in figures.columns if each.holds is Holds.INTEGER},
    }


def _charts(
    wanted: Wanted, columns: Sequence[Column], rows: Sequence[tuple[Any, ...]]
) -> Iterator[Chart]:
    """One for each panel that the report's picture has."""
    plot = wanted.report.plot
    if plot is None or not rows:
        return
    places = {column.name: place for place, column in enumerate(columns)}
    for panel in plot.panels:
        along = plot.categories[0] if plot.categories else "period_end"
        written: dict[str, None] = {}
        values: dict[str, dict[str, Decimal]] = {}
        for row in rows:
            name = _series_name(panel, places, row)
            if name is None:
                continue
            label = (
                str(row[places[along]]) if plot.categories else _date(row[places[along]], wanted)
            )
            written.setdefault(label)
            of_series = values.setdefault(name, {})
            value = row[places[panel.value]]
            currency = row[places["currency"]] if panel.is_money else None
            value = whole_units(value, currency) if currency else Decimal(value)
            of_series[label] = of_series.get(label, Decimal(0)) + value
        labels = plot.categories[1] if plot.categories else tuple(written)
        yield Chart(
            title=plot.title,
            unit=panel.label,
            labels=labels,
            series=[
                Series(name, [found.get(label, 0) for label in labels])
                for name, found in values.items()
            ],
            # Of a single period a line would be a point.
            kind="bar" if plot.categories or len(labels) == 1 else "line",
            is_stacked=plot.categories is not None,
        )


def _series_name(panel: Panel, places: Mapping[str, int], row: tuple[Any, ...]) -> str | None:
    parts = [row[places[each]] for each in panel.series]
    if panel.is_money and row[places["currency"]] is None:
        return None
    return " ".join(str(each) for each in parts if each is not None)


def _date(instant: dt.datetime, wanted: Wanted) -> str:
    """The last day of a period that ends with this instant."""
    last = instant - dt.timedelta(microseconds=1)
    return last.astimezone(wanted.zone).date().isoformat()
