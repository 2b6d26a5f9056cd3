"""Who runs when: the contestants take turns, and the books are read before a figure counts."""

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import psycopg

from benchmarks.books import Books, BooksOf, check
from benchmarks.checkouts import HERE
from benchmarks.contestants.base import Contestant, ContestantFailed, Database, Load, Say, Spread
from benchmarks.cpu import family_seconds, machine_seconds
from benchmarks.figures import PerRepetition
from benchmarks.server import delay_flushes
from src.common.credits.chaining import complete_chain
from src.common.database import SessionLocal, dispose_db

_CLIENTS_LEAVE_TIMEOUT_SECONDS = 10
_POLL_SECONDS = 0.02
_OTHER_CLIENTS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> ALL (%s)
"""
_END_OTHER_CLIENTS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> ALL (%s)
"""


@dataclass(frozen=True)
class Turn:
    """One contestant under one load."""

    contestant: Contestant
    load: Load


@dataclass(frozen=True)
class Measurement:
    """One turn's figures, with the books agreeing."""

    contestant: str
    load: Load
    repetition: int
    acknowledged: int
    unwritten: int
    failures: Mapping[str, int]
    figures: PerRepetition


class WindowClocks:
    """CPU of the server and of the machine between the opening and the closing of a window."""

    def __init__(self, postmaster: int) -> None:
        self._postmaster = postmaster
        self._opened = self._closed = self._read()

    def start(self) -> None:
        """Open the window."""
        self._opened = self._read()

    def stop(self) -> None:
        """Close it."""
        self._closed = self._read()

    @property
    def server_seconds(self) -> float:
        """What PostgreSQL's processes used."""
        return self._closed[0] - self._opened[0]

    def other_cores(self, known_seconds: float) -> float:
        """How many cores were busy with anything but the server and what is known."""
        (server, machine, now), (server_0, machine_0, then) = self._closed, self._opened
        others = machine - machine_0 - (server - server_0) - known_seconds
        return max(0.0, others / (now - then)) if now > then else 0.0

    def _read(self) -> tuple[float, float, float]:
        return family_seconds(self._postmaster), machine_seconds(), time.monotonic()


