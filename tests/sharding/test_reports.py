"""Every report says the same of users in groups as of the same users in one database."""

import datetime as dt
import io
import json
from collections.abc import Callable, Generator
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.orm import Session

from src.common.database import SessionLocal
from src.common.exceptions import SettingsError
from src.common.postgres.engines import SYNC_DRIVER, database_url
from src.common.postgres.routes import NotRouted
from src.common.reports import runs
from src.common.reports.catalogue import ReportName, Wanted, read_report, write_report
from src.common.reports.formats import Format
from src.common.reports.periods import By
from src.common.reports.recent import read_recent_days
from src.common.reports.snapshots import begin_report, take_snapshot
from src.common.reports.users import UserFilter
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.cli.conftest import RunCommand, data_folder, run_command
from tests.credits.clock import settable_clock
from tests.fixtures.api import StartApi
from tests.postgres.drivers import settings_for
from tests.reports.histories import History
from tests.sharding.conftest import GROUPS
from tests.sharding.divided import connect, divide_books
from tests.sharding.people import user_of
from tests.sharding.service import TWO, service_key

__all__ = ["data_folder", "run_command"]
BEGAN = dt.datetime(2026, 1, 20, tzinfo=dt.UTC)
STEP = dt.timedelta(hours=12)
BERLIN = ZoneInfo("Europe/Berlin")
_RICHER = """
UPDATE transactions SET created_at = effective_at,
    currency = CASE WHEN lots.seq % 3 = 0 THEN 'eur' ELSE currency END,
    livemode = CASE WHEN lots.seq % 5 > 0 THEN livemode END
FROM credit_lots AS lots JOIN credit_entries USING (user_id, seq)
WHERE lots.transaction_id = transactions.transaction_id;
INSERT INTO checkout_orders (order_id, user_id, idempotency_key, request_digest, package_id,
    credits, amount_cents, currency, livemode, success_url, cancel_url, stripe_session_id)
SELECT gen_random_uuid(), user_id, stripe_session_id, decode(repeat('00', 32), 'hex'),
    'of ' || credits_added, credits_added, amount_paid_cents, currency, false, '', '',
    stripe_session_id
FROM transactions WHERE credits_added <> 40;
"""
"""Purchases at different times, in two currencies, of modes not said; most have an order."""


class Twice:
    """The same books without groups and in three of them."""

    def __init__(self, whole: Session, now: dt.datetime) -> None:
        self.whole = whole
        self.now = now

    def read(self, reading: Callable[[Session], Any]) -> tuple[Any, Any]:
        """What it finds of either."""
        with SessionLocal() as session:
            begin_report(session)
            of_groups = reading(session)
        found = reading(self.whole)
        self.whole.rollback()
        return of_groups, found


@pytest.fixture
def twice(fresh_database: ConnectionParameters, groups: ConnectionParameters) -> Generator[Twice]:
    """Two histories, each of four users: some of whom have overdue holds and unopened balances."""
    engine = create_engine(
        database_url(settings_for(fresh_database), SYNC_DRIVER), poolclass=NullPool
    )
    with Session(engine) as session:
        with settable_clock(session.connection()):
            for seed in (3, 4):
                history = History(session, seed, start=BEGAN, step=STEP)
                history.go_on(130)
        session.commit()
        with connect(fresh_database) as connection:
            connection.execute(_RICHER)
        divide_books(fresh_database, groups, [GROUPS[0], GROUPS[3], GROUPS[7]])
        yield Twice(session, history.now)
    engine.dispose()


MIDDLE = BEGAN + dt.timedelta(days=20)
WANTED = [
    *(
        Wanted(name=name, since=BEGAN, until=until, by=by, zone=BERLIN)
        for name in (ReportName.MOVEMENTS, ReportName.REVENUE, ReportName.SALES)
        for until, by in ((None, By.WEEK), (MIDDLE, By.DAY), (None, None))
    ),
    *(
        Wanted(name=ReportName.LIABILITY, until=until, test_money=test_money)
        for until in (None, MIDDLE)
        for test_money in (False, True)
    ),
    Wanted(name=ReportName.REVENUE, since=BEGAN, test_money=True),
    *(Wanted(name=ReportName.PAYMENTS, since=BEGAN, until=until) for until in (None, MIDDLE)),
    *(
        Wanted(name=ReportName.USERS, users=users)
        for users in (
            None,
            UserFilter(with_balance=True),
            UserFilter(with_debt=True),
            UserFilter(idle_since=BEGAN + dt.timedelta(days=60)),
        )
    ),
]


