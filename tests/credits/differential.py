"""The pure rules and the model side by side, with nothing underneath: one user's life at a time.

What is written is kept as the database keeps it: for every step the book is read anew, brought to
its instant, and thrown away where the step is refused or changes nothing.
"""

import datetime as dt
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from msgspec import structs

from src.common.credits.domain import reversals, rules
from src.common.credits.domain.book import Book, Entry, Original
from src.common.credits.domain.commands import STRIPE_ACTOR, Command, Result
from src.common.credits.domain.decisions import decide_each
from src.common.credits.domain.own_commands import Purchase
from src.common.credits.domain.reversals import LotHistory, credits_to_be_back
from src.common.credits.domain.reversed_money import money_back
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.stripe_reversal import ReversalKind, StripeReversal
from src.common.purchases.reversals import Reversal, supersedes
from tests.credits.model import Person
from tests.credits.model_money_back import STAGES, hear, reallocate
from tests.credits.model_values import Answer, Line, MoneyBack, Payment, Refused
from tests.credits.wishes import COMMANDS, Asker, Wish

START = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
LONG_AGO = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
USER = uuid.UUID(int=1)
BALANCE_MAX = 500
OPEN_HOLDS_MAX = 5
"""Both so low that they are reached; the test tells the rules."""
KINDS = (
    *COMMANDS,
    *("buy", "buy", "money_back", "money_back", "money_back", "money_back"),
    *("wait", "wait", "wait", "foresee", "open", "switch"),
)
PAUSES = (0, 1, 5, 20, 60, -30)
CURRENCY = "usd"


def answer_of(outcome: Result | ExceptionWithErrorType) -> Answer | str:
    """An outcome as the model tells it."""
    if isinstance(outcome, ExceptionWithErrorType):
        return outcome.error_type
    return Answer(
        outcome.seq,
        outcome.kind,
        outcome.amount,
        outcome.captured,
        outcome.balance,
        outcome.created_at,
        outcome.expires_at,
        outcome.replayed,
        outcome.spent,
    )


@dataclass
class Ours:
    """The rules, and what they have written."""

    book: Book
    payments: list[Payment]
    reversals: Mapping[str, StripeReversal] = field(default_factory=dict[str, StripeReversal])
    entries: list[Entry] = field(default_factory=list[Entry])
    histories: dict[int, LotHistory] = field(default_factory=dict[int, LotHistory])

    def at(self, now: dt.datetime) -> Book:
        """The book as it is then, to be kept or thrown away."""
        book = structs.replace(
            self.book,
            now=max(now, self.book.now),
            lots={seq: structs.replace(lot) for seq, lot in self.book.lots.items()},
            holds={seq: structs.replace(hold) for seq, hold in self.book.holds.items()},
            debts=dict(self.book.debts),
            answers=dict(self.book.answers),
            originals={
                entry.seq: Original(
                    entry.seq,
                    entry.kind,
                    entry.amount,
                    entry.actor,
                    {line.lot_seq: line.amount for line in entry.postings},
                )
                for entry in self.entries
            },
            undone={seq: dict(moved) for seq, moved in self.book.undone.items()},
            entries=[],
            new_lots=set(),
            new_holds=set(),
            changed_holds=set(),
            changed_debts=set(),
            is_changed=False,
        )
        return rules.settle(book)

    def keep(self, book: Book) -> None:
        """Write what was decided."""
        for entry in book.entries:
            for line in entry.postings:
                before = self.histories.get(line.lot_seq, LotHistory())
                self.histories[line.lot_seq] = before.after(entry.kind, line.amount)
        self.entries += book.entries
        self.book = book

    def ask(self, command: Command, now: dt.datetime) -> Answer | str:
        """Put a command to the rules."""
        book = self.at(now)
        [outcome], _ = decide_each({USER: book}, [command])
        if book.is_changed:
            self.keep(book)
        return answer_of(outcome)

    def open(self, now: dt.datetime) -> None:
        """Write the opening entry, perhaps of 0, if there is none."""
        if self.book.opening_seq is None:
            book = self.at(now)
            if book.opening_seq is None:
                rules.write_late_opening(book)
            self.keep(book)

    def hear(self, said: Reversal, about: int | None, now: dt.datetime) -> list[Answer | str]:
        """Note what Stripe says, if it is news, and recompute what money back takes."""
        rows = dict(self.reversals)
        known = rows.get(said.reversal_id)
        if known is None or supersedes(said, known):
            rows[said.reversal_id] = StripeReversal(
                kind=str(said.kind),
                payment_intent_id=said.payment_intent_id,
                status=said.status,
                amount_cents=said.amount_cents,
                currency=said.currency,
                moved_cents=said.moved_cents,
            )
        book = self.at(now)
        try:
            entries = reversals.reallocate(
                book,
                self.histories,
                self._to_be_back(book, rows),
                key="~reversal",
                actor="system:test",
                related_seq=about,
            )
        except ExceptionWithErrorType as refusal:
            return [refusal.error_type]
        self.reversals = rows
        if entries:
            self.keep(book)
        return [answer_of(rules.result_of(book, entry)) for entry in entries]

    def _to_be_back(self, book: Book, rows: Mapping[str, StripeReversal]) -> dict[int, int]:
        wanted = Counter[int]()
        for payment in self.payments:
            lot = book.opening_seq if payment.lot is None else payment.lot
            of_payment = [row for row in rows.values() if row.payment_intent_id == payment.name]
            if lot is not None and of_payment:
                cents = money_back(of_payment, CURRENCY).total_cents
                wanted[lot] += credits_to_be_back(payment.credits, payment.paid_cents, cents)
        return wanted


