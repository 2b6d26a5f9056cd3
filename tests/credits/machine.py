"""The ledger and its model side by side: the machine that hypothesis drives (`test_model.py`)."""

import datetime as dt
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from sqlalchemy import text, update
from sqlalchemy.orm import Session

from src.common.credits.commands import Command, Result
from src.common.credits.operations import execute, execute_each
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.credit_lot import LotSource
from src.common.models.user import User
from tests.credits import books
from tests.credits.model import Answer, Line, Person, Refused

START = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
USERS = 3
KINDS = (
    *("grant", "grant", "spend", "spend", "adjust", "hold", "hold"),
    *("capture", "capture", "release", "renew", "replay", "reuse"),
)
OWN_KINDS = {"opening", "hold_expiry", "lot_expiry", "debt_repayment"}
"""What the ledger writes beside what it is asked for; counted by example."""
_STATE = text("""
SELECT u.user_id, u.credits_balance, u.credits_version,
  (SELECT coalesce(jsonb_object_agg(l.seq, l.remaining), '{}') FROM credit_lots l
    WHERE l.user_id = u.user_id),
  (SELECT coalesce(jsonb_object_agg(h.seq, jsonb_build_array(h.status, h.captured, h.amount,
      extract(epoch FROM h.expires_at))), '{}') FROM credit_holds h WHERE h.user_id = u.user_id),
  (SELECT coalesce(jsonb_object_agg(d.seq, d.outstanding), '{}') FROM credit_debts d
    WHERE d.user_id = u.user_id)
FROM users u WHERE u.user_id = ANY (:ids)
""")
_JOURNAL = text("""
SELECT kind, amount, captured, related_seq, effective_at FROM credit_entries
WHERE user_id = :id ORDER BY seq
""")


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


def draw(seed: int, least: int, most: int) -> list[Wish]:
    """Wishes from a seed: long histories, where hypothesis itself would soon draw the simplest."""
    random = Random(seed)  # noqa: S311  tests are to be repeatable
    return [
        Wish(
            kind=random.choice(KINDS),
            user=random.randrange(USERS),
            amount=random.randint(1, 40),
            pick=random.randrange(8),
            seconds=random.randint(-5, 60),
            yes=random.random() < 1 / 2,
            no=random.random() < 1 / 2,
        )
        for _ in range(random.randint(least, most))
    ]


seeds = st.integers(0, 2**32 - 1)
pauses = st.sampled_from((0, 1, 5, 20, 60, -30))
"""How many seconds the clock has moved meanwhile: backwards too."""


