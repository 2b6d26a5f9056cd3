"""How long the console's pages take at a million entries and users, and what they cost the API.

Run it by `uv run python -m benchmarks.console`. It exits with 1 if a figure is beyond its bound.

Eight viewers open page after page, each in an order of its own, and read a page for some seconds.
Then the API spends credits over HTTP, without viewers and beside them, in turns: the ratio of the
medians is shown. Reports are made when they are asked for and not counted: `benchmarks.reports` has
them.
"""

import argparse
import http.client
import os
import random
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.calls.http import API_KEY, PORT
from benchmarks.checkouts import HERE
from benchmarks.console_books import fill_console, link
from benchmarks.contestants.base import Load, Spread
from benchmarks.contestants.http import application, deployment
from benchmarks.contestants.processes import run_workers
from benchmarks.figures import percentile
from benchmarks.output import show, tell
from benchmarks.reports import ENTRIES_A_USER
from benchmarks.seed import user_ids
from benchmarks.server import SERVER_SETTINGS, refuse_volatile, temporary_server
from src.common.accounts import api_keys
from src.common.database import SessionLocal, dispose_db
from src.common.postgres.migrations import upgrade_to_head
from src.local_postgres import free_port

PAGE_MS_MAX = 300
RATIO_MIN = 0.9
CALLERS = 32
OK = 200


@dataclass(frozen=True)
class Place:
    """A page to look at."""

    name: str
    path: str


def places(ordinary: uuid.UUID, busy: uuid.UUID) -> Sequence[Place]:
    """Every kind of page; of users one with few entries, and the one with very many."""
    found = [
        Place("overview", "/"),
        Place("users", "/users"),
        Place("users: half an e-mail", "/users?q=user7"),
        Place("users: a part of nobody", "/users?q=qqqqq"),
        Place("users: never bought", "/users?never_bought=true"),
        Place("payments", "/payments"),
        Place("payments: orders", "/payments?tab=orders"),
        Place("payments: refunds and disputes", "/payments?tab=reversals"),
        Place("payment", f"/payments/cs_{ordinary}1"),
        Place("inbox", "/inbox"),
        Place("inbox: given up", "/inbox?status=dead"),
        Place("event", "/inbox/evt_1000"),
        Place("unmatched", "/unmatched"),
        Place("unmatched payment", "/unmatched/cs_unmatched_1"),
        Place("reconciliation", "/reconciliation"),
        Place("reports", "/reports"),
        Place("report", "/reports/movements"),
        Place("approvals", "/approvals"),
        Place("keys", "/keys"),
        Place("audit trail", "/audit"),
        Place("audit trail of a user", f"/audit?user_id={busy}"),
        Place("doctor", "/doctor"),
    ]
    for name, user in (("a user", ordinary), ("a busy user", busy)):
        found += [
            Place(name, f"/users/{user}"),
            Place(f"{name}, 90 days", f"/users/{user}?days=90"),
            Place(f"{name}: entries", f"/users/{user}/entries"),
            Place(f"{name}: grants", f"/users/{user}/entries?kind=grant"),
            Place(f"{name}: entries of nobody", f"/users/{user}/entries?actor=user:nobody"),
            Place(f"{name}: an entry", f"/users/{user}/entries/2"),
            Place(f"{name}: lots", f"/users/{user}/lots"),
            Place(f"{name}: holds", f"/users/{user}/holds"),
            Place(f"{name}: give", f"/users/{user}/give"),
        ]
    return found


