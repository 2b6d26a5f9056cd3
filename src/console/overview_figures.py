"""The figures of the overview, read for everybody at most once in a while, beside the requests."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from sqlalchemy.orm import Session

from src.common.doctor.catalogue import named
from src.common.doctor.context import Context
from src.common.doctor.examination import Examined, examine
from src.common.postgres.lagging_reads import ReadFrom, may_lag
from src.common.replicas import Reader
from src.common.reports.liability import Liability
from src.common.reports.making import read_in_place
from src.common.reports.recent import Day, read_recent_days
from src.common.reports.snapshots import begin_report, take_snapshot
from src.common.settings import Settings
from src.console.known import Known
from src.console.service import source_of_lists

DAYS = 30
FRESH_SECONDS = 60.0
CHECKS = (
    "dead-events",
    "late-events",
    "unmatched-payments",
    "approvals",
    "reconciliation",
    "drift",
    "worker",
)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What the overview shows."""

    read_at: dt.datetime
    days: Mapping[dt.date, Day]
    credits: int
    """What customers have in their balances."""
    owed_cents: Mapping[str, int]
    """What they paid for that, and for what is held, by currency: deferred revenue."""
    checks: Mapping[str, Examined]
    read_from: ReadFrom
    """Who gave the figures; the checks look at the primary."""


def read_figures(settings: Settings) -> Figures:
    """Read them all, in this thread.

    Raises:
        DatabaseBusy: a passing condition of the database.
        ReportsBusy: too many reports are being made.
    """
    is_live = settings.stripe_livemode is not False
    reader = Reader(source_of_lists(settings))
    found = read_in_place(reader, _read_credits, is_live=is_live)
    context = Context()
    try:
        checks = {each.name: each for each in examine(named(CHECKS), context)}
    finally:
        context.close()
    return Figures(
        read_at=found.value.read_at,
        days=found.value.days,
        credits=found.value.credits,
        owed_cents=found.value.owed_cents,
        checks=checks,
        read_from=found.read_from,
    )


class _Credits(NamedTuple):
    """What may lag of the figures."""

    read_at: dt.datetime
    days: Mapping[dt.date, Day]
    credits: int
    owed_cents: Mapping[str, int]


@may_lag
def _read_credits(session: Session, *, is_live: bool) -> _Credits:
    begin_report(session)
    snapshot = take_snapshot(session)
    outstanding = Liability(session, snapshot, snapshot.now, test_money=not is_live)
    days = read_recent_days(session, snapshot, snapshot.now.date(), days=DAYS, livemode=is_live)
    return _Credits(snapshot.now, days, sum(outstanding.credits.values()), outstanding.cents)


class KnownFigures(Known[Figures]):
    """The newest figures of this process."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(partial(read_figures, settings), fresh_seconds=FRESH_SECONDS)