class LedgerMachine(RuleBasedStateMachine):
    """Whatever happens, the database and the model agree and the books balance."""

    session: ClassVar[Session]
    operations: ClassVar[Counter[str]] = Counter()
    """What happened, over all examples: results, replays and refusals."""

    def __init__(self) -> None:
        super().__init__()
        self.now: dt.datetime = START
        self.people: dict[uuid.UUID, Person] = {}
        for before in (0, 25, -25):
            user = books.from_before(self.session, before)
            self.people[user.user_id] = Person(before=before)
        self.ids = sorted(self.people)
        self.asked: list[Command] = []

    @rule(seed=seeds, seconds=pauses, undone=st.booleans())
    def ask_at_once(self, seed: int, seconds: int, *, undone: bool) -> None:
        """All or nothing, in one call; perhaps the caller rolls back."""
        self.now += dt.timedelta(seconds=seconds)
        several = draw(seed, 1, 4)
        commands = [self._command(wish) for wish in several]
        people = self._settled(commands)
        expected = self._expected(people, commands)
        refusal = next((each for each in expected if isinstance(each, str)), None)
        savepoint = self.session.begin_nested()
        if refusal is None:
            results = execute(self.session, commands, now=self.now)
            assert list(map(answer_of, results)) == expected
        else:
            with pytest.raises(ExceptionWithErrorType) as refused:
                execute(self.session, commands, now=self.now)
            assert refused.value.error_type == refusal
        self._count(expected if refusal is None else [refusal])
        self._finish(savepoint.commit, people if refusal is None else {}, expected)
        if undone:
            self._ask_and_undo(several)

    @rule(seed=seeds, seconds=pauses)
    def ask_for_each(self, seed: int, seconds: int) -> None:
        """Each on its own, in one call: the batch."""
        self.now += dt.timedelta(seconds=seconds)
        commands = [self._command(wish) for wish in draw(seed, 4, 24)]
        people = self._settled(commands)
        expected = self._expected(people, commands)
        outcomes = execute_each(self.session, commands, now=self.now)
        assert list(map(answer_of, outcomes)) == expected
        self._count(expected)
        self._finish(lambda: None, people, expected)

    @rule(seed=seeds, user=st.integers(0, USERS - 1))
    def ask_a_deactivated_account(self, seed: int, user: int) -> None:
        """It spends nothing and opens no hold; all else is as ever."""
        self._switch(user)
        self.ask_for_each(seed, 1)
        self._switch(user)

    @rule(user=st.integers(0, USERS - 1), outstanding=st.integers(1, 30), pick=st.integers(0, 7))
    def something_is_owed(self, user: int, outstanding: int, pick: int) -> None:
        """All is used up, then money goes back: a debt beside a balance of 0."""
        user_id = self.ids[user]
        if any(self.people[user_id].at(self.now).debts.values()):
            return
        left = self.people[user_id].at(self.now).balance
        commands = [books.grant(user_id, 1), books.adjust(user_id, -left - 1)]
        people = self._settled(commands)
        expected = self._expected(people, commands)
        assert list(map(answer_of, execute(self.session, commands, now=self.now))) == expected
        self._finish(lambda: None, people, expected)
        person = self.people[user_id]
        lot = person.lots[pick % len(person.lots)].seq
        person.debts[lot] = outstanding
        self.session.execute(
            text(
                "INSERT INTO credit_debts VALUES (:user, :lot, :owed) "
                "ON CONFLICT (user_id, seq) DO UPDATE SET outstanding = :owed"
            ),
            {"user": user_id, "lot": lot, "owed": outstanding},
        )

    def teardown(self) -> None:
        """The whole journal is the model's, line by line; then nothing of it stays."""
        for user_id, person in self.people.items():
            rows = self.session.execute(_JOURNAL, {"id": user_id})
            assert [Line(*row) for row in rows] == person.journal
            self.operations.update(OWN_KINDS & {line.kind for line in person.journal})
        self.session.rollback()

    def _switch(self, user: int) -> None:
        person = self.people[self.ids[user]]
        person.is_active = not person.is_active
        self.session.execute(
            update(User)
            .where(User.user_id == self.ids[user])
            .values(is_active=person.is_active)
            .execution_options(synchronize_session=False)
        )

    def _ask_and_undo(self, several: Sequence[Wish]) -> None:
        """The same wishes with other keys, and the caller's savepoint rolled back."""
        commands = [self._command(wish) for wish in several]
        savepoint = self.session.begin_nested()
        execute_each(self.session, commands, now=self.now)
        self._finish(savepoint.rollback, {}, [])

    def _settled(self, commands: Sequence[Command]) -> dict[uuid.UUID, Person]:
        return {user_id: self.people[user_id].at(self.now) for user_id in _users(commands)}

    def _expected(
        self, people: dict[uuid.UUID, Person], commands: Sequence[Command]
    ) -> list[Answer | str]:
        expected: list[Answer | str] = []
        for command in commands:
            try:
                expected.append(people[command.user_id].do(command))
            except Refused as refused:
                expected.append(refused.args[0])
        done = {
            command.user_id
            for command, each in zip(commands, expected, strict=True)
            if isinstance(each, Answer) and not each.replayed
        }
        for user_id in people.keys() - done:
            people[user_id] = self.people[user_id]  # nothing succeeded: nothing due was booked
        return expected

    def _finish(
        self,
        end: Callable[[], None],
        people: dict[uuid.UUID, Person],
        expected: Sequence[Answer | str],
    ) -> None:
        assert people or not expected or any(isinstance(each, str) for each in expected)
        end()
        self.people.update(people)
        books.check_books(self.session, self.ids)
        for row in self.session.execute(_STATE, {"ids": self.ids}):
            user_id, *found = row
            assert found == _state(self.people[user_id])

    def _count(self, outcomes: Sequence[Answer | str]) -> None:
        for each in outcomes:
            kind = each if isinstance(each, str) else "replay" if each.replayed else each.kind
            self.operations[kind] += 1

    def _command(self, wish: Wish) -> Command:
        command = self._wanted(wish)
        self.asked.append(command)
        return command

    def _wanted(self, wish: Wish) -> Command:
        user_id = self.ids[wish.user]
        if wish.kind in {"replay", "reuse"} and self.asked:
            used = self.asked[-1 - wish.pick * 3 % len(self.asked)]
            if wish.kind == "replay":
                return used
            return books.spend(used.user_id, wish.amount, key=used.key)
        others: dict[str, Any] = {"metadata": {"a": wish.pick}} if wish.no else {}
        if wish.kind == "grant":
            expires_at = self.now + dt.timedelta(seconds=wish.seconds) if wish.yes else None
            source = (LotSource.PROMO, LotSource.PURCHASE, LotSource.SUBSCRIPTION)[wish.pick % 3]
            priority = wish.pick if wish.no else None
            return books.grant(
                user_id, 2 * wish.amount, source=source, priority=priority, expires_at=expires_at
            )
        if wish.kind == "adjust":
            return books.adjust(user_id, wish.amount if wish.yes else -wish.amount, **others)
        if wish.kind == "hold":
            return books.open_hold(user_id, wish.amount, 4 * abs(wish.seconds) + 1, **others)
        if wish.kind in {"capture", "release", "renew"}:
            return self._about_a_hold(user_id, wish, others)
        return books.spend(user_id, wish.amount, **others)

    def _about_a_hold(self, user_id: uuid.UUID, wish: Wish, others: dict[str, Any]) -> Command:
        hold_seq = self._some_hold(user_id, wish.pick)
        if wish.kind == "capture":
            if_expired = "retake" if wish.pick % 2 else "refuse"
            amount = wish.amount if wish.pick == 0 else 1 + wish.amount % 12
            return books.capture(
                user_id, hold_seq, amount, final=wish.yes, if_expired=if_expired, **others
            )
        if wish.kind == "release":
            return books.release(user_id, hold_seq, **others)
        return books.renew(user_id, hold_seq, abs(wish.seconds) + 1, **others)

    def _some_hold(self, user_id: uuid.UUID, pick: int) -> int:
        """A hold of the newest ones, or a number that may be one by the time it is asked for."""
        person = self.people[user_id]
        newest = [hold.seq for hold in person.holds[-6:]]
        if newest and pick < 7:
            return newest[-1 - pick % len(newest)]
        return len(person.journal) + 1 + pick % 3


def _users(commands: Sequence[Command]) -> set[uuid.UUID]:
    return {command.user_id for command in commands}


def answer_of(outcome: Result | ExceptionWithErrorType) -> Answer | str:
    """An outcome as the model tells it."""
    if isinstance(outcome, ExceptionWithErrorType):
        return outcome.error_type
    values = asdict(outcome)
    del values["user_id"]
    return Answer(**values)


def _state(person: Person) -> list[Any]:
    return [
        person.booked,
        len(person.journal),
        {str(lot.seq): lot.left for lot in person.lots},
        {
            str(hold.seq): [
                hold.status,
                hold.captured,
                len(hold.credit_lots),
                hold.expires_at.timestamp(),
            ]
            for hold in person.holds
        },
        {str(seq): owed for seq, owed in person.debts.items()},
    ]
