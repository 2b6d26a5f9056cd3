"""docs/reference/metrics.md has every metric that `/metrics` tells, and what some of them tell."""

import datetime as dt
import math
import re
from pathlib import Path

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from scripts import metrics_page, reference
from src.common.credits import ledger
from src.common.models import CreditHold, Reconciliation
from src.common.purchases.reconciliations import newest_age_seconds
from tests.api.test_database_trouble import metric
from tests.fixtures.api import Api, StartApi, make_user

PAGE = Path(__file__).parents[2] / "docs/reference/metrics.md"
OURS = re.compile(rf"^# TYPE ({metrics_page.PREFIX}\w+) (\w+)$", re.MULTILINE)


def test_the_page_lists_every_metric() -> None:
    """`just reference` was run after the last change of a metric, its catalogue or an alert."""
    assert PAGE.read_text(encoding="utf-8") == reference.MADE_BY + metrics_page.metrics_page()


async def test_a_scrape_tells_what_the_page_lists(api: Api) -> None:
    """The same names and types; what it shows as an example is a line of one."""
    told = (await api.client.get("/metrics")).text
    listed = {
        name.removesuffix("_total"): kind
        for each in metrics_page.registered().values()
        for name, kind in [(each.series[0].removesuffix("_bucket"), each.kind)]
    }
    found = {name.removesuffix("_total"): kind for name, kind in OURS.findall(told)}
    assert {name: kind for name, kind in found.items() if not name.endswith("_created")} == listed
    (example,) = re.findall(r"```\n(.*?)```", metrics_page.OPENING, re.DOTALL)
    for line in example.splitlines():
        assert line.partition("{")[0].split()[0] in metrics_page.series_names()


def test_a_metric_that_nobody_explains_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is one that is explained and does not exist, or has other labels."""
    chapter = metrics_page.CATALOGUE["Worker"]
    monkeypatch.delitem(chapter, "flashslides_worker_failures")
    with pytest.raises(LookupError, match="flashslides_worker_failures"):
        metrics_page.metrics_page()
    monkeypatch.setitem(chapter, "flashslides_worker_failures", metrics_page.Explained("failures"))
    with pytest.raises(ValueError, match="'work'"):
        metrics_page.metrics_page()
    monkeypatch.setitem(chapter, "flashslides_no_more", metrics_page.Explained("things"))
    with pytest.raises(LookupError, match="flashslides_no_more"):
        metrics_page.metrics_page()


async def test_requests_are_counted_by_route_and_never_by_what_a_path_says(api: Api) -> None:
    """A template where one matched, nothing else where none did; strange methods are one."""
    await api.get("/user/00000000-0000-4000-8000-000000000000")
    await api.get("/ada@example.com/secret")
    await api.call("BREW", "/ada@example.com/secret")
    told = (await api.client.get("/metrics")).text
    assert (
        'flashslides_http_request_seconds_count{method="GET",route="/api/v1/user/{user_id}"'
        ',status="401"}'
    ) in told
    assert 'count{method="GET",route="",status="404"}' in told
    assert 'count{method="other",route="",status="404"}' in told
    assert "ada@example.com" not in told


async def test_the_scrape_tells_what_waits_in_the_inbox(api: Api, async_db: AsyncSession) -> None:
    """How much, and how late the worker is; what somebody is at, or is due later, is not late."""
    waiting = "flashslides_stripe_events_waiting"
    overdue = "flashslides_stripe_events_overdue_seconds"
    assert (await metric(api, waiting), await metric(api, overdue)) == (0, 0)
    event = text(
        "INSERT INTO stripe_events (livemode, event_id, type, body, status, stripe_created_at,"
        " received_at, next_attempt_at, lease_expires_at) VALUES (false, :id, 'x', '', :status,"
        " now(), now() - interval '1 hour', clock_timestamp() + :due, clock_timestamp() + :lease)"
    )

    async def receive(name: str, status: str, due: int, lease: int | None) -> None:
        seconds = [None if each is None else dt.timedelta(seconds=each) for each in (due, lease)]
        given = {"id": name, "status": status, "due": seconds[0], "lease": seconds[1]}
        await async_db.execute(event, given)

    await receive("evt_later", "failed", 600, None)
    await receive("evt_leased", "received", -600, 600)
    await receive("evt_done", "processed", -600, None)
    assert (await metric(api, waiting), await metric(api, overdue)) == (2, 0)
    await receive("evt_late", "failed", -300, -200)
    assert await metric(api, waiting) == 3
    assert 200 <= await metric(api, overdue) < 300


async def test_the_scrape_tells_how_late_bookings_are(api: Api, async_db: AsyncSession) -> None:
    """Of the hold or lot that is overdue longest; 0 where none is."""
    overdue = "flashslides_credits_bookings_overdue_seconds"
    user = await make_user()

    def hold(session: Session) -> None:
        ledger.grant(session, user.user_id, 10, key="start")
        ledger.open_hold(session, user.user_id, 5, key="work", expires_in_seconds=900)

    await async_db.run_sync(hold)
    assert await metric(api, overdue) == 0
    now = (await async_db.execute(text("SELECT clock_timestamp()"))).scalar_one()
    # Nobody waits for an hour here; the triggers would not let a hold be moved.
    await async_db.execute(text("SET LOCAL session_replication_role = replica"))
    await async_db.execute(update(CreditHold).values(expires_at=now - dt.timedelta(seconds=700)))
    assert 700 <= await metric(api, overdue) < 800


def test_the_last_comparison_is_the_account_s_that_was_compared_longest_ago(db: Session) -> None:
    """Not known where one of the accounts was never compared; what still runs does not count."""
    assert newest_age_seconds(db) is None
    now = db.scalars(select(func.clock_timestamp())).one()

    def compare(account: str | None, minutes: int, status: str = "finished") -> None:
        at = now - dt.timedelta(minutes=minutes)
        run = Reconciliation(
            livemode=False,
            stripe_account=account,
            since_at=at - dt.timedelta(days=3),
            until_at=at,
            repairs=True,
            status=status,
            stage="events",
            started_at=at,
            finished_at=at if status == "finished" else None,
        )
        db.add(run)
        db.flush()

    compare(None, 90)
    compare(None, 30)
    compare(None, 0, "running")
    assert 1_800 <= (newest_age_seconds(db) or 0) < 1_900
    assert newest_age_seconds(db, ["acct_1"]) is None
    compare("acct_1", 60)
    assert 3_600 <= (newest_age_seconds(db, ["acct_1"]) or 0) < 3_700
    assert 1_800 <= (newest_age_seconds(db) or 0) < 1_900


async def test_who_compares_nothing_is_never_late(start_api: StartApi) -> None:
    """0 without a key to Stripe; with one, for ever ago before the first time."""
    age = "flashslides_stripe_reconciliation_age_seconds"
    api = await start_api()
    assert await metric(api, age) == 0
    api = await start_api(STRIPE_SECRET_KEY="sk_test_1", STRIPE_MODE="test")
    assert await metric(api, age) == math.inf


async def test_the_scrape_tells_of_the_servers_connections(api: Api) -> None:
    """By state, and how many there may be."""
    told = (await api.client.get("/metrics")).text
    for state in ("active", "idle", "idle in transaction", "other"):
        assert f'flashslides_database_connections{{state="{state}"}}' in told
    assert await metric(api, "flashslides_database_connections_limit") > 10
    assert await metric(api, "flashslides_database_oldest_transaction_seconds") >= 0
    assert 'flashslides_database_deadlocks{database="' in told
