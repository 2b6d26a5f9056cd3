"""The ledger and its model side by side: the machine that hypothesis drives (`test_model.py`).

Here is what callers ask of the ledger and what Stripe tells it; what else happens to sessions is in
`session_machine.py`.
"""

import datetime as dt
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from sqlalchemy import Connection, Engine, text, update

from src.common.credits.domain.commands import Command
from src.common.credits.operations import execute, execute_each
from src.common.credits.verification.recompute import recompute
from src.common.credits.verification.report import Report
from src.common.database import SessionLocal
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.transaction import Transaction
from src.common.models.user import User
from tests.credits import books, stripe_side
from tests.credits.clock import set_clock
from tests.credits.differential import answer_of
from tests.credits.model import Person
from tests.credits.model_money_back import STAGES, cause, has_gone_back, hear, reallocate
from tests.credits.model_values import Answer, Line, MoneyBack, Payment, Refused
from tests.credits.stripe_side import PACKAGES
from tests.credits.verification.corrupting import corrupt_somewhere
from tests.credits.wishes import Asker, Wish, draw

START = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
PASTS: Sequence[tuple[int, Mapping[int, int]]] = (
    (0, {40: 77}),
    (25, {30: 90, 50: 0}),
    (-25, {}),
)
"""Each user's balance from before the ledger, and what purchases of then cost by their credits."""
USERS = len(PASTS)
CORRUPTIONS = 4
"""Columns of each user's books that are changed at the end, one after the other."""
PAYMENTS_MAX = 6
"""Of a user: each that money went back of is looked at whenever more goes back."""
OWN_KINDS = {
    *("opening", "hold_expiry", "lot_expiry"),
    *("debt_repayment", "clawback", "reinstatement"),
}
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
SELECT kind, amount, captured, related_seq, effective_at,
  (SELECT coalesce(jsonb_object_agg(p.lot_seq, p.amount), '{}') FROM credit_postings p
    WHERE (p.user_id, p.seq) = (e.user_id, e.seq))
