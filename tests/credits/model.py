"""A model of the ledger, written from DESIGN §4 alone: naive on purpose, one credit at a time.

It shares with the code only the commands, which are what is asked, and knows no database, no
amounts taken at once and no order but "the first of what is left".
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from msgspec import structs

from src.common.credits.commands import (
    Adjust,
    Capture,
    Command,
    Grant,
    OpenHold,
    Release,
    Renew,
    Spend,
)

PRIORITIES = {"promo": 10, "subscription": 50, "purchase": 100, "adjustment": 100, "opening": 100}
FOREVER = dt.datetime(9999, 12, 31, tzinfo=dt.UTC)
HOLDS_MAX = 100


class Refused(Exception):
    """The command was not done; `args[0]` is the error type."""


@dataclass(frozen=True)
class Answer:
    """What a caller is told."""

    seq: int
    kind: str
    amount: int
    captured: int | None
    balance: int
    created_at: dt.datetime
    expires_at: dt.datetime | None
    replayed: bool


@dataclass(frozen=True)
class Line:
    """A line of the journal."""

    kind: str
    amount: int
    captured: int | None
    related_seq: int | None
    effective_at: dt.datetime


@dataclass
class ModelLot:
    """Credits that came in together."""

    seq: int
    priority: int
    dies_at: dt.datetime
    left: int

    @property
    def rank(self) -> tuple[int, dt.datetime, int]:
        """Rule 6."""
        return self.priority, self.dies_at, self.seq


@dataclass
class ModelHold:
    """Credits set aside; `credit_lots` names each one's lot, in the order they were taken."""

    seq: int
    credit_lots: Sequence[int]
    expires_at: dt.datetime
    captured: int = 0
    status: str = "open"