class Life:
    """One user's life, told to the rules and to the model."""

    def __init__(self, before: int, historic: Sequence[Payment]) -> None:
        """`before` and `historic` are from before the ledger."""
        book = Book(USER, before, 0, is_active=True, now=LONG_AGO)
        self.ours = Ours(book, list(historic))
        self.person = Person(
            before=before,
            payments=list(historic),
            balance_max=BALANCE_MAX,
            holds_max=OPEN_HOLDS_MAX,
        )
        self.now = START
        self.asker = Asker()
        self.happened = Counter[str]()
        self.lines_compared = 0

    def live(self, wishes: Sequence[Wish]) -> None:
        """Let all of it happen; after each the two agree in everything."""
        for wish in wishes:
            if wish.kind in COMMANDS:
                self._ask(self.asker.command(wish, USER, self.person, self.now))
            else:
                getattr(self, f"_{wish.kind}")(wish)
            self._compare()

    def _ask(self, command: Command) -> Answer | str:
        person = self.person.at(self.now)
        try:
            expected = person.do(command)
        except Refused as refused:
            expected = refused.args[0]
        assert self.ours.ask(command, self.now) == expected
        if isinstance(expected, str):
            self.happened[expected] += 1
        elif expected.replayed:
            self.happened["replay"] += 1
        else:
            self.person = person
        return expected

    def _buy(self, wish: Wish) -> None:
        """A payment is credited; some of it may have gone back before it came."""
        lasts = dt.timedelta(seconds=abs(wish.seconds) + 1) if wish.pick % 2 else None
        grant = Purchase(
            user_id=USER,
            key=f"~purchase:cs_{len(self.person.journal)}",
            actor=STRIPE_ACTOR,
            amount=2 * wish.amount,
            transaction_id=uuid.uuid4(),
            priority=wish.pick if wish.no else None,
            expires_at=max(self.now, self.person.last_instant) + lasts if lasts else None,
        )
        answer = self._ask(grant)
        if isinstance(answer, str):
            return
        paid_cents = 0 if wish.pick == 0 else 3 * wish.amount + wish.pick
        payment = Payment(grant.key, 2 * wish.amount, paid_cents, answer.seq)
        self.ours.payments.append(payment)
        self.person.payments.append(payment)
        if wish.yes:
            self._money_back(replace(wish, pick=0, no=False))

    def _money_back(self, wish: Wish) -> None:
        """Stripe says something of a refund, a dispute or a credit note, in whatever order."""
        if not self.person.payments:
            return
        if wish.no and self.person.money_back:
            known = self.person.money_back[-1 - wish.pick % len(self.person.money_back)]
            name, kind = known.name, known.kind
            payment = next(each for each in self.person.payments if each.name == known.payment)
        else:
            name = f"re_{len(self.person.money_back)}"
            kind = tuple(STAGES)[wish.amount % len(STAGES)]
            payment = self.person.payments[-1 - wish.pick % len(self.person.payments)]
        statuses = tuple(STAGES[kind])
        status = statuses[abs(wish.seconds) % len(statuses)]
        cents = payment.paid_cents * min(wish.amount, 30) // 24
        if payment.lot is None:
            self._open(wish)
        about = self.person.opening if payment.lot is None else payment.lot
        said = Reversal(
            livemode=False,
            reversal_id=name,
            kind=ReversalKind(kind),
            status=status,
            amount_cents=cents,
            currency=CURRENCY,
            payment_intent_id=payment.name,
        )
        person = self.person.at(self.now)
        hear(person, MoneyBack(name, kind, payment.name, status, cents))
        expected: list[Answer] | list[str]
        try:
            expected = reallocate(person, about)
        except Refused as refused:
            expected = [refused.args[0]]
        assert self.ours.hear(said, about, self.now) == expected
        self.happened["forgiven"] += person.forgiven
        if expected == ["BALANCE_LIMIT_EXCEEDED"]:
            self.happened["money back that does not fit"] += 1
        elif expected:
            self.person = person
        else:
            self.person.money_back = person.money_back

    def _open(self, _: Wish) -> None:
        """The opening entry is written: by the import, or because a historic purchase needs it."""
        is_from_before = self.person.before or any(
            payment.lot is None for payment in self.person.payments
        )
        if is_from_before and self.person.opening is None:
            self.ours.open(self.now)
            self.person = self.person.at(self.now)
            if self.person.opening is None:
                self.person.open()

    def _wait(self, wish: Wish) -> None:
        self.now += dt.timedelta(seconds=PAUSES[wish.amount % len(PAUSES)])

    def _switch(self, _: Wish) -> None:
        """The account is deactivated, or activated again."""
        self.ours.book.is_active = self.person.is_active = not self.person.is_active

    def _foresee(self, wish: Wish) -> None:
        """What somebody who looks now or later is told, with nothing written."""
        then = self.now + dt.timedelta(seconds=3 * wish.seconds)
        book, person = self.ours.at(then), self.person.at(then)
        assert (book.balance, book.held, book.debt) == (
            person.balance,
            person.held,
            sum(person.debts.values()),
        )
        assert [line_of(entry) for entry in book.entries] == person.journal[self.lines_compared :]

    def _compare(self) -> None:
        book, person = self.ours.book, self.person
        new = person.journal[self.lines_compared :]
        assert [line_of(entry) for entry in self.ours.entries[self.lines_compared :]] == new
        self.lines_compared += len(new)
        self.happened.update(line.kind for line in new)
        assert (book.balance, book.version) == (person.booked, len(person.journal))
        assert {lot.seq: lot.remaining for lot in book.lots.values()} == {
            lot.seq: lot.left for lot in person.lots
        }
        assert [
            (hold.seq, hold.amount, hold.captured, hold.status, hold.expires_at)
            for hold in book.holds.values()
        ] == [
            (hold.seq, len(hold.credit_lots), hold.captured, hold.status, hold.expires_at)
            for hold in person.holds
        ]
        assert book.debts == person.debts
        assert 0 <= person.balance + person.held <= BALANCE_MAX
        assert not book.debt or not book.balance or not person.journal


def line_of(entry: Entry) -> Line:
    """An entry as the model tells it."""
    moved = {line.lot_seq: line.amount for line in entry.postings}
    return Line(
        entry.kind.value,
        entry.amount,
        entry.captured,
        entry.related_seq,
        entry.effective_at,
        moved,
    )
