"""The first page: how the service is doing, in tiles and charts."""

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import Response

from src.common.doctor.examination import Examined
from src.common.doctor.operations import QUEUE_SHARE_WARN
from src.common.reports.recent import Day
from src.console.charts import Chart, Series
from src.console.navigation import may_open
from src.console.overview_figures import Figures, KnownFigures
from src.console.pages.doctor import BADGES
from src.console.people import Person, require
from src.console.permissions import Permission
from src.console.rendering import path_of, render
from src.console.service import engine_of, settings_of
from src.html_pages import money, whole_units

router = APIRouter()

_PLACES: Mapping[str, tuple[str, str]] = {
    "dead-events": ("Inbox, given up", "console_inbox"),
    "late-events": ("Inbox, late", "console_inbox"),
    "unmatched-payments": ("Unmatched payments", "console_unmatched"),
    "approvals": ("Waiting for consent", "console_approvals"),
    "reconciliation": ("Stripe and the books", "console_reconciliations"),
    "drift": ("Books and journal", "console_doctor"),
    "worker": ("Worker", "console_doctor"),
}
"""What a check's tile is called, and where somebody looks next."""
_WITH_STATUS = {"dead-events": "?status=dead", "late-events": "?status=failed"}


@dataclass(frozen=True)
class Tile:
    """One word or figure, its colour, and where it leads."""

    title: str
    value: str
    kind: str = "quiet"
    href: str | None = None
    note: str = ""


@router.get("/", name="console_overview")
async def show_overview(
    request: Request, person: Annotated[Person, require(Permission.OVERVIEW_SEE)]
) -> Response:
    """Tiles and charts; the figures are a minute old at most, unless reading them takes longer."""
    known: KnownFigures = request.app.state.figures
    figures = await known.get()
    if figures is None:
        return render(request, person, "overview.html", figures=None)
    return render(
        request,
        person,
        "overview.html",
        figures=figures,
        read_from=figures.read_from,
        checks=[
            *(
                _tile(request, person, figures.checks[name])
                for name in _PLACES
                if name in figures.checks
            ),
            _engine_tile(request),
        ],
        tiles=list(_tiles(figures)),
        charts=list(_charts(figures.days)),
    )


def _tile(request: Request, person: Person, check: Examined) -> Tile:
    """What is wrong leads to its page, whoever may see that."""
    title, route = _PLACES[check.name]
    if check.status == "ok":
        return Tile(title, "ok", "ok", note=check.seen)
    fragment = f"#{check.name}" if route == "console_doctor" else _WITH_STATUS.get(check.name, "")
    href = path_of(request, route) + fragment if may_open(person, route) else None
    return Tile(title, str(check.status), BADGES[check.status], href, check.seen)


def _engine_tile(request: Request) -> Tile:
    """How busy the engine of the process that answers is, at this moment."""
    waiting = engine_of(request).operations_waiting
    allowed = settings_of(request).credits_engine_queue_max
    is_full = waiting > QUEUE_SHARE_WARN * allowed
    return Tile(
        "Batch engine",
        "warn" if is_full else "ok",
        "warn" if is_full else "ok",
        f"{path_of(request, 'console_doctor')}#blocked-sessions" if is_full else None,
        f"{waiting:,} operations wait or are under way in this process.",
    )


def _tiles(figures: Figures) -> Iterator[Tile]:
    today = list(figures.days.values())[-1]
    yield Tile("Credits outstanding", f"{figures.credits:,}", note="in customers' balances")
    for currency, cents in sorted(figures.owed_cents.items()):
        yield Tile("Deferred revenue", money(cents, currency), note="what was paid for them")
    for title, number in (
        ("Sold today", today.sold),
        ("Given today", today.given),
        ("Spent today", today.spent),
        ("Expired today", today.expired),
    ):
        yield Tile(title, f"{number:,}", note="credits")
    yield Tile("Purchases today", f"{today.purchases:,}")


def _charts(days: Mapping[dt.date, Day]) -> Iterator[Chart]:
    labels = [day.isoformat() for day in days]
    found = list(days.values())
    yield Chart(
        title="Credits sold and given a day",
        unit="credits",
        labels=labels,
        series=[
            Series("sold", [each.sold for each in found]),
            Series("given", [each.given for each in found]),
        ],
        is_stacked=True,
    )
    yield Chart(
        title="Credits spent and expired a day",
        unit="credits",
        labels=labels,
        series=[
            Series("spent", [each.spent for each in found]),
            Series("expired", [each.expired for each in found]),
        ],
        is_stacked=True,
    )
    yield Chart(
        title="Purchases a day",
        unit="purchases",
        labels=labels,
        series=[Series("purchases", [each.purchases for each in found])],
    )
    for currency in sorted({currency for each in found for currency in each.paid_cents}):
        yield Chart(
            title="Paid, and gone back of that by now, a day",
            unit=currency.upper(),
            labels=labels,
            series=[
                Series(name, [whole_units(each.get(currency, 0), currency) for each in amounts])
                for name, amounts in (
                    ("paid", [each.paid_cents for each in found]),
                    ("gone back", [each.reversed_cents for each in found]),
                )
            ],
        )
