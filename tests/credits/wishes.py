"""What random people want of the ledger, and the commands that say so."""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from src.common.credits.domain.commands import Command
from src.common.models.credit_lot import LotSource
from tests.credits import books
from tests.credits.model import Person

COMMANDS = (
    *("grant", "grant", "spend", "spend", "adjust", "hold", "hold"),
    *("capture", "capture", "release", "renew", "reverse", "reverse", "replay", "reuse"),
)
AMOUNT_MAX = 40


@dataclass(frozen=True)
class Wish:
    """What somebody wants; the numbers mean whatever the kind makes of them."""

    kind: str
    user: int
    amount: int
    pick: int
    seconds: int
    yes: bool
    no: bool


def draw(
    random: Random, least: int, most: int, *, users: int, kinds: Sequence[str] = COMMANDS
) -> list[Wish]:
    """Wishes from a seed: long histories, where hypothesis itself would soon draw the simplest."""
    return [
        Wish(
            kind=random.choice(kinds),
            user=random.randrange(users),
            amount=random.randint(1, AMOUNT_MAX),
            pick=random.randrange(8),
            seconds=random.randint(-5, 60),
            yes=random.random() < 1 / 2,
            no=random.random() < 1 / 2,
        )
        for _ in range(random.randint(least, most))
    ]


@dataclass
class Asker:
    """Says wishes as commands, and remembers what was asked, to ask it again."""

    asked: list[Command] = field(default_factory=list[Command])

    def command(self, wish: Wish, user_id: uuid.UUID, person: Person, now: dt.datetime) -> Command:
        """The command; of `COMMANDS` only."""
        command = self._command(wish, user_id, person, now)
        self.asked.append(command)
        return command

    def _command(self, wish: Wish, user_id: uuid.UUID, person: Person, now: dt.datetime) -> Command:
        if wish.kind in {"replay", "reuse"} and self.asked:
            used = self.asked[-1 - wish.pick * 3 % len(self.asked)]
            if wish.kind == "replay":
                return used
            return books.spend(used.user_id, wish.amount, key=used.key)
        others: dict[str, Any] = {"metadata": {"a": wish.pick}} if wish.no else {}
        if wish.kind == "grant":
            expires_at = now + dt.timedelta(seconds=wish.seconds) if wish.yes else None
            source = (LotSource.PROMO, LotSource.ADJUSTMENT, LotSource.SUBSCRIPTION)[wish.pick % 3]
            priority = 40 * wish.pick if wish.no else None  # some come after what was bought
            return books.grant(
                user_id, 2 * wish.amount, source=source, priority=priority, expires_at=expires_at
            )
        if wish.kind == "adjust":
            return books.adjust(user_id, wish.amount if wish.yes else -wish.amount, **others)
        if wish.kind == "hold":
            return books.open_hold(user_id, wish.amount, 4 * abs(wish.seconds) + 1, **others)
        if wish.kind in {"capture", "release", "renew"}:
            return _about_a_hold(user_id, wish, person, others)
        if wish.kind == "reverse":
            return _undoing(user_id, wish, person, others)
        return books.spend(user_id, wish.amount, **others)


def _undoing(user_id: uuid.UUID, wish: Wish, person: Person, others: dict[str, Any]) -> Command:
    """Undo something: mostly what can be undone, and then mostly a part of it."""
    seqs = sorted({*person.taken, *person.given, *(hold.seq for hold in person.holds)})[-8:]
    if seqs and wish.pick < 7:
        seq = seqs[-1 - wish.pick % len(seqs)]
    else:
        seq = 1 + (wish.amount + wish.pick) % (len(person.journal) + 2)
    if wish.yes:
        return books.reverse(user_id, seq, 1 + wish.amount % 16, **others)
    return books.reverse(user_id, seq, as_far_as_possible=wish.no, **others)


def _about_a_hold(
    user_id: uuid.UUID, wish: Wish, person: Person, others: dict[str, Any]
) -> Command:
    hold_seq = _some_hold(person, wish.pick)
    if wish.kind == "capture":
        if_expired = "retake" if wish.pick % 2 else "refuse"
        amount = wish.amount if wish.pick == 0 else 1 + wish.amount % 12
        return books.capture(
            user_id, hold_seq, amount, final=wish.yes, if_expired=if_expired, **others
        )
    if wish.kind == "release":
        return books.release(user_id, hold_seq, **others)
    return books.renew(user_id, hold_seq, abs(wish.seconds) + 1, **others)


def _some_hold(person: Person, pick: int) -> int:
    """A hold of the newest ones, or a number that may be one by the time it is asked for."""
    newest = [hold.seq for hold in person.holds[-6:]]
    if newest and pick < 7:
        return newest[-1 - pick % len(newest)]
    return len(person.journal) + 1 + pick % 3