JOURNALS = [
    (Wanted(name=ReportName.JOURNAL, until=until, by=by, zone=BERLIN), format_)
    for until, by in ((None, None), (MIDDLE, By.DAY))
    for format_ in (Format.BEANCOUNT, Format.HLEDGER)
]


def test_every_report_is_the_same(twice: Twice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row by row, in the same order, of now and of a past instant; the journal to the letter."""
    monkeypatch.setattr(runs, "PORTION_ROWS", 3)
    for wanted in WANTED:
        of_groups, found = twice.read(partial(rows_of, wanted=wanted, now=twice.now))
        assert of_groups == found, wanted
        assert len(found) > 1 or wanted.users is not None, wanted
    for wanted, format_ in JOURNALS:
        reading = partial(written, wanted=wanted, format_=format_, now=twice.now)
        of_groups, found = twice.read(reading)
        assert of_groups == found, wanted
        assert len(found) > 1_000
    of_groups, found = twice.read(partial(recent_days, now=twice.now))
    assert of_groups == found
    assert any(day.spent for day in found.values())


def rows_of(session: Session, wanted: Wanted, now: dt.datetime) -> list[tuple[Any, ...]]:
    """All of a report."""
    return list(read_report(session, wanted, now=now).rows)


def written(session: Session, wanted: Wanted, format_: Format, now: dt.datetime) -> str:
    """All of a journal."""
    file = io.BytesIO()
    write_report(session, wanted, format_, file, now=now)
    return file.getvalue().decode()


def recent_days(session: Session, now: dt.datetime) -> Any:
    """What the overview shows of the last days."""
    snapshot = take_snapshot(session, now=now)
    return read_recent_days(session, snapshot, now.date(), days=30, livemode=True)


@pytest.mark.usefixtures("groups")
def test_a_report_keeps_no_locks_on_groups_that_it_has_read() -> None:
    """Those of hundreds of groups at once are more than a server has room for; each is told of."""
    for group in GROUPS:
        user_of(group, 100)
    told: list[tuple[int, int]] = []

    def tell(done: int, groups: int) -> None:
        told.append((done, groups))

    with SessionLocal() as session:
        begin_report(session)
        wanted = Wanted(name=ReportName.USERS)
        rows = read_report(session, wanted, tell=tell).rows
        assert [balance for _, _, _, balance, *_ in rows] == [100] * len(GROUPS)
        assert session.scalars(text(LOCKED)).one() == 0
        session.execute(text("SELECT FROM g0001.users"))
        assert session.scalars(text(LOCKED)).one() > 0
        with pytest.raises(NotRouted):
            session.execute(text("SELECT FROM users"))
    assert told == [(number, 8) for number in range(1, 9)] * 2


LOCKED = """
SELECT count(*) FROM pg_locks JOIN pg_class ON pg_class.oid = relation
WHERE pid = pg_backend_pid() AND relnamespace = 'g0001'::regnamespace
"""


async def test_commands_and_http_report_on_all_groups(
    start_service: StartApi, run_command: RunCommand
) -> None:
    """With the sum over them."""
    for number, group in enumerate(TWO, start=1):
        user_of(group, number * 10)
    api = await start_service()
    answer = await api.get("/reports/liability", service_key())
    assert [row["credits"] for row in answer.json()] == [30], answer.text
    found = run_command("report", "liability", "--format", "json")
    assert json.loads(found.out) == answer.json()


@pytest.mark.usefixtures("fresh_database")
def test_a_database_that_is_not_divided_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its users are in `public`: nobody would be in the report."""
    monkeypatch.setenv("SHARDING", "schemas")
    get_settings.cache_clear()
    with SessionLocal() as session, pytest.raises(SettingsError, match="db upgrade"):
        begin_report(session)
