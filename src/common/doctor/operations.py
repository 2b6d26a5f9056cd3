"""Checks of what happens in the background: workers, inbox, bookings, the batch engine."""

import asyncio
import datetime as dt
import socket
from http import HTTPStatus
from urllib.parse import urlsplit

from sqlalchemy import func, select

from src.common import worker_failures, worker_heartbeats
from src.common.credits.due import overdue_seconds
from src.common.credits.unbookable import count_unbookable_users
from src.common.doctor.checks import (
    Check,
    Finding,
    Needs,
    count,
    duration,
    fail,
    ok,
    skipped,
    unknown,
    warn,
)
from src.common.doctor.context import Context
from src.common.models.worker_failure import WorkerFailure
from src.common.postgres.sides import Side
from src.common.stripe.attempts import backlog, count_dead_events

LATE_SECONDS = 600.0
"""How long an event, a lot or a hold may be overdue."""
STUCK_SECONDS = 900.0
"""How long one step of a worker may take."""
GONE_SECONDS = 300.0
"""How long ago the last worker may have ended, where a timer runs `worker --once`."""
RECENT_FAILURE = dt.timedelta(days=1)
QUEUE_SHARE_WARN = 0.5
_API_TIMEOUT_SECONDS = 2.0


def _worker(context: Context) -> Finding:
    """The workers' last sign of life, and whether one is stuck in a step."""
    with context.looking() as session:
        found = worker_heartbeats.read_workers(session)
    age = found.age_seconds
    if age is None:
        return fail("No worker has left a sign of life within a day.", "flashslides worker")
    if not found.alive and age > GONE_SECONDS:
        return fail(
            f"The last sign of life of a worker is {duration(age)} old.", "flashslides worker"
        )
    seen = f"{count(found.alive, 'worker')} at work"
    if found.longest_work is not None and found.longest_seconds > STUCK_SECONDS:
        return warn(
            f"{seen}; one has been at {found.longest_work} for {duration(found.longest_seconds)} "
            "in one step.",
            "flashslides doctor blocked-sessions stripe; then restart that worker",
        )
    return ok(f"{seen}; the last sign of life is {duration(age)} old.")


def _worker_failures(context: Context) -> Finding:
    """Kinds of the worker's work that failed within a day as nobody expected."""
    with context.looking() as session:
        counted = worker_failures.count_failures(session)
        recent = session.execute(
            select(WorkerFailure.work, WorkerFailure.error_type, WorkerFailure.message)
            .where(WorkerFailure.last_failed_at > func.clock_timestamp() - RECENT_FAILURE)
            .order_by(WorkerFailure.last_failed_at.desc())
        ).all()
    if not recent:
        return ok(f"No work failed within a day; {count(sum(counted.values()), 'failure')} ever.")
    named = "; ".join(f"{work} ({counted[work]} ever): {kind}" for work, kind, _ in recent)
    return warn(
        f"{named}. The last said: {recent[0][2]}.",
        "flashslides worker --once, which shows it; its log has the traceback",
    )


def _unbookable_users(context: Context) -> Finding:
    """Users whose expired lots and holds no worker can book."""
    with context.looking() as session:
        found = count_unbookable_users(session)
    if found:
        return fail(f"{count(found, 'user')} cannot be booked.", "flashslides verify")
    return ok("Everybody can be booked.")


def _overdue_bookings(context: Context) -> Finding:
    """Lots and holds that expired a while ago and are not booked yet."""
    with context.looking() as session:
        late = overdue_seconds(session)
    if late < LATE_SECONDS:
        return ok("Whatever expired is booked.")
    return warn(
        f"A lot or hold expired {duration(late)} ago and is not booked. Balances count it as "
        "expired all the same.",
        "flashslides worker --once",
    )


def _dead_events(context: Context) -> Finding:
    """Stripe's events that nobody tries any more."""
    with context.looking() as session:
        found = count_dead_events(session)
    if found:
        return fail(
            f"{count(found, 'event')} failed too often.",
            "flashslides stripe events list --status dead",
        )
    return ok("No event was given up.")


