"""A model of the ledger, written from the rules alone: naive on purpose, one credit at a time.

It shares with the code only the commands, which are what is asked, and knows no database, no
amounts taken at once and no order but "the first of what is left". Money back (rule 5) is in
`model_money_back.py`.
"""

import datetime as dt
from copy import copy
from dataclasses import dataclass, field, replace

from msgspec import structs

from src.common.credits.domain.commands import (
    Adjust,
    Capture,
    Command,
    Grant,
    OpenHold,
    Release,
    Renew,
    Reverse,
    Spend,
)
from tests.credits.model_values import (
    Answer,
    Line,
    ModelHold,
    ModelLot,
    MoneyBack,
    Payment,
    Refused,
)

PRIORITIES = {"promo": 10, "subscription": 50, "purchase": 100, "adjustment": 100, "opening": 100}
FOREVER = dt.datetime(9999, 12, 31, tzinfo=dt.UTC)


@dataclass
class Person:
    """One user's books."""

    lots: list[ModelLot] = field(default_factory=list[ModelLot])
    holds: list[ModelHold] = field(default_factory=list[ModelHold])
    debts: dict[int, int] = field(default_factory=dict[int, int])
    """What is owed, by the payment's lot or by the opening."""
    payments: list[Payment] = field(default_factory=list[Payment])
    money_back: list[MoneyBack] = field(default_factory=list[MoneyBack])
    journal: list[Line] = field(default_factory=list[Line])
    answers: dict[str, tuple[Command, Answer]] = field(
        default_factory=dict[str, tuple[Command, Answer]]
    )
    taken: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    """By a spend or an adjustment down: the lot of each credit that nobody gave back, in the order
    they were taken."""
    given: dict[int, int] = field(default_factory=dict[int, int])
    """By lot: how many of the credits that were given, not bought, nobody took back."""
    is_active: bool = True
    before: int = 0
    """The balance from before the ledger; the first thing that is written opens with it."""
    opening: int | None = None
    """The opening's line, once there is one."""
    last_instant: dt.datetime = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    forgiven: int = 0
    """How many credits the last allocation did not ask for, since they had expired."""
    balance_max: int = 2**31 - 1
    holds_max: int = 100

    def copy(self) -> "Person":
        """Books that may be thrown away."""
        return replace(
            self,
            lots=list(map(copy, self.lots)),
            holds=[replace(hold, kept=list(hold.kept)) for hold in self.holds],
            taken={seq: list(lots) for seq, lots in self.taken.items()},
            given=dict(self.given),
            debts=dict(self.debts),
            payments=list(self.payments),
            money_back=list(self.money_back),
            journal=list(self.journal),
            answers=dict(self.answers),
        )

    @property
    def balance(self) -> int:
        """Every credit lies in a lot."""
        return sum(lot.left for lot in self.lots)

    @property
    def held(self) -> int:
        """What open holds may still give back."""
        return sum(
            len(hold.credit_lots) - hold.captured for hold in self.holds if hold.status == "open"
        )

    @property
    def booked(self) -> int:
        """What the user's row says."""
        return self.balance if self.journal else self.before

    def at(self, now: dt.datetime) -> "Person":
        """The books at that instant, everything due counted (rule 8); these stay as they are."""
        settled = self.copy()
        settled.last_instant = max([now, *(line.effective_at for line in self.journal[-1:])])
        if settled.before and not settled.journal:
            settled.open()
        while settled.settle_one():
            pass
        return settled

    def open(self) -> None:
        """What was there becomes a lot, what was owed a debt; nothing, if the ledger has begun."""
        before = 0 if self.journal else self.before
        self.opening = len(self.journal) + 1
        if before > 0:
            self.lots.append(ModelLot(self.opening, PRIORITIES["opening"], FOREVER, before))
        self.note("opening")
        if before < 0:
            self.debts[self.opening] = -before

    def do(self, command: Command) -> Answer:
        """Do what is asked to settled books, or raise `Refused` with the books as they were."""
        known = self.answers.get(command.key)
        if known is not None:
            asked, answer = known
            if structs.replace(asked, metadata=command.metadata) != command:
                raise Refused("IDEMPOTENCY_KEY_REUSED")
            return replace(answer, replayed=True)
        position = len(self.journal)
        spent = None
        if isinstance(command, Reverse) and command.seq in self.given:
            spent = self.given[command.seq] - self._lot(command.seq).left
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
            spent=spent,
        )
        self.answers[command.key] = command, answer
        return answer

    def _decide(self, command: Command) -> dt.datetime | None:
        match command:
            case Grant():
                self._grant(command)
                return command.expires_at
            case Spend():
                self._need_active()
                self._need(command.amount)
                self.taken[len(self.journal) + 1] = self._take(command.amount)
                self.note("spend")
            case Adjust() if command.amount > 0:
                self.need_room(command.amount)
                self.given[len(self.journal) + 1] = command.amount
                self._come_in("adjustment", command.amount, 100, FOREVER)
            case Adjust():
                self._need(-command.amount)
                self.taken[len(self.journal) + 1] = self._take(-command.amount)
                self.note("adjustment")
            case OpenHold():
                return self._open(command)
            case Capture():
                self._capture(command)
            case Release():
                hold = self._open_hold(command.hold_seq)
                hold.status = "released"
                self._give_back(hold)
                self.note("release", 0, hold.seq)
                self._after_return(self.last_instant)
            case Renew():
                hold = self._open_hold(command.hold_seq)
                hold.expires_at = self.last_instant + dt.timedelta(
                    seconds=command.expires_in_seconds
                )
                self.note("renewal", 0, hold.seq)
                return hold.expires_at
            case Reverse():
                self._reverse(command)
            case _:
                raise AssertionError(command)
        return None

    def _grant(self, command: Grant) -> None:
        self.need_room(command.amount)
        dies_at = command.expires_at or FOREVER
        if dies_at <= self.last_instant:
            raise Refused("VALIDATION_ERROR")
        priority = command.priority
        if priority is None:
            priority = PRIORITIES[command.source]
        if command.source not in {"purchase", "opening"}:
            self.given[len(self.journal) + 1] = command.amount
        self._come_in("grant", command.amount, priority, dies_at)

    def _open(self, command: OpenHold) -> dt.datetime:
        self._need_active()
        self._need(command.amount)
        if sum(hold.status == "open" for hold in self.holds) >= self.holds_max:
            raise Refused("TOO_MANY_HOLDS")
        expires_at = self.last_instant + dt.timedelta(seconds=command.expires_in_seconds)
        taken = self._take(command.amount)
        self.note("hold")
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
            self.taken[len(self.journal) + 1] = self._take(command.amount)
            self.note("spend", command.amount, hold.seq)
            return
        hold.kept += hold.credit_lots[hold.captured : hold.captured + command.amount]
        hold.captured += command.amount
        if command.final or hold.captured == len(hold.credit_lots):
            hold.status = "captured"
            self._give_back(hold)
        self.note("capture", command.amount, hold.seq)
        self._after_return(self.last_instant)

    def _reverse(self, command: Reverse) -> None:
        """Undo an entry: rule 12."""
        seq = command.seq
        if seq > len(self.journal):
            raise Refused("ENTRY_NOT_FOUND")
        kind = self.journal[seq - 1].kind
        if seq in self.given:
            self._take_back(self._lot(seq), command)
        elif seq in self.taken or kind == "hold":
            taken = self._find_hold(seq).kept if kind == "hold" else self.taken[seq]
            amount = self._undone(command, len(taken))
            self.need_room(amount)
            for _ in range(amount):  # what was taken last goes home first
                self._lot(taken.pop()).left += 1
            self.note("reversal", None, seq)
            self._after_return(self.last_instant)
        else:
            raise Refused("ENTRY_NOT_REVERSIBLE")

    def _take_back(self, lot: ModelLot, command: Reverse) -> None:
        amount = self._undone(command, self.given[lot.seq])
        if command.as_far_as_possible and lot.left:
            amount = min(amount, lot.left)
        if amount > lot.left:
            raise Refused("INSUFFICIENT_CREDITS")
        self.given[lot.seq] -= amount
        lot.left -= amount
        self.note("reversal", None, lot.seq)

    @staticmethod
    def _undone(command: Reverse, reversible: int) -> int:
        amount = reversible if command.amount is None else command.amount
        if amount == 0 or amount > reversible:
            raise Refused("REVERSAL_EXCEEDS_ENTRY")
        return amount

    def _come_in(self, kind: str, amount: int, priority: int, dies_at: dt.datetime) -> None:
        self.lots.append(ModelLot(len(self.journal) + 1, priority, dies_at, amount))
        self.note(kind)
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
            self._give_back(hold)
            self.note("hold_expiry", 0, seq, at=instant)
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
        lot.expired += lot.left
        lot.left = 0
        self.note("lot_expiry", at=instant)

    def _repay(self, instant: dt.datetime) -> None:
        """The oldest payment's debt first, each a line of its own; from dead lots first."""
        for payment in sorted(self.debts):
            paid = 0
            while self.debts[payment] and self.balance:
                with_credits = [lot for lot in self.lots if lot.left]
                giver = min(with_credits, key=lambda lot: (lot.dies_at > instant, lot.rank))
                giver.left -= 1
                giver.taken += 1
                self.debts[payment] -= 1
                paid += 1
            if paid:
                self.note("debt_repayment", None, payment, at=instant)

    def _take(self, amount: int) -> list[int]:
        """Take credits one by one, always from the lot that is first now."""
        taken: list[int] = []
        while len(taken) < amount:
            lot = min((lot for lot in self.lots if lot.left), key=lambda lot: lot.rank)
            lot.left -= 1
            taken.append(lot.seq)
        return taken

    def _give_back(self, hold: ModelHold) -> None:
        """The credits taken first are those that were captured; the others go home."""
        for seq in hold.credit_lots[hold.captured :]:
            self._lot(seq).left += 1

    def need_room(self, amount: int) -> None:
        """What is set aside comes back one day: there must be room for that too."""
        if self.balance + self.held + amount > self.balance_max:
            raise Refused("BALANCE_LIMIT_EXCEEDED")

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

    def note(
        self,
        kind: str,
        captured: int | None = None,
        related_seq: int | None = None,
        at: dt.datetime | None = None,
    ) -> None:
        """Write down what has moved since the last line."""
        moved = {lot.seq: lot.left - lot.written for lot in self.lots if lot.left != lot.written}
        for lot in self.lots:
            lot.written = lot.left
        instant = at or self.last_instant
        self.journal.append(Line(kind, sum(moved.values()), captured, related_seq, instant, moved))
