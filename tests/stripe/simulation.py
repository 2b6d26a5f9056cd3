"""Users, a Stripe with bad days, and our side dying at any statement, all by chance under a seed.

The seed decides every step: who buys and spends, what banks and cardholders do, which webhooks are
lost, doubled, late or out of order, at which statement of ours everything ends. `aftermath.py` says
what has to hold once it is over.
"""

import datetime as dt
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import stripe
from sqlalchemy import select, update

from src.common.credits.operations import execute
from src.common.database import SessionLocal, get_engine, run_in_database_transaction
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.credit_entry import CreditEntry, EntryKind
from src.common.models.credit_hold import CreditHold
from src.common.models.reconciliation import Reconciliation
from src.common.models.stripe_event import StripeEvent
from src.common.models.transaction import Transaction
from src.common.purchases.packages import PACKAGES
from src.offline_stripe import Faults, Trouble, TroubleKind
from src.offline_stripe.errors import StripeError
from tests.credits.books import capture, grant, make_user, open_hold, release, reverse, spend
from tests.credits.crashes import dying
from tests.stripe.loop import Loop, start_loop
from tests.stripe.told import Endpoint

USERS = 5
STEPS = 150
STATEMENTS_MAX = 40
"""Where a job of ours may die, at the latest; one that is done by then lives."""
BEGINNING = 1_800_000_000
LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
LATER = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
METHODS = {
    "visa": 12,
    "sepa": 2,
    "sepaFails": 1,
    "chargeDeclined": 1,
    "authenticationRequired": 2,
    "createDispute": 2,
    "createDisputeInquiry": 2,
    "pendingRefund": 3,
    "refundFail": 2,
}
UNDONE = (EntryKind.SPEND, EntryKind.HOLD, EntryKind.GRANT)
"""What somebody may try to undo."""
REFUSALS = {
    "CAPTURE_EXCEEDS_HOLD",
    "ENTRY_NOT_REVERSIBLE",
    "HOLD_CLOSED",
    "INSUFFICIENT_CREDITS",
    "REFUND_EXCEEDS_PAYMENT",
    "REFUND_REFUSED",
    "REVERSAL_EXCEEDS_ENTRY",
    "STRIPE_GATEWAY_ERROR",
}
"""What may be answered to customers and operators meanwhile."""


class Killed(BaseException):
    """The process is gone: nothing after this reaches the database, no handler helps."""