@dataclass
class Person:
    """One user's books."""

    lots: list[ModelLot] = field(default_factory=list[ModelLot])
    holds: list[ModelHold] = field(default_factory=list[ModelHold])
    debts: dict[int, int] = field(default_factory=dict[int, int])
    journal: list[Line] = field(default_factory=list[Line])
    answers: dict[str, tuple[Command, Answer]] = field(
        default_factory=dict[str, tuple[Command, Answer]]
    )
    is_active: bool = True
    before: int = 0
    """The balance from before the ledger; the first thing that is written opens with it."""
    last_instant: dt.datetime = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

    def copy(self) -> "Person":
        """Books that may be thrown away."""
        return Person(
            [replace(lot) for lot in self.lots],
            [replace(hold) for hold in self.holds],
            dict(self.debts),
            list(self.journal),
            dict(self.answers),
            self.is_active,
            self.before,
            self.last_instant,
        )

    @property
    def balance(self) -> int:
        """Every credit lies in a lot."""
        return sum(lot.left for lot in self.lots)

    @property
    def booked(self) -> int:
        """What the user's row says."""
        return self.balance if self.journal else self.before

    def at(self, now: dt.datetime) -> "Person":
        """The books at that instant, everything due counted (rule 8); these stay as they are."""
        settled = self.copy()
        settled.last_instant = max(now, self.last_instant)
        if settled.before and not settled.journal:
            settled.open()
        while settled.settle_one():
            pass
        return settled

    def open(self) -> None:
        """What was there becomes a lot, what was owed a debt."""
        self._note("opening", max(self.before, 0))
        if self.before > 0:
            self.lots.append(ModelLot(1, 100, FOREVER, self.before))
        else:
            self.debts[1] = -self.before

    def do(self, command: Command) -> Answer:
        """Do what is asked to settled books, or raise `Refused` with the books as they were."""
        known = self.answers.get(command.key)
        if known is not None:
            asked, answer = known
            if structs.replace(asked, metadata=command.metadata) != command:
                raise Refused("IDEMPOTENCY_KEY_REUSED")
            return replace(answer, replayed=True)
        position = len(self.journal)
        expires_at = self._decide(command)
        line = self.journal[position]
        answer = Answer(
            position + 1,
            line.kind,
            line.amount,
            line.captured,
            self.balance,
            self.last_instant,
            expires_at,
            replayed=False,
        )
        self.answers[command.key] = command, answer
        return answer

    def _decide(self, command: Command) -> dt.datetime | None:
        match command:
            case Grant():
                self._grant(command)
            case Spend():
                self._need_active()
                self._need(command.amount)
                self._note("spend", -len(self._take(command.amount)))
            case Adjust() if command.amount > 0:
                self._come_in("adjustment", command.amount, 100, FOREVER)
            case Adjust():
                self._need(-command.amount)
                self._note("adjustment", -len(self._take(-command.amount)))
            case OpenHold():
                return self._open(command)
            case Capture():
                self._capture(command)
            case Release():
                hold = self._open_hold(command.hold_seq)
                hold.status = "released"
                self._note("release", self._give_back(hold), 0, hold.seq)
                self._after_return(self.last_instant)
            case Renew():
                hold = self._open_hold(command.hold_seq)
                hold.expires_at = self.last_instant + dt.timedelta(
                    seconds=command.expires_in_seconds
                )
                self._note("renewal", 0, 0, hold.seq)
                return hold.expires_at
            case _:
                raise AssertionError(command)
        return None

    def _grant(self, command: Grant) -> None:
        dies_at = command.expires_at or FOREVER
        if dies_at <= self.last_instant:
            raise Refused("VALIDATION_ERROR")
        priority = command.priority
        if priority is None:
            priority = PRIORITIES[command.source]
        self._come_in("grant", command.amount, priority, dies_at)

    def _open(self, command: OpenHold) -> dt.datetime:
        self._need_active()
        self._need(command.amount)
        if sum(hold.status == "open" for hold in self.holds) >= HOLDS_MAX:
            raise Refused("TOO_MANY_HOLDS")
        expires_at = self.last_instant + dt.timedelta(seconds=command.expires_in_seconds)
        taken = self._take(command.amount)
        self._note("hold", -len(taken))
        self.holds.append(ModelHold(len(self.journal), taken, expires_at))
        return expires_at

    def _capture(self, command: Capture) -> None:
        hold = self._find_hold(command.hold_seq)
        is_late = hold.status == "expired" and command.if_expired == "retake"
        if not is_late:
            self._open_hold(command.hold_seq)
        if hold.captured + command.amount > len(hold.credit_lots):
            raise Refused("CAPTURE_EXCEEDS_HOLD")
        if is_late:
            self._need(command.amount)
            hold.captured += command.amount
            taken = self._take(command.amount)
            self._note("spend", -len(taken), command.amount, hold.seq)
            return
        hold.captured += command.amount
        returned = 0
        if command.final or hold.captured == len(hold.credit_lots):
            hold.status = "captured"
            returned = self._give_back(hold)
        self._note("capture", returned, command.amount, hold.seq)
        self._after_return(self.last_instant)

    def _come_in(self, kind: str, amount: int, priority: int, dies_at: dt.datetime) -> None:
        self._note(kind, amount)
        self.lots.append(ModelLot(len(self.journal), priority, dies_at, amount))
        self._repay(self.last_instant)

    def settle_one(self) -> bool:
        """Let the first thing that is due happen; False where nothing is."""
        due = [
            (hold.expires_at, "a hold", hold.seq)
            for hold in self.holds
            if hold.status == "open" and hold.expires_at <= self.last_instant
        ] + [
            (lot.dies_at, "then a lot", lot.seq)
            for lot in self.lots
            if lot.left and lot.dies_at <= self.last_instant
        ]
        if not due:
            return False
        instant, what, seq = min(due)
        if what == "a hold":
            hold = self._find_hold(seq)
            hold.status = "expired"
            self._note("hold_expiry", self._give_back(hold), 0, seq, at=instant)
            self._after_return(instant)
        else:
            self._expire(self._lot(seq), instant)
        return True

    def _after_return(self, instant: dt.datetime) -> None:
        self._repay(instant)
        for lot in sorted(self.lots, key=lambda lot: lot.rank):
            if lot.left and lot.dies_at <= instant:
                self._expire(lot, instant)

    def _expire(self, lot: ModelLot, instant: dt.datetime) -> None:
        self._note("lot_expiry", -lot.left, at=instant)
        lot.left = 0

    def _repay(self, instant: dt.datetime) -> None:
        """The oldest payment's debt first, each a line of its own; from dead lots first."""
        for payment in sorted(self.debts):
            paid = 0
            while self.debts[payment] and self.balance:
                with_credits = [lot for lot in self.lots if lot.left]
                min(with_credits, key=lambda lot: (lot.dies_at > instant, lot.rank)).left -= 1
                self.debts[payment] -= 1
                paid += 1
            if paid:
                self._note("debt_repayment", -paid, None, payment, at=instant)

    def _take(self, amount: int) -> list[int]:
        """Take credits one by one, always from the lot that is first now."""
        taken: list[int] = []
        while len(taken) < amount:
            lot = min((lot for lot in self.lots if lot.left), key=lambda lot: lot.rank)
            lot.left -= 1
            taken.append(lot.seq)
        return taken

    def _give_back(self, hold: ModelHold) -> int:
        """The credits taken first are those that were captured; the others go home."""
        homes = hold.credit_lots[hold.captured :]
        for seq in homes:
            self._lot(seq).left += 1
        return len(homes)

    def _need(self, amount: int) -> None:
        if amount > self.balance:
            raise Refused("INSUFFICIENT_CREDITS")

    def _need_active(self) -> None:
        if not self.is_active:
            raise Refused("USER_INACTIVE")

    def _find_hold(self, seq: int) -> ModelHold:
        for hold in self.holds:
            if hold.seq == seq:
                return hold
        raise Refused("HOLD_NOT_FOUND")

    def _open_hold(self, seq: int) -> ModelHold:
        hold = self._find_hold(seq)
        if hold.status != "open":
            raise Refused("HOLD_EXPIRED" if hold.status == "expired" else "HOLD_CLOSED")
        return hold

    def _lot(self, seq: int) -> ModelLot:
        return next(lot for lot in self.lots if lot.seq == seq)

    def _note(
        self,
        kind: str,
        amount: int,
        captured: int | None = None,
        related_seq: int | None = None,
        at: dt.datetime | None = None,
    ) -> None:
        self.journal.append(Line(kind, amount, captured, related_seq, at or self.last_instant))
