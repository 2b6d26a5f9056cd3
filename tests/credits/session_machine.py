"""What else happens to sessions, side by side with the model: the rest of the machine's rules.

Users from before the ledger are imported at random instants, the worker books what has expired,
application code assigns balances, merges copies, opens savepoints and has hooks.
"""

import datetime as dt
import pickle
import uuid
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule
from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction, make_transient, sessionmaker

from src.common.credits.due import expire_due
from src.common.credits.opening.opening_import import import_openings
from src.common.credits.operations import execute_each
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.transaction import Transaction
from src.common.models.user import User
from tests.credits import stripe_side
from tests.credits.differential import answer_of
from tests.credits.machine import PAYMENTS_MAX, LedgerMachine, pauses, picks, seeds, users
from tests.credits.model import Person
from tests.credits.model_money_back import cause, has_gone_back, reallocate
from tests.credits.model_values import Payment, Refused
from tests.credits.stripe_side import PACKAGES
from tests.credits.unit_of_work import UnitOfWork
from tests.credits.wishes import draw

STEPS = ("assign", "assign", "flush", "ask", "savepoint", "pickle", "merge")
CHANGES = (0, 1, -1, 5, -5, 30, -30)
"""Of a balance, by assignment."""
DEPTH_MAX = 2
"""Of savepoints."""