FROM credit_entries e WHERE user_id = :id ORDER BY seq
""")

seeds = st.integers(0, 2**32 - 1)
users = st.integers(0, USERS - 1)
picks = st.integers(0, 7)
pauses = st.sampled_from((0, 1, 5, 20, 60, -30))
"""How many seconds the clock has moved meanwhile: backwards too."""


class LedgerMachine(RuleBasedStateMachine):
    """Whatever happens, the database and the model agree and the books balance."""

    start: ClassVar[dt.datetime] = START
    bind: ClassVar[Connection | Engine]
    """Where an example's session works; on a connection nothing of it stays."""
    operations: ClassVar[Counter[str]] = Counter()
    """What happened, over all examples: results, replays and refusals."""

    def __init__(self) -> None:
        super().__init__()
        self.now: dt.datetime = self.start
        self.asker = Asker()
        self.people: dict[uuid.UUID, Person] = {}
        on_connection = isinstance(self.bind, Connection)
        self._all = self.bind.begin_nested() if isinstance(self.bind, Connection) else None
        mode = "create_savepoint" if on_connection else "conditional_savepoint"
        self.session = SessionLocal(bind=self.bind, join_transaction_mode=mode)
        for before, purchases in PASTS:
            user = books.from_before(self.session, before)
            payments = [
                Payment(f"pi_{uuid.uuid4()}", credits_added, cents, None)
                for credits_added, cents in purchases.items()
            ]
            with books.triggers_off(self.session, "transactions"):
                self.session.add_all(
                    Transaction(
                        user_id=user.user_id,
                        stripe_session_id=f"cs_{payment.name}",
                        payment_intent_id=payment.name,
                        amount_paid_cents=payment.paid_cents,
                        credits_added=payment.credits,
                        predates_ledger=True,
                    )
                    for payment in payments
                )
            self.people[user.user_id] = Person(before=before, payments=payments)
        self.session.commit()
        self.ids = list(self.people)

    @rule(seed=seeds, seconds=pauses, undone=st.booleans())
    def ask_at_once(self, seed: int, seconds: int, *, undone: bool) -> None:
        """All or nothing, in one call; perhaps the caller rolls back."""
        self._wait(seconds)
        several = self._draw(seed, 1, 4)
        commands = self._commands(several)
        people, expected = self._expected(commands)
        refusal = next((each for each in expected if isinstance(each, str)), None)
        if refusal is None:
            results = execute(self.session, commands, now=self.now)
            assert list(map(answer_of, results)) == expected
        else:
            people = {}
            with pytest.raises(ExceptionWithErrorType) as refused:
                execute(self.session, commands, now=self.now)
            assert refused.value.error_type == refusal
        self._count(expected if refusal is None else [refusal])
        self._finish(people)
        if undone:
            self._ask_and_undo(several)

    @rule(seed=seeds, seconds=pauses)
    def ask_for_each(self, seed: int, seconds: int) -> None:
        """Each on its own, in one call: the batch."""
        self._wait(seconds)
        commands = self._commands(self._draw(seed, 20, 80))
        people, expected = self._expected(commands)
        outcomes = execute_each(self.session, commands, now=self.now)
        assert list(map(answer_of, outcomes)) == expected
        self._count(expected)
        self._finish(people)

    @rule(seed=seeds, user=users)
    def ask_a_deactivated_account(self, seed: int, user: int) -> None:
        """It spends nothing and opens no hold; all else is as ever."""
        self._switch(user)
        self.ask_for_each(seed, 1)
        self._switch(user)

    @rule(user=users, pick=picks, seconds=pauses, early=st.booleans())
    def buy(self, user: int, pick: int, seconds: int, *, early: bool) -> None:
        """A payment is credited; some of it may have gone back before we heard of it."""
        self._wait(seconds)
        user_id = self.ids[user]
        if len(self.people[user_id].payments) == PAYMENTS_MAX:
            return
        name, package = f"pi_{uuid.uuid4()}", PACKAGES[pick % len(PACKAGES)]
        if early:
            self._tell(user_id, pick, name, package.price_cents)
        stripe_side.pay(self.session, user_id, name, package)
        stripe_side.pay(self.session, user_id, name, package)  # Stripe says so twice
        person = self.people[user_id].at(self.now)
        answer = person.do(stripe_side.grant_of(user_id, package))
        person.payments.append(Payment(name, package.credits, package.price_cents, answer.seq))
        if has_gone_back(person):
            reallocate(person, cause(person, name))
        self._count([answer])
        self._finish({user_id: person})

    @rule(user=users, pick=picks, percent=st.integers(0, 120), seconds=pauses)
    def money_goes_back(self, user: int, pick: int, percent: int, seconds: int) -> None:
        """Stripe says something about a refund, a dispute or a credit note, in whatever order."""
        self._wait(seconds)
        user_id = self.ids[user]
        payments = self.people[user_id].payments
        if payments:
            payment = payments[-1 - pick % len(payments)]
            self._tell(user_id, pick, payment.name, payment.paid_cents * percent // 100)

    @rule(user=users, pick=picks)
    def all_is_used_and_its_money_goes_back(self, user: int, pick: int) -> None:
        """What can no longer be taken back is owed."""
        user_id = self.ids[user]
        self.buy(user, pick, 0, early=False)
        payments = self.people[user_id].payments
        left = self.people[user_id].at(self.now).balance
        if left:
            self._do([books.adjust(user_id, -left)])
        self._tell(user_id, 2 * pick, payments[-1 - pick % len(payments)].name, 98)

    def teardown(self) -> None:
        """The whole journal is the model's, line by line, and verified; damage is found.

        Then nothing stays.
        """
        try:
            self._check_to_the_end()
        finally:
            self.session.close()
            if self._all is not None:
                self._all.rollback()

    def _check_to_the_end(self) -> None:
        for user_id, person in self.people.items():
            rows = self.session.execute(_JOURNAL, {"id": user_id})
            assert [_line_of(*row) for row in rows] == person.journal
            self.operations.update(OWN_KINDS & {line.kind for line in person.journal})
        report = Report()
        recompute(self.session, report, self.ids)
        assert report.first == []
        random = Random(len(self.people[self.ids[0]].journal))  # noqa: S311  the same each time
        for user_id in self.ids * CORRUPTIONS:
            corrupt_somewhere(self.session, user_id, random)

    def _wait(self, seconds: int) -> None:
        self.now += dt.timedelta(seconds=seconds)
        set_clock(self.session, self.now)

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
        commands = self._commands(several)
        savepoint = self.session.begin_nested()
        execute_each(self.session, commands, now=self.now)
        savepoint.rollback()
        self._finish({})

    def _do(self, commands: Sequence[Command]) -> None:
        """Ask for all of them, which none refuses."""
        people, expected = self._expected(commands)
        assert list(map(answer_of, execute(self.session, commands, now=self.now))) == expected
        self._finish(people)

    def _tell(self, user_id: uuid.UUID, pick: int, payment: str, cents: int) -> None:
        """Stripe says something new of this payment, or more of what it said before."""
        known = [each for each in self.people[user_id].money_back if each.payment == payment]
        if known and pick % 2:
            name, kind = known[-1].name, known[-1].kind
        else:
            name, kind = f"re_{uuid.uuid4()}", tuple(STAGES)[pick % 3]
        # One that failed was perhaps canceled: which of them is told first makes no difference.
        statuses = [status for status in STAGES[kind] if status != "canceled"]
        self._hear(user_id, MoneyBack(name, kind, payment, statuses[cents % len(statuses)], cents))

    def _hear(self, user_id: uuid.UUID, said: MoneyBack) -> None:
        stripe_side.tell(self.session, said)
        person = self.people[user_id].copy()
        payment = next((each for each in person.payments if each.name == said.payment), None)
        if hear(person, said) and payment is not None:
            settled = person.at(self.now)
            opens = payment.lot is None and person.opening is None
            if opens and settled.opening is None:
                settled.open()
            if reallocate(settled, cause(settled, payment.name)) or opens:
                person = settled
        self._finish({user_id: person})

    def _expected(
        self, commands: Sequence[Command]
    ) -> tuple[dict[uuid.UUID, Person], list[Answer | str]]:
        """Who will have changed, and what all are told."""
        people = {each.user_id: self.people[each.user_id].at(self.now) for each in commands}
        expected: list[Answer | str] = []
        done: set[uuid.UUID] = set()  # where nothing succeeds, nothing due is booked
        for command in commands:
            try:
                answer = people[command.user_id].do(command)
            except Refused as refused:
                expected.append(refused.args[0])
            else:
                expected.append(answer)
                if not answer.replayed:
                    done.add(command.user_id)
        return {user_id: people[user_id] for user_id in done}, expected

    def _finish(self, people: Mapping[uuid.UUID, Person]) -> None:
        """Commit; nothing differs."""
        self.session.commit()
        self.people.update(people)
        self._check()

    def _check(self) -> None:
        books.check_books(self.session, self.ids)
        for row in self.session.execute(_STATE, {"ids": self.ids}):
            user_id, *found = row
            assert found == _state(self.people[user_id])

    def _count(self, outcomes: Sequence[Answer | str]) -> None:
        for each in outcomes:
            kind = each if isinstance(each, str) else "replay" if each.replayed else each.kind
            self.operations[kind] += 1

    def _draw(self, seed: int, least: int, most: int) -> list[Wish]:
        return draw(Random(seed), least, most, users=USERS)  # noqa: S311  to be repeatable

    def _commands(self, wishes: Sequence[Wish]) -> list[Command]:
        return [
            self.asker.command(wish, user_id, self.people[user_id], self.now)
            for wish in wishes
            for user_id in [self.ids[wish.user]]
        ]


def _line_of(*columns: Any) -> Line:
    """A row of `_JOURNAL` as the model tells it."""
    kind, amount, captured, related_seq, effective_at, postings = columns
    lots = {int(seq): moved for seq, moved in postings.items()}
    return Line(kind, amount, captured, related_seq, effective_at, lots)


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
