"""`flashslides stripe reconcile` over many payments that are recorded as Stripe has them."""

import datetime as dt
from dataclasses import dataclass

from benchmarks.checkouts import HERE, Checkout
from benchmarks.contestants.backlog import settle, store
from benchmarks.contestants.base import Clocks, Database, Load, Outcome
from benchmarks.contestants.commands import Ran, run_command
from benchmarks.contestants.http import deployment
from benchmarks.seed import user_ids
from benchmarks.stripe_lists import listing, paid


@dataclass(frozen=True)
class Reconcile:
    """Two objects a payment: its Checkout Session and its PaymentIntent.

    Its memory is what the process had more of at its peak than one that compared nothing.
    """

    payments: int
    name: str = "reconcile"
    database: Database = Database.LEDGER
    checkout: Checkout = HERE

    def run(self, load: Load, clocks: Clocks) -> Outcome:
        """Have the payments credited, and compare them with Stripe's lists."""
        env = {**deployment(), "ENV": "local"}  # only a developer's Stripe may be another
        events, lists = paid(user_ids(load.user_count), self.payments, env["ENV"])
        since = dt.datetime.now(dt.UTC)
        store(events)
        settle(HERE, env)
        with listing({}) as url:
            empty = self._compare(dt.datetime.now(dt.UTC), url, env)
        with listing(lists) as url:
            clocks.start()
            ran = self._compare(since, url, env)
            clocks.stop()
        objects = 2 * self.payments
        return Outcome(
            acknowledged=self.payments + objects,
            latencies_ms=[ran.seconds * 1e3 / objects] * objects,
            elapsed_seconds=ran.seconds,
            client_cpu_seconds=ran.cpu_seconds,
            unwritten=objects,
            peak_mib=ran.peak_mib - empty.peak_mib,
        )

    def _compare(self, since: dt.datetime, url: str, env: dict[str, str]) -> Ran:
        arguments = ["stripe", "reconcile", "--since", since.isoformat()]
        return run_command(self.checkout, arguments, env | {"STRIPE_API_BASE_URL": url})
