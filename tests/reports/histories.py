"""Random histories of a few users: everything that moves credits, over days or months."""

import datetime as dt
import uuid
from random import Random
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.credits.domain.commands import Command, Result
from src.common.credits.due import expire_due
from src.common.credits.operations import execute_each
from src.common.models.credit_entry import CreditEntry
from src.common.models.credit_lot import LotSource
from tests.credits import books, stripe_side
from tests.credits.clock import set_clock
from tests.credits.model_money_back import STAGES
from tests.credits.model_values import MoneyBack
from tests.credits.stripe_side import PACKAGES

KINDS = (
    *("grant", "spend", "spend", "adjust", "hold", "hold", "capture", "capture"),
    *("release", "renew", "reverse", "reverse", "buy", "money back", "book"),
)
BALANCES_BEFORE = (0, 25, -25, 0)
"""Each user's from before the ledger."""


class History:
    """What has happened so far; the same seed tells the same history."""

    def __init__(
        self, session: Session, seed: int, *, start: dt.datetime, step: dt.timedelta
    ) -> None:
        self.session = session
        self.random = Random(seed)  # noqa: S311  to be repeatable
        self.now = start
        self.step = step
        self.ids = [books.from_before(session, before).user_id for before in BALANCES_BEFORE]
        self.holds: list[tuple[uuid.UUID, int]] = []
        self.entries: list[tuple[uuid.UUID, int]] = []
        self.payments: list[tuple[str, int, bool]] = []
        """Each one's id, cents, and whether they are real money."""
        session.flush()

    def go_on(self, steps: int) -> None:
        """Let so many things happen, each some time after the one before."""
        for _ in range(steps):
            self.now += self.random.random() * self.step
            set_clock(self.session, self.now)
            self._do(self.random.choice(KINDS), self.random.choice(self.ids))

    def instants(self, count: int) -> list[dt.datetime]:
        """Instants to look at: some at which entries count, one just before each, and now."""
        found = self.session.scalars(select(CreditEntry.effective_at).distinct()).all()
        chosen = self.random.sample(sorted(found), min(count, len(found)))
        before = [instant - dt.timedelta(microseconds=1) for instant in chosen]
        return sorted({*chosen, *before, self.now})

    def _do(self, kind: str, user_id: uuid.UUID) -> None:
        if kind == "buy":
            name = f"pi_{uuid.uuid4()}"
            package = self.random.choice(PACKAGES)
            livemode = self.random.random() < 2 / 3
            stripe_side.pay(self.session, user_id, name, package, livemode=livemode)
            self.payments.append((name, package.price_cents, livemode))
        elif kind == "money back":
            self._give_money_back()
        elif kind == "book":
            expire_due(self.session, limit=1, now=self.now)
        elif command := self._command(kind, user_id):
            [outcome] = execute_each(self.session, [command], now=self.now)
            if isinstance(outcome, Result):
                self.entries.append((user_id, outcome.seq))
                if outcome.kind == "hold":
                    self.holds.append((user_id, outcome.seq))
        self.session.flush()

    def _give_money_back(self) -> None:
        if self.payments:
            payment, paid, livemode = self.random.choice(self.payments)
            kind = self.random.choice(tuple(STAGES))
            status = self.random.choice(tuple(STAGES[kind]))
            cents = self.random.randint(0, paid)
            prefix = {"refund": "re", "dispute": "dp"}.get(kind, "cn")
            said = MoneyBack(f"{prefix}_{uuid.uuid4()}", kind, payment, status, cents)
            stripe_side.tell(self.session, said, livemode=livemode)

    def _command(self, kind: str, user_id: uuid.UUID) -> Command | None:
        amount = self.random.randint(1, 40)
        later: dict[str, Any] = {}
        if self.random.random() < 1 / 2:
            later["expires_at"] = self.now + (0.1 + 9 * self.random.random()) * self.step
        if kind == "grant":
            sources = (LotSource.PROMO, LotSource.ADJUSTMENT, LotSource.SUBSCRIPTION)
            return books.grant(user_id, amount, source=self.random.choice(sources), **later)
        if kind == "spend":
            return books.spend(user_id, amount)
        if kind == "adjust":
            return books.adjust(user_id, self.random.choice((amount, -amount)))
        if kind == "hold":
            seconds = round(6 * self.random.random() * self.step.total_seconds()) + 1
            return books.open_hold(user_id, amount, min(seconds, 86_400))
        if kind == "reverse" and self.entries:
            whose, seq = self.random.choice(self.entries[-12:])
            part = self.random.choice((None, 1 + amount % 9))
            return books.reverse(whose, seq, part)
        return self._about_a_hold(kind, amount) if self.holds else None

    def _about_a_hold(self, kind: str, amount: int) -> Command:
        whose, seq = self.random.choice(self.holds[-6:])
        if kind == "capture":
            final = self.random.random() < 1 / 2
            retake = self.random.choice(("retake", "refuse"))
            return books.capture(whose, seq, 1 + amount % 12, final=final, if_expired=retake)
        if kind == "release":
            return books.release(whose, seq)
        return books.renew(whose, seq, 60)
