"""A worker that finds many stored events, each a payment that nobody was credited for yet."""

import json
import os
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from benchmarks.calls.webhooks import event_of
from benchmarks.checkouts import HERE, ROOT, Checkout
from benchmarks.contestants.base import Clocks, ContestantFailed, Database, Load, Outcome
from benchmarks.contestants.http import deployment
from benchmarks.seed import user_ids
from src.common.postgres.engines import database_url
from src.common.settings import get_settings

_STORE = """
COPY stripe_events (livemode, event_id, type, api_version, object_id, body, stripe_created_at,
  attempts) FROM STDIN
"""
_PROCESSED = "SELECT count(*) FROM stripe_events WHERE status = 'processed'"
_FORGET = "DELETE FROM stripe_events WHERE status <> 'processed'"


@dataclass(frozen=True)
class Backlog:
    """One process that settles all of them, or as many as it can within a minute.

    It does what `flashslides worker` does.
    """

    events: int
    name: str = "backlog"
    database: Database = Database.LEDGER
    checkout: Checkout = HERE

    def run(self, load: Load, clocks: Clocks) -> Outcome:
        """Store the events, and let one worker settle them."""
        ids = user_ids(load.user_count)
        store([event_of(ids[n % len(ids)], uuid.uuid4().hex) for n in range(self.events)])
        done, told = settle(self.checkout, deployment(), clocks)
        each_ms = told["elapsed_seconds"] * 1_000 / done
        return Outcome(
            acknowledged=done,
            latencies_ms=[each_ms] * done,
            elapsed_seconds=told["elapsed_seconds"],
            client_cpu_seconds=told["cpu_seconds"],
        )


def store(events: Sequence[str]) -> None:
    """Store them as the endpoint would, had it come no further."""
    with _connection() as connection, connection.cursor() as cursor:
        with cursor.copy(_STORE) as copy:
            for body in events:
                event = json.loads(body)
                copy.write_row(
                    (
                        *(False, event["id"], event["type"], event["api_version"]),
                        *(event["data"]["object"]["id"], body.encode(), "2026-11-01Z", 1),
                    )
                )
        connection.execute("ANALYZE stripe_events")


def settle(
    checkout: Checkout, environment: Mapping[str, str], clocks: Clocks | None = None
) -> tuple[int, dict[str, Any]]:
    """Let one worker settle what is stored: how many events it did, and what it says it used.

    Raises:
        ContestantFailed: it ended, or settled nothing.
    """
    before = _count_processed()
    with subprocess.Popen(
        # -P: modules beside it are not to be found, only the checkout's
        [str(checkout.python), "-P", str(ROOT / "benchmarks" / "backlog.py")],
        cwd=checkout.root,
        env=checkout.environment(os.environ | environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # a line an event
        text=True,
    ) as worker:
        assert worker.stdin is not None  # noqa: S101  they are pipes
        assert worker.stdout is not None  # noqa: S101
        if worker.stdout.readline() != "ready\n":
            raise ContestantFailed("The worker did not start.")
        if clocks is not None:
            clocks.start()
        worker.stdin.write("go\n")
        worker.stdin.flush()
        line = worker.stdout.readline()
        if clocks is not None:
            clocks.stop()
    done = _count_processed() - before
    if not line or not done:
        raise ContestantFailed(f"The worker settled {done} and ended with {worker.returncode}.")
    with _connection() as connection:
        connection.execute(_FORGET)
    told: dict[str, Any] = json.loads(line)
    return done, told


def _count_processed() -> int:
    with _connection() as connection:
        row = connection.execute(_PROCESSED).fetchone()
    assert row is not None  # noqa: S101  an aggregate has one row
    return int(row[0])


def _connection() -> psycopg.Connection:
    url = database_url(get_settings(), "postgresql").render_as_string(hide_password=False)
    return psycopg.connect(url)
