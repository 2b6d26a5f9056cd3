"""Who runs when: the contestants take turns, and the books are read before a figure counts."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import psycopg

from benchmarks.books import check, check_each_user, read_books
from benchmarks.contestants.base import Contestant, ContestantFailed, Load, Outcome, Spread
from benchmarks.cpu import machine_seconds, server_seconds
from benchmarks.figures import PerRepetition

_CLIENTS_LEAVE_TIMEOUT_SECONDS = 10
_POLL_SECONDS = 0.05
_OTHER_CLIENTS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""

Report = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is measured, and how often."""

    clients: tuple[int, ...]
    seconds: int
    repeats: int
    user_count: int

    @property
    def loads(self) -> tuple[Load, ...]:
        """Every combination of users and clients, in the order they are run."""
        return tuple(
            Load(spread, self.user_count, clients, self.seconds)
            for spread in Spread
            for clients in self.clients
        )

    @property
    def warm_up(self) -> Load:
        """What each contestant does once before anything counts."""
        return Load(Spread.UNIFORM, self.user_count, max(self.clients), 1)


@dataclass(frozen=True)
class Measurement:
    """One contestant's turn on one load, with the books agreeing."""

    contestant: str
    load: Load
    repetition: int
    outcome: Outcome
    figures: PerRepetition


class Runner:
    """Gives the contestants their turns, on one server."""

    def __init__(self, admin: psycopg.Connection, postmaster: int, report: Report) -> None:
        self._admin = admin
        self._postmaster = postmaster
        self._report = report
        self.acknowledged = 0
        """Over all turns so far, warming up included."""

    def run(self, plan: Plan, contestants: Sequence[Contestant]) -> list[Measurement]:
        """Warm up, then measure every load in every repetition.

        Who goes first changes with each repetition, so that nobody always follows the other.

        Raises:
            BooksDisagree: if a contestant did not write what it acknowledged.
            ContestantFailed: if one ended without a result.
        """
        for contestant in contestants:
            self._report(f"Warming up: {contestant.name}")
            self._take_turn(contestant, plan.warm_up, repetition=0)
        done: list[Measurement] = []
        total = plan.repeats * len(plan.loads) * len(contestants)
        fresh_user = 0
        for repetition in range(1, plan.repeats + 1):
            first = repetition % len(contestants)
            for load in plan.loads:
                for contestant in (*contestants[first:], *contestants[:first]):
                    turn = load
                    if load.spread is Spread.HOT:
                        turn = replace(load, first_number=fresh_user % load.user_count)
                        fresh_user += 1
                    measured = self._take_turn(contestant, turn, repetition)
                    done.append(measured)
                    self._report(_progress(measured, len(done), total))
        check_each_user(self._admin)
        return done

    def _take_turn(self, contestant: Contestant, load: Load, repetition: int) -> Measurement:
        books = read_books(self._admin)
        server, machine, started = self._clocks()
        outcome = contestant.run(load)
        self._wait_until_alone()
        server_after, machine_after, ended = self._clocks()
        check(books, read_books(self._admin), outcome.acknowledged)
        self.acknowledged += outcome.acknowledged
        if not outcome.latencies_ms:
            raise ContestantFailed(
                f"{contestant.name} finished no operation with {load.clients} clients in "
                f"{load.seconds} s: {dict(outcome.failures)}"
            )
        server_used = server_after - server
        others = machine_after - machine - server_used - outcome.client_cpu_seconds
        figures = outcome.figures(server_used, max(0.0, others / (ended - started)))
        return Measurement(contestant.name, load, repetition, outcome, figures)

    def _clocks(self) -> tuple[float, float, float]:
        return server_seconds(self._postmaster), machine_seconds(), time.monotonic()

    def _wait_until_alone(self) -> None:
        """Wait until the contestant's backends have ended: they leave a moment after their client.

        Raises:
            ContestantFailed: if it left connections open.
        """
        deadline = time.monotonic() + _CLIENTS_LEAVE_TIMEOUT_SECONDS
        while (row := self._admin.execute(_OTHER_CLIENTS).fetchone()) != (0,):
            if time.monotonic() > deadline:
                raise ContestantFailed(f"Connections are still open after a run: {row}")
            time.sleep(_POLL_SECONDS)


def _progress(measured: Measurement, place: int, total: int) -> str:
    """Return where we are; rates are for the table, after all books were read."""
    load = measured.load
    return (
        f"[{place}/{total}] repetition {measured.repetition}, {load.spread} users, "
        f"{load.clients} clients, {measured.contestant}: books agree over "
        f"{measured.outcome.acknowledged} operations"
    )