def _late_events(context: Context) -> Finding:
    """Stripe's events that should have been settled a while ago."""
    with context.looking() as session:
        waiting = backlog(session)
    if waiting.overdue_seconds < LATE_SECONDS:
        return ok("No event is late.")
    return warn(
        f"{count(waiting.events, 'event')} not settled, one is {duration(waiting.overdue_seconds)} "
        "late.",
        "flashslides doctor worker stripe; then flashslides worker --once",
    )


def _engine_queue(context: Context) -> Finding:
    """How many credit operations wait in the API's batch engine."""
    settings = context.settings
    given = context.api_url
    is_here = settings.is_local or "api_port" in settings.model_fields_set
    url = given or (f"http://127.0.0.1:{settings.api_port}" if is_here else None)
    if url is None:
        return skipped("Only the API's processes know: --api-url names one.")
    shown = _without_password(url)
    if given is None and not _listens(url):
        return skipped(f"No API answers at {shown}: --api-url names another.")
    import httpx  # takes its time
    from prometheus_client.parser import text_string_to_metric_families

    try:
        status, written = asyncio.run(_scrape(url, context))
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        return unknown(f"No API answers at {shown} ({type(error).__name__}).")
    if status != HTTPStatus.OK:
        return unknown(f"{shown}/metrics answers {status}: METRICS_TOKEN may be another there.")
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(written)
        for sample in family.samples
    }
    queued = samples.get("flashslides_credits_engine_queued")
    if queued is None:
        return unknown(f"{shown}/metrics has no figures of the engine.")
    parked = samples.get("flashslides_credits_engine_parked_users", 0)
    allowed = settings.credits_engine_queue_max * settings.web_concurrency
    seen = f"{queued:.0f} of {allowed} operations wait; {parked:.0f} users are tried apart."
    if queued > QUEUE_SHARE_WARN * allowed:
        return warn(seen, "flashslides doctor blocked-sessions connections-in-use")
    return ok(seen)


def _without_password(url: str) -> str:
    """The address without who asks, for people to read."""
    before, _, after = url.rpartition("@")
    scheme, separator, _ = before.partition("://")
    return f"{scheme}{separator}{after}" if separator or not before else after


def _listens(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port), _API_TIMEOUT_SECONDS).close()
    except OSError:
        return False
    return True


async def _scrape(url: str, context: Context) -> tuple[int, str]:
    from src.common.http_clients import open_http_client

    token = context.settings.metrics_token
    headers = {} if token is None else {"Authorization": f"Bearer {token.get_secret_value()}"}
    async with (
        asyncio.timeout(_API_TIMEOUT_SECONDS),  # in all: one that dribbles is given up too
        open_http_client(timeout=_API_TIMEOUT_SECONDS) as client,
    ):
        answer = await client.get(f"{url.rstrip('/')}/metrics", headers=headers)
    return answer.status_code, answer.text


CHECKS = (
    Check(
        "worker",
        _worker,
        Needs.TABLES,
        "Without one nothing expires in the column, no event is tried again, no books verified.",
        may_lag=True,
    ),
    Check(
        "worker-failures",
        _worker_failures,
        Needs.TABLES,
        "Work that fails again and again is not done.",
        may_lag=True,
    ),
    Check(
        "unbookable-users",
        _unbookable_users,
        Needs.TABLES,
        "Their books are damaged; their operations fail until they are mended.",
        may_lag=True,
        sides=(Side.USERS,),
    ),
    Check(
        "overdue-bookings",
        _overdue_bookings,
        Needs.TABLES,
        "Whoever reads the column credits_balance reads more than there is.",
        may_lag=True,
        sides=(Side.USERS,),
    ),
    Check(
        "dead-events",
        _dead_events,
        Needs.TABLES,
        "A payment, refund or dispute that an event told of may not be booked.",
        may_lag=True,
    ),
    Check(
        "late-events",
        _late_events,
        Needs.TABLES,
        "Somebody may have paid and still wait for credits.",
        may_lag=True,
    ),
    Check(
        "engine-queue",
        _engine_queue,
        Needs.SETTINGS,
        "Once the queue is full further operations are answered ENGINE_BUSY.",
    ),
)