@dataclass
class Viewers:
    """People who open page after page."""

    port: int
    cookies: Sequence[str]
    pause_seconds: float
    taken_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    refused: list[str] = field(default_factory=list[str])

    @contextmanager
    def looking(self, pages: Sequence[Place]) -> Generator[None]:
        """Look until the block ends."""
        is_over = threading.Event()
        threads = [
            threading.Thread(target=self._look, args=(cookie, pages, is_over, number))
            for number, cookie in enumerate(self.cookies)
        ]
        for each in threads:
            each.start()
        try:
            yield
        finally:
            is_over.set()
            for each in threads:
                each.join()

    def look_at_all(self, pages: Sequence[Place], rounds: int) -> None:
        """Each of them looks at every page so often."""
        threads = [
            threading.Thread(target=self._look, args=(cookie, pages, None, number, rounds))
            for number, cookie in enumerate(self.cookies)
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join()

    def _look(
        self,
        cookie: str,
        pages: Sequence[Place],
        is_over: threading.Event | None,
        seed: int,
        rounds: int | None = None,
    ) -> None:
        chosen = random.Random(seed)  # noqa: S311  no secret
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        time.sleep(chosen.random() * self.pause_seconds)
        done = 0
        while rounds is None or done < rounds:
            for page in chosen.sample(list(pages), len(pages)):
                if is_over is not None and is_over.wait(self.pause_seconds):
                    return
                if is_over is None:
                    time.sleep(self.pause_seconds)
                self._open(connection, cookie, page)
            done += 1

    def _open(self, connection: http.client.HTTPConnection, cookie: str, page: Place) -> None:
        began = time.perf_counter()
        connection.request("GET", f"/console{page.path}", headers={"Cookie": cookie})
        answer = connection.getresponse()
        answer.read()
        self.taken_ms[page.name].append((time.perf_counter() - began) * 1000)
        if answer.status != OK:
            self.refused.append(f"{page.name}: {answer.status}")


class NoClocks:
    """Nobody reads CPU times here."""

    def start(self) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""


def main() -> None:
    """Build it all, look, spend, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--viewers", type=int, default=8)
    parser.add_argument("--pause-seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--spend-seconds", type=float, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    refuse_volatile(options.folder)
    with temporary_server(options.folder, SERVER_SETTINGS, tell) as server:
        upgrade_to_head()
        busy = fill_console(server.connection, users=options.users, entries=options.entries)
        is_within = _measure(options, busy)
        dispose_db()
    sys.exit(0 if is_within else 1)


def _measure(options: argparse.Namespace, busy: uuid.UUID) -> bool:
    port = free_port()
    pages = places(user_ids(1)[0], busy)
    environment = os.environ | deployment() | {"ENV": "local", "WEB_CONCURRENCY": "2"}
    environment |= {PORT: str(port), API_KEY: _api_key(), "CONSOLE_SESSION_SECRET": "s" * 32}
    with application(HERE, port, 2, environment):
        cookies = [_cookie(port) for _ in range(options.viewers)]
        Viewers(port, cookies, 0).look_at_all(pages, 1)  # in both processes: what they keep
        viewers = Viewers(port, cookies, options.pause_seconds)
        viewers.look_at_all(pages, options.rounds)
        is_fast = _show(viewers, pages)
        ratio = _ratio(options, viewers, pages, environment)
    show(f"\nspends a second beside {options.viewers} viewers: {ratio:.2f} of without (≥ 0.9)")
    return is_fast and ratio >= RATIO_MIN


def _show(viewers: Viewers, pages: Sequence[Place]) -> bool:
    """Print the table; whether every page was within its bound, and none was refused."""
    show(f"| page | opened | median, ms | p95, ms (≤ {PAGE_MS_MAX}) | within |")
    show("|---|---|---|---|---|")
    is_fast = True
    for page in pages:
        taken = viewers.taken_ms[page.name]
        slow = percentile(taken, 0.95)
        fits = slow <= PAGE_MS_MAX
        is_fast = is_fast and fits
        middle = statistics.median(taken)
        row = f"| {page.name} | {len(taken)} | {middle:.0f} | {slow:.0f} |"
        show(f"{row} {'yes' if fits else 'NO'} |")
    for refused in sorted(set(viewers.refused)):
        show(f"refused: {refused}")
    return is_fast and not viewers.refused


def _ratio(
    options: argparse.Namespace,
    viewers: Viewers,
    pages: Sequence[Place],
    environment: dict[str, str],
) -> float:
    """Of the medians: spends a second beside viewers, and without."""
    load = Load(
        Spread.UNIFORM,
        user_count=max(options.entries // ENTRIES_A_USER, 1),
        callers=CALLERS,
        seconds=options.spend_seconds,
    )
    rates: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(options.repeats):
        for is_looked_at in (False, True):
            if is_looked_at:
                with viewers.looking(pages):
                    rates[True].append(_spend(load, environment))
            else:
                rates[False].append(_spend(load, environment))
    without, beside = (statistics.median(rates[each]) for each in (False, True))
    show(f"\nspends a second: {without:.0f} without viewers, {beside:.0f} beside them")
    return beside / without


def _spend(load: Load, environment: dict[str, str]) -> float:
    outcome = run_workers(
        "spends", "benchmarks.calls.http:HttpSpend", load, NoClocks(), 1, environment
    )
    return len(outcome.latencies_ms) / outcome.elapsed_seconds


def _api_key() -> str:
    scopes = [api_keys.Scope.CREDITS_SPEND, api_keys.Scope.CREDITS_GRANT]
    with SessionLocal.begin() as session:
        return api_keys.create_api_key(session, service_name="benchmark", scopes=scopes).key


def _cookie(port: int) -> str:
    """Of somebody who has followed a link."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", f"/console/sign-in/link?token={link()}")
    answer = connection.getresponse()
    answer.read()
    return str(answer.headers["Set-Cookie"]).partition(";")[0]


if __name__ == "__main__":
    main()