class Runner:
    """Gives the contestants their turns, on one server."""

    def __init__(
        self, admins: Mapping[Database, psycopg.Connection], postmaster: int, say: Say
    ) -> None:
        self._admins = admins
        self._postmaster = postmaster
        self._say = say
        self._books = {name: BooksOf(name, admin) for name, admin in admins.items()}
        self._last: dict[Database, Books] = {}
        self._fresh_user = 0
        self.acknowledged = 0
        """Over all turns so far."""
        self.failed: dict[str, str] = {}
        """Contestants that ended without a result, and how; they have no figures."""

    def run(self, groups: Sequence[Sequence[Turn]], repeats: int) -> list[Measurement]:
        """Give every turn of every group once a repetition.

        Turns of a group are compared with each other and run one after the other; who goes first
        changes with each repetition, so that nobody always follows the other. A contestant that
        fails takes no more turns, and has no figures: the others' are as good as before.

        Raises:
            BooksDisagree: if a contestant did not write what it acknowledged.
            ContestantFailed: if nobody can go on after one has failed.
        """
        done: list[Measurement] = []
        total = repeats * sum(map(len, groups))
        for repetition in range(1, repeats + 1):
            for group in groups:
                first = repetition % len(group)
                for turn in (*group[first:], *group[:first]):
                    if turn.contestant.name in self.failed:
                        continue
                    try:
                        measured = self._take(turn, repetition)
                    except ContestantFailed as error:
                        self._give_up(turn.contestant, error)
                        continue
                    done.append(measured)
                    self._say(_progress(measured, len(done), total))
        return [each for each in done if each.contestant not in self.failed]

    def _give_up(self, contestant: Contestant, error: ContestantFailed) -> None:
        """Leave it out from now on, and nothing of it in the others' way."""
        self.failed[contestant.name] = str(error)
        self._say(f"{contestant.name} takes no more turns: {error}")
        self._last.pop(contestant.database, None)
        admin = self._admins[Database.LEDGER]
        admin.execute(_END_OTHER_CLIENTS, [self._own_pids()])
        self._wait_until_alone()

    def _take(self, turn: Turn, repetition: int) -> Measurement:
        contestant, load = turn.contestant, turn.load
        if load.spread is Spread.HOT:
            load = replace(load, first_number=self._fresh_user % load.user_count)
            self._fresh_user += 1
        books = self._books[contestant.database]
        before = self._last.get(contestant.database) or books.read()
        self._delay_flushes(load.flush_delay_us)
        clocks = WindowClocks(self._postmaster)
        try:
            with _hashes_given(self._admins[Database.LEDGER], contestant):
                outcome = contestant.run(load, clocks)
                self._wait_until_alone()
        finally:
            self._delay_flushes(0)
        after = self._last[contestant.database] = books.read()
        check(before, after, acknowledged=outcome.acknowledged, unwritten=outcome.unwritten)
        self.acknowledged += outcome.acknowledged
        if not outcome.latencies_ms:
            raise ContestantFailed(
                f"{contestant.name} finished no operation with {load.callers} callers in "
                f"{load.seconds} s: {dict(outcome.failures)}"
            )
        known = outcome.client_cpu_seconds + outcome.application_cpu_seconds
        return Measurement(
            contestant.name,
            turn.load,
            repetition,
            outcome.acknowledged,
            outcome.unwritten,
            outcome.failures,
            outcome.figures(clocks.server_seconds, clocks.other_cores(known)),
        )

    def _delay_flushes(self, delay_us: int) -> None:
        admin = self._admins[Database.LEDGER]
        if (row := admin.execute("SHOW commit_delay").fetchone()) == (str(delay_us),):
            return
        delay_flushes(admin, delay_us)
        deadline = time.monotonic() + _CLIENTS_LEAVE_TIMEOUT_SECONDS
        while (row := admin.execute("SHOW commit_delay").fetchone()) != (str(delay_us),):
            if time.monotonic() > deadline:
                raise ContestantFailed(f"commit_delay is {row}, not {delay_us}.")
            time.sleep(_POLL_SECONDS)

    def _wait_until_alone(self) -> None:
        """Wait until the contestant's backends have ended: they leave a moment after their client.

        Raises:
            ContestantFailed: if it left connections open.
        """
        admin = self._admins[Database.LEDGER]
        deadline = time.monotonic() + _CLIENTS_LEAVE_TIMEOUT_SECONDS
        while (row := admin.execute(_OTHER_CLIENTS, [self._own_pids()]).fetchone()) != (0,):
            if time.monotonic() > deadline:
                raise ContestantFailed(f"Connections are still open after a run: {row}")
            time.sleep(_POLL_SECONDS)

    def _own_pids(self) -> list[int]:
        return [admin.info.backend_pid for admin in self._admins.values()]


@contextmanager
def _hashes_given(admin: psycopg.Connection, contestant: Contestant) -> Generator[None]:
    """Let the code of before write entries without hashes; they get them once its turn is over."""
    if getattr(contestant, "checkout", HERE).gives_hashes:
        yield
        return
    with admin.transaction():
        admin.execute("SET LOCAL session_replication_role = replica")
        admin.execute("UPDATE credit_ledgers SET chained_at = NULL")
    admin.execute("ALTER TABLE credit_entries DISABLE TRIGGER credit_entries_chained")
    try:
        yield
    finally:
        admin.execute("ALTER TABLE credit_entries ENABLE TRIGGER credit_entries_chained")
        for _ in complete_chain(SessionLocal):
            pass
        dispose_db()


def _progress(measured: Measurement, place: int, total: int) -> str:
    """Return where we are; rates are for the table, after all books were read."""
    load = measured.load
    return (
        f"[{place}/{total}] repetition {measured.repetition}, {measured.contestant}, "
        f"{load.spread}, {load.callers} callers: books agree over "
        f"{measured.acknowledged} operations"
    )
