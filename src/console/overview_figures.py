"""The figures of the overview, read for everybody at most once in a while, beside the requests."""

import asyncio
import datetime as dt
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from fastapi.concurrency import run_in_threadpool
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
from src.console.service import source_of_lists

DAYS = 30
FRESH_SECONDS = 60.0
REST_SHARE = 20
"""After reading them, at least so many times as long nothing is read: the more there is to read,
the older the figures may be, and the database is at it for a twentieth of the time at most."""
PATIENCE_SECONDS = 2.0
"""How long a page waits where there are no figures yet."""
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
    days = read_recent_days(session, snapshot.now.date(), days=DAYS, livemode=is_live)
    return _Credits(snapshot.now, days, sum(outstanding.credits.values()), outstanding.cents)


class KnownFigures:
    """The newest figures of this process. While newer ones are read, pages show those there are."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: Figures | None = None
        self._fresh_until = 0.0
        self._reading: asyncio.Task[Figures] | None = None

    async def get(self) -> Figures | None:
        """Figures; None where none are there within `PATIENCE_SECONDS`.

        Raises:
            DatabaseBusy, ReportsBusy: as `read_figures`, where there are none of before.
        """
        if self._known is not None and time.monotonic() < self._fresh_until:
            return self._known
        reading = self._reading or asyncio.create_task(self._read())
        self._reading = reading
        await asyncio.wait({reading}, timeout=PATIENCE_SECONDS if self._known is None else 0)
        if not reading.done():
            return self._known
        if self._reading is reading:
            self._reading = None
        if reading.exception() is None or self._known is None:
            return reading.result()
        return self._known

    async def _read(self) -> Figures:
        began = time.monotonic()
        self._known = await run_in_threadpool(read_figures, self._settings)
        ended = time.monotonic()
        self._fresh_until = ended + max(FRESH_SECONDS, REST_SHARE * (ended - began))
        return self._known
