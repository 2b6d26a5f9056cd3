"""A worker that finds many stored events, each a payment that nobody was credited for yet."""

import json
import os
import subprocess
import sys
import uuid
from dataclasses import dataclass
from typing import Any

import psycopg

from benchmarks.calls.webhooks import event_of
from benchmarks.checkouts import ROOT
from benchmarks.contestants.base import Clocks, ContestantFailed, Database, Load, Outcome
from benchmarks.contestants.http import deployment
from benchmarks.seed import user_ids
from src.common.postgres.engines import database_url
from src.common.settings import get_settings

_STORE = """
COPY stripe_events (livemode, event_id, type, api_version, object_id, body, stripe_created_at,
  attempts) FROM STDIN
"""


@dataclass(frozen=True)
class Backlog:
    """One process that settles all of them, as `flashslides worker` does."""

    events: int
    name: str = "backlog"
    database: Database = Database.LEDGER

    def run(self, load: Load, clocks: Clocks) -> Outcome:
        """Store the events, and let one worker settle them."""
        self._store(load)
        with subprocess.Popen(
            [sys.executable, "-m", "benchmarks.backlog"],
            cwd=ROOT,
            env=os.environ | deployment() | {"DATABASE_NAME": self.database},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a line an event
            text=True,
        ) as worker:
            assert worker.stdin is not None  # noqa: S101  they are pipes
            assert worker.stdout is not None  # noqa: S101
            if worker.stdout.readline() != "ready\n":
                raise ContestantFailed("The worker did not start.")
            clocks.start()
            worker.stdin.write("go\n")
            worker.stdin.flush()
            line = worker.stdout.readline()
            clocks.stop()
        if not line:
            raise ContestantFailed(f"The worker ended with {worker.returncode}.")
        told: dict[str, Any] = json.loads(line)
        each_ms = told["elapsed_seconds"] * 1_000 / self.events
        return Outcome(
            acknowledged=self.events,
            latencies_ms=[each_ms] * self.events,
            elapsed_seconds=told["elapsed_seconds"],
            client_cpu_seconds=told["cpu_seconds"],
        )

    def _store(self, load: Load) -> None:
        """As the endpoint, had it come no further."""
        ids = user_ids(load.user_count)
        url = database_url(get_settings(), "postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url) as connection, connection.cursor() as cursor:
            with cursor.copy(_STORE) as copy:
                for number in range(self.events):
                    name = uuid.uuid4().hex
                    body = event_of(ids[number % len(ids)], name)
                    event = json.loads(body)
                    copy.write_row(
                        (
                            *(False, event["id"], event["type"], event["api_version"]),
                            *(event["data"]["object"]["id"], body.encode(), "2026-11-01Z", 1),
                        )
                    )
            connection.execute("ANALYZE stripe_events")