class SessionMachine(LedgerMachine):
    """Whatever sessions do, the database and the model agree and the books balance."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded = {user_id: self.session.get_one(User, user_id) for user_id in self.ids}
        self.stale: set[uuid.UUID] = set()
        """Whom another session has written to since ours has."""
        self.pickled: dict[uuid.UUID, bytes] = {}

    @rule(seconds=pauses)
    def everybody_is_imported(self, seconds: int) -> None:
        """Who is from before the ledger and has no opening entry yet gets it, in other sessions."""
        self._wait(seconds)
        imported: dict[uuid.UUID, Person] = {}
        for user_id, person in self.people.items():
            is_historic = any(payment.lot is None for payment in person.payments)
            if person.opening is None and (person.before or is_historic):
                imported[user_id] = person.at(self.now)
                if imported[user_id].opening is None:
                    imported[user_id].open()
        for report in import_openings(self._others(), batch_size=2):
            assert report.not_opened == 0
        self._finish_elsewhere(imported)

    @rule(seconds=pauses)
    def the_worker_books(self, seconds: int) -> None:
        """Whoever has a lot or a hold that has expired, in another session."""
        self._wait(seconds)
        due = {
            user_id: person.at(self.now)
            for user_id, person in self.people.items()
            if has_due(person, self.now)
        }
        with self._others().begin() as session:
            booked = expire_due(session, now=self.now)
        assert booked == len(due)
        self._finish_elsewhere(due)

    @rule(user=users, seed=seeds, seconds=pauses, hook=st.sampled_from((None, "flush", "commit")))
    def unit_of_work(self, user: int, seed: int, seconds: int, hook: str | None) -> None:
        """Application code and a loaded user, until it commits or is refused."""
        self._wait(seconds)
        random = Random(seed)  # noqa: S311  to be repeatable
        work = UnitOfWork(self.ids[user], self.people[self.ids[user]], self.now)
        if random.random() < 1 / 2:
            self._refresh(work.user_id)
        try:
            self._run(work, random)
            self._commit(work, hook, random.choice(CHANGES))
        except Refused as refused:
            self._count([refused.args[0]])
            self._roll_back()
            self._finish({})
        else:
            self._count(["unit of work"])
            self._finish({work.user_id: work.person})

    @rule(user=users, pick=picks, seed=seeds, seconds=pauses)
    def application_code_credits_a_purchase(
        self, user: int, pick: int, seed: int, seconds: int
    ) -> None:
        """The document's own pattern, perhaps with another sum, perhaps with operations beside."""
        self._wait(seconds)
        user_id, random = self.ids[user], Random(seed)  # noqa: S311  to be repeatable
        if len(self.people[user_id].payments) == PAYMENTS_MAX:
            return
        name, package = f"pi_{uuid.uuid4()}", PACKAGES[pick % len(PACKAGES)]
        if random.random() < 1 / 2:
            self._tell(user_id, pick, name, package.price_cents)
        person = self.people[user_id].at(self.now)
        answer = person.do(stripe_side.grant_of(user_id, package))
        payment = Payment(name, package.credits, package.price_cents, answer.seq)
        person.payments.append(payment)
        if has_gone_back(person):
            reallocate(person, cause(person, name))
        wrong = random.choice((0, 0, 0, 1, -1))
        work = UnitOfWork(user_id, person, self.now, is_ambiguous=wrong != 0)
        try:
            self._write_purchase(user_id, payment, wrong, random)
            if random.random() < 1 / 2:
                self._ask(work, random)
            _alike(self.session.commit, work.commit)
        except Refused as refused:
            self._count([refused.args[0]])
            self._roll_back()
            self._finish({})
        else:
            self._count(["purchase of application code"])
            self._finish({user_id: work.person})

    def _write_purchase(
        self, user_id: uuid.UUID, payment: Payment, wrong: int, random: Random
    ) -> None:
        """The row and the balance, in any order, with flushes between them."""

        def add_row() -> None:
            row = Transaction(
                user_id=user_id,
                stripe_session_id=f"cs_{payment.name}",
                payment_intent_id=payment.name,
                amount_paid_cents=payment.paid_cents,
                credits_added=payment.credits,
            )
            self.session.add(row)

        def add_credits() -> None:
            self.loaded[user_id].credits_balance += payment.credits + wrong

        for step in random.sample((add_row, add_credits), 2):
            step()
            if random.random() < 1 / 2:
                self.session.flush()

    def _run(self, work: UnitOfWork, random: Random, depth: int = 0) -> None:
        """Some steps."""
        for _ in range(random.randint(1, 5)):
            step = random.choice(STEPS)
            if step == "savepoint":
                self._savepoint(work, random, depth + 1)
            else:
                getattr(self, f"_{step}")(work, random)
            if step != "ask":  # which counts what was answered
                self._count([step])
            self._check_shown(work)

    def _assign(self, work: UnitOfWork, random: Random) -> None:
        change = random.choice(CHANGES)
        self.loaded[work.user_id].credits_balance += change
        work.assigned += change

    def _flush(self, work: UnitOfWork, _: Random) -> None:
        _alike(self.session.flush, work.flush)

    def _ask(self, work: UnitOfWork, random: Random) -> None:
        commands = [
            command
            for wish in draw(random, 1, 3, users=1)
            for command in [self.asker.command(wish, work.user_id, work.person, self.now)]
            if command.user_id == work.user_id
        ]
        outcomes = _alike(
            lambda: list(map(answer_of, execute_each(self.session, commands, now=self.now))),
            lambda: work.ask(commands),
        )
        self._count(outcomes)

    def _savepoint(self, work: UnitOfWork, random: Random, depth: int) -> None:
        if depth > DEPTH_MAX:
            return
        opened: list[SessionTransaction] = []
        _alike(lambda: opened.append(self.session.begin_nested()), work.flush)
        before = work.copy()
        self._run(work, random, depth)
        if random.random() < 1 / 2:
            _alike(opened[0].commit, work.flush)
        else:
            opened[0].rollback()
            work.return_to(before)

    def _pickle(self, work: UnitOfWork, _: Random) -> None:
        """Keep a copy for later, as a cache does."""
        user = self.loaded[work.user_id]
        if not work.assigned:
            assert user.email  # loads what a rollback expired
            assert user.credits_version >= 0
            self.pickled[work.user_id] = pickle.dumps(user)

    def _merge(self, work: UnitOfWork, random: Random) -> None:
        """A copy comes back, however old; its holder has changed the name, perhaps the balance."""
        if work.user_id not in self.pickled:
            return
        change, kind = random.choice(CHANGES), random.choice(("pickled", "transient", "built anew"))
        copy = pickle.loads(self.pickled[work.user_id])  # noqa: S301  pickled here
        if kind == "transient":
            make_transient(copy)
        elif kind == "built anew":  # of plain values: nobody knows what was changed
            names = ("user_id", "email", "password_hash", "credits_balance", "credits_version")
            copy = User(**{name: getattr(copy, name) for name in names})
        copy.first_name, copy.is_active = f"Ada {random.random()}", work.person.is_active
        copy.credits_balance += change
        _alike(lambda: self.session.merge(copy), work.flush)
        work.assigned += 0 if kind == "built anew" else change

    def _commit(self, work: UnitOfWork, hook: str | None, change: int) -> None:
        """Commit; perhaps a hook of the application changes the balance meanwhile."""
        user = self.loaded[work.user_id]

        def give() -> None:
            user.credits_balance += change

        def expected() -> None:
            work.flush(by_hook=change if hook == "flush" else 0)
            work.commit()
            if hook == "commit":
                work.assigned = change
                work.commit()

        user.first_name = f"Grace {change}"  # there is something to flush
        with _listening(self.session, hook, give):
            _alike(self.session.commit, expected)

    def _switch(self, user: int) -> None:
        super()._switch(user)
        self.session.commit()
        self.session.refresh(self.loaded[self.ids[user]], ["is_active"])

    def _refresh(self, user_id: uuid.UUID) -> None:
        self.session.refresh(self.loaded[user_id])
        self.stale.discard(user_id)

    def _roll_back(self) -> None:
        """Everything loaded is read anew."""
        self.session.rollback()
        self.stale.clear()

    def _finish(self, people: Mapping[uuid.UUID, Person]) -> None:
        """Loaded users show what was booked."""
        self.stale -= {
            user_id
            for user_id, person in people.items()
            if len(person.journal) != len(self.people[user_id].journal)
        }
        super()._finish(people)
        for user_id in self.loaded.keys() - self.stale:
            self._check_shown(UnitOfWork(user_id, self.people[user_id], self.now))

    def _finish_elsewhere(self, people: Mapping[uuid.UUID, Person]) -> None:
        super()._finish(people)
        self.stale |= people.keys()

    def _check_shown(self, work: UnitOfWork) -> None:
        user = self.loaded[work.user_id]
        if work.user_id not in self.stale:
            assert (user.credits_balance, user.credits_version) == work.shown

    def _others(self) -> sessionmaker[Session]:
        return sessionmaker(self.bind, join_transaction_mode="create_savepoint")


def has_due(person: Person, now: dt.datetime) -> bool:
    """Whether a lot or a hold has expired by then that is not booked."""
    return any(lot.left and lot.dies_at <= now for lot in person.lots) or any(
        hold.status == "open" and hold.expires_at <= now for hold in person.holds
    )


def _alike(ours: Callable[[], Any], expected: Callable[[], Any]) -> Any:
    """Both do the same, or are refused alike; then `Refused` is raised."""
    refusal: Refused | None = None
    answer: Any = None
    try:
        answer = expected()
    except Refused as refused:
        refusal = refused
    if refusal is None:
        found = ours()
        assert answer is None or found == answer
        return answer
    with pytest.raises(ExceptionWithErrorType) as caught:
        ours()
    assert caught.value.error_type == refusal.args[0]
    raise refusal


@contextmanager
def _listening(session: Session, hook: str | None, work: Callable[[], None]) -> Generator[None]:
    """Have a hook of the application do the work once, before the flush or the commit."""
    done: list[bool] = []

    def listener(*_: object) -> None:
        if not done:
            done.append(True)
            work()

    if hook is not None:
        event.listen(session, f"before_{hook}", listener)
    try:
        yield
    finally:
        if hook is not None:
            event.remove(session, f"before_{hook}", listener)