class Storm:
    """One run under one seed, on an empty database whose commits are real."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311  no secret
        self._second_thoughts = random.Random(~seed)  # noqa: S311  what they draw is no other's
        self.happened = Counter[str]()
        """What was done, what came of it, how often."""
        self._told_by_chance = random.Random(f"told {seed}")  # noqa: S311  nor are these
        self.endpoint = Endpoint(seed, self.happened)
        self.loop: Loop = start_loop(f"storm {seed}", clock=lambda: BEGINNING)
        self.offline = self.loop.offline
        with SessionLocal.begin() as session:
            self.users = [make_user(session, balance=50).user_id for _ in range(USERS)]
        self._actions: dict[Callable[[], None], int] = {
            self.buy: 10,
            self.pay: 14,
            self.spend: 8,
            self.hold: 3,
            self.end_hold: 3,
            self.give: 2,
            self.refund_at_stripe: 8,
            self.refund_through_us: 6,
            self.settle_refund: 6,
            self.dispute: 4,
            self.decide_dispute: 8,
            self.settle_payment: 3,
            self.authenticate: 2,
            self.deliver: 16,
            self.work: 6,
            self.reconcile: 2,
            self.jump: 8,
            self.change_weather: 5,
            self.trouble: 5,
        }

    def rage(self, steps: int = STEPS) -> None:
        """Let everything happen."""
        for action in self.chance.choices(
            list(self._actions), list(self._actions.values()), k=steps
        ):
            self.happened[action.__name__] += 1
            action()
            if self._second_thoughts.random() < 0.1:
                self.undo()
            if self._told_by_chance.random() < 0.1:
                self.tell()

    def clear_up(self) -> None:
        """No more faults; processes that died leave their work to others."""
        self.offline.troubles.clear()
        self.offline.webhooks.faults = Faults()
        self._let_leases_end()

    def calm(self) -> None:
        """What was under way comes to its end, and all that is sent arrives, however late."""
        while (due_at := self.offline.webhooks.next_due_at()) is not None:
            self.offline.advance(max(0, due_at - self.offline.account.now()))
            for delivery in self.offline.webhooks.due():
                self.loop.deliver([delivery])
                self.offline.webhooks.answered(delivery.delivery_id, 200)

    # Customers

    def buy(self) -> None:
        """Click, often on what was clicked before."""
        user_id, package = self.chance.choice(self.users), self.chance.choice(PACKAGES)
        key = f"{package.package_id}:{self.chance.randrange(3)}"
        self._ours(lambda: self.loop.buy(user_id, package.package_id, key=key))

    def pay(self) -> None:
        """Pay on an open page, whether or not we know that it exists."""
        page = self._any("checkout.session", lambda each: each["status"] == "open")
        [method] = self.chance.choices(list(METHODS), list(METHODS.values()))
        self._theirs(lambda: self.offline.pay(page, method))

    def authenticate(self) -> None:
        """Answer 3-D Secure."""
        intent = self._any("payment_intent", lambda each: each["status"] == "requires_action")
        passed = self.chance.random() < 0.8
        self._theirs(lambda: self.offline.authenticate(intent, passed=passed))

    def spend(self) -> None:
        """Use credits."""
        command = spend(self.chance.choice(self.users), self.chance.randint(1, 700))
        self._ours(lambda: run_in_database_transaction(lambda db: execute(db, [command])))

    def give(self) -> None:
        """A present, which repays debts first."""
        command = grant(self.chance.choice(self.users), self.chance.randint(1, 300))
        self._ours(lambda: run_in_database_transaction(lambda db: execute(db, [command])))

    def undo(self) -> None:
        """Undo some of what was spent, captured or given; purchases are refused."""
        chance = self._second_thoughts
        user_id = chance.choice(self.users)
        with SessionLocal() as session:
            seqs = session.scalars(
                select(CreditEntry.seq)
                .where(CreditEntry.user_id == user_id, CreditEntry.kind.in_(UNDONE))
                .order_by(CreditEntry.seq)
            ).all()
        seq, amount = chance.choice(seqs), chance.randint(1, 200)
        command = (
            reverse(user_id, seq, amount)
            if amount % 2
            else reverse(user_id, seq, as_far_as_possible=True)
        )

        def work() -> None:
            run_in_database_transaction(lambda db: execute(db, [command]))
            self.happened["undone"] += 1

        self._ours(work, chance)

    def hold(self) -> None:
        """Set credits aside."""
        command = open_hold(self.chance.choice(self.users), self.chance.randint(1, 400))
        self._ours(lambda: run_in_database_transaction(lambda db: execute(db, [command])))

    def end_hold(self) -> None:
        """Take what was set aside, in part, or give it back."""
        user_id = self.chance.choice(self.users)
        with SessionLocal() as session:
            seqs = session.scalars(
                select(CreditHold.seq)
                .where(CreditHold.user_id == user_id, CreditHold.status == "open")
                .order_by(CreditHold.seq)
            ).all()
        kept = self.chance.randint(1, 400)
        if not seqs:
            return
        seq = self.chance.choice(seqs)
        command = capture(user_id, seq, kept) if kept % 2 else release(user_id, seq)
        self._ours(lambda: run_in_database_transaction(lambda db: execute(db, [command])))

    # Money back

    def refund_at_stripe(self) -> None:
        """Behind our back, in part, now and then more than there is left."""
        charge = self._any("charge", lambda each: each["status"] == "succeeded")
        cents = self.chance.randint(1, 600)
        parameters: Any = {"charge": charge, "amount": cents}
        self._theirs(lambda: self.loop.client.v1.refunds.create(parameters))

    def refund_through_us(self) -> None:
        """As support does, repeating itself."""
        with SessionLocal() as session:
            purchases = session.scalars(
                select(Transaction).order_by(Transaction.created_at, Transaction.stripe_session_id)
            ).all()
        number, cents = self.chance.randrange(2), self.chance.choice((40, 250, None))
        if purchases:
            purchase = self.chance.choice(purchases)
            key = f"{number}:{cents}"
            self._ours(lambda: self.loop.refund(purchase, cents, key=key))

    def settle_refund(self) -> None:
        """The bank has done it, or could not, perhaps after it said it had."""
        refund = self._any("refund")
        [status] = self.chance.choices(("succeeded", "failed", "canceled"), (2, 3, 1))
        self._theirs(lambda: self.offline.settle_refund(refund, status))

    def dispute(self) -> None:
        """A cardholder complains, about all of it or a part."""
        charge = self._any("charge", lambda each: each["status"] == "succeeded")
        amount, inquiry = self.chance.choice((None, 120)), self.chance.random() < 0.3
        self._theirs(lambda: self.offline.open_dispute(charge, inquiry=inquiry, amount=amount))

    def decide_dispute(self) -> None:
        """Escalated, won, appealed, lost, or given back after all, perhaps in part."""
        dispute = self._any("dispute")
        decision = self.chance.choice(("escalate", "win", "appeal", "lose", "reinstate"))
        amount = self.chance.choice((None, 50))
        self._theirs(lambda: self.offline.decide_dispute(dispute, decision, amount))

    def settle_payment(self) -> None:
        """A bank debit arrives, or does not."""
        intent = self._any("payment_intent", lambda each: each["status"] == "processing")
        succeeded = self.chance.random() < 0.7
        self._theirs(lambda: self.offline.settle_payment(intent, succeeded=succeeded))

    # The way between us

    def deliver(self) -> None:
        """What Stripe has to send now; who dies over it does not answer."""
        for delivery in self.offline.webhooks.due():
            survived = self._ours(lambda sent=delivery: self.loop.deliver([sent]))  # type: ignore[misc]  # mypy has no types for defaults
            self.offline.webhooks.answered(delivery.delivery_id, 200 if survived else None)

    def jump(self) -> None:
        """Time passes at Stripe: retries, expired pages, settled debits."""
        [seconds] = self.chance.choices((5, 200, 5_000, 90_000), (4, 4, 3, 1))
        self.offline.advance(seconds)

    def change_weather(self) -> None:
        """From now on webhooks are lost, doubled, late and shuffled more or less often."""
        chance = self.chance
        self.offline.webhooks.faults = Faults(
            drop=chance.choice((0, 0.1, 0.4, 1)),
            duplicate=chance.choice((0, 0.5)),
            delay=chance.choice((0, 0.3)),
            reorder=chance.random() < 0.7,
        )

    def trouble(self) -> None:
        """Stripe fails for a while, or does what it is asked and nobody hears the answer."""
        kind = self.chance.choice((TroubleKind.ERROR, TroubleKind.SLOW))
        times = self.chance.randint(1, 6)
        self.offline.troubles.add(Trouble(kind, times=times, delay_seconds=60))

    # Our side

    def work(self) -> None:
        """The worker's turn, after whatever it has to wait for."""
        self._let_leases_end()
        self._ours(self.loop.settle_due)

    def reconcile(self) -> None:
        """Compare in the middle of it; one that died is taken up by the next."""
        repairs = self.chance.random() < 0.5
        self._ours(
            lambda: self.loop.reconcile(LONG_AGO, until=LATER, repairs=repairs, resumes=True)
        )

    def tell(self) -> None:
        """The worker's turn at notices; the endpoint has bad days, and we may die."""
        self._ours(self.endpoint.work, self._told_by_chance)

    def _let_leases_end(self) -> None:
        with SessionLocal.begin() as session:
            due = {"next_attempt_at": StripeEvent.received_at, "lease_expires_at": None}
            session.execute(update(StripeEvent).values(due))
            session.execute(update(Reconciliation).values(lease_expires_at=None))

    def _ours(self, work: Callable[[], Any], chance: random.Random | None = None) -> bool:
        """Do something of ours, which may die at any statement; whether it lived."""
        chance = chance or self.chance
        dies, number = chance.random() < 0.4, chance.randint(1, STATEMENTS_MAX)
        try:
            if dies:
                with dying(get_engine(), number, Killed):
                    work()
            else:
                work()
        except Killed:
            self.happened["killed"] += 1
            return False
        except ExceptionWithErrorType as refusal:
            if refusal.error_type not in REFUSALS:
                raise
            self.happened[refusal.error_type] += 1
        return True

    def _theirs(self, work: Callable[[], Any]) -> None:
        """Have Stripe do something, which it may refuse."""
        try:
            work()
        except (StripeError, stripe.StripeError):
            self.happened["refused by Stripe"] += 1
        else:
            self.happened["done at Stripe"] += 1

    def _any(self, kind: str, fits: Callable[[dict[str, Any]], bool] = bool) -> str:
        """Any object of this kind; an id of nothing where there is none."""
        found = [str(each["id"]) for each in self.offline.account.all(kind) if fits(each)]
        return self.chance.choice(found or ["nothing"])
