"""What becomes of each event of a batch, decided purely from what the tables say.

The rules are everybody's own (`purchases/rules.py`, `decide_each`). What they do not decide alone,
because something waits, went back, or contradicts, is left to the road of single events.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from src.common.credits.domain.book import Book
from src.common.credits.domain.commands import Result
from src.common.credits.domain.decisions import decide_each
from src.common.models.checkout_order import CheckoutOrder
from src.common.models.transaction import Transaction
from src.common.purchases import rules
from src.common.purchases.operations import grant_of
from src.common.purchases.rules import Mismatch, Offer, Payment, Reason, Terms
from src.common.stripe.batches.known import Known, Locked
from src.common.stripe.batches.readings import Reading
from src.common.stripe.inbox import EventAnswer


@dataclass(frozen=True, slots=True)
class Purchase:
    """A purchase to be written, and what its lot is granted by."""

    transaction_id: uuid.UUID
    payment: Payment
    offer: Offer


@dataclass(slots=True)
class Decided:
    """What a batch comes to; events are numbered by their place in it."""

    answers: dict[int, EventAnswer] = field(default_factory=dict[int, EventAnswer])
    """Who has none goes by itself."""
    copies: set[int] = field(default_factory=set[int])
    """Of events that were settled before: nothing is written about them."""
    purchases: dict[int, Purchase] = field(default_factory=dict[int, Purchase])
    unmatched: dict[int, Mismatch] = field(default_factory=dict[int, Mismatch])
    paid: dict[uuid.UUID, int] = field(default_factory=dict[uuid.UUID, int])
    """Orders, by whose payment."""
    books: list[Book] = field(default_factory=list[Book])


def decide(
    readings: Sequence[Reading], known: Known, locked: Locked, terms: Terms, *, are_stored: bool
) -> Decided:
    """Decide each event that nobody else has anything to do with.

    Of events that `are_stored` the row is locked; others are copies where there is a row.
    """
    decided = Decided()
    for place, reading in enumerate(readings):
        key = (reading.event.livemode, reading.event.id)
        if known.events.get(key):
            decided.answers[place] = EventAnswer.ALREADY_PROCESSED
            decided.copies.add(place)
        elif key in locked.events if are_stored else key not in known.events:
            answer = _answer(place, reading, known, locked, terms, decided)
            if answer is not None:
                decided.answers[place] = answer
    _credit(known, decided)
    return decided


def _answer(
    place: int,
    reading: Reading,
    known: Known,
    locked: Locked,
    terms: Terms,
    decided: Decided,
) -> EventAnswer | None:
    """What becomes of an event that is not settled; None where it goes by itself."""
    if reading.known_payment_intent_id is not None:
        is_known = _is_known(reading.known_payment_intent_id, reading.event.account, known)
        return EventAnswer.ALREADY_PROCESSED if is_known else None
    payment = reading.payment
    if payment is None:
        return EventAnswer.IGNORED
    order = _order_of(payment, known)
    is_others = order is not None and order.order_id in decided.paid
    if is_others or reading.name not in locked.names or _is_troubled(reading, known):
        return None
    # Not so where somebody else has the user's row, nor where there is no such user.
    may_credit = payment.user_id in locked.user_ids
    rows = _written_for(reading, known)
    if not rows:
        verdict = rules.judge(payment, order, terms)
        if isinstance(verdict, Mismatch):
            return _note(place, verdict, order, decided)
        if not may_credit or payment.user_id in known.reversed_users:
            return None
        decided.purchases[place] = Purchase(uuid.uuid4(), payment, verdict)
    elif not may_credit or len(rows) > 1 or not _says_all(*rows[0], payment, order):
        return None
    if order is not None:
        decided.paid[order.order_id] = place
    return EventAnswer.ALREADY_PROCESSED if rows else EventAnswer.PROCESSED


def _note(
    place: int, mismatch: Mismatch, order: CheckoutOrder | None, decided: Decided
) -> EventAnswer | None:
    """An order that is not paid yet moves on too: that is left to the road of single events."""
    if mismatch.reason is Reason.NOT_PAID and order is not None:
        return None
    decided.unmatched[place] = mismatch
    return EventAnswer.UNMATCHED


def _is_troubled(reading: Reading, known: Known) -> bool:
    return not reading.names.isdisjoint(known.troubled)


def _credit(known: Known, decided: Decided) -> None:
    """Give the credits of what was bought, in the order of the events.

    Whom the ledger refuses, or has credited by this very key, goes by itself.
    """
    bought = decided.purchases
    commands = [grant_of(each.payment, each.offer, each.transaction_id) for each in bought.values()]
    outcomes, decided.books = decide_each(known.books, commands)
    for place, outcome in zip(tuple(bought), outcomes, strict=True):
        if not isinstance(outcome, Result) or outcome.replayed:
            del bought[place], decided.answers[place]
            decided.paid = {order: by for order, by in decided.paid.items() if by != place}


def _is_known(payment_intent_id: str, account: str | None, known: Known) -> bool:
    """Whether the PaymentIntent has a credited purchase, noted as of this account."""
    return any(
        is_credited and row.payment_intent_id == payment_intent_id and row.stripe_account == account
        for row, is_credited in known.purchases.get(payment_intent_id, ())
    )


def _order_of(payment: Payment, known: Known) -> CheckoutOrder | None:
    named = known.orders.get(payment.order_id) if payment.order_id else None
    return named or known.orders.get(payment.stripe_session_id)


def _written_for(reading: Reading, known: Known) -> list[tuple[Transaction, bool]]:
    """The rows that have one of the payment's names."""
    found = {
        row.transaction_id: (row, is_credited)
        for name in reading.names
        for row, is_credited in known.purchases.get(name, ())
    }
    return list(found.values())


def _says_all(
    row: Transaction,
    is_credited: bool,  # noqa: FBT001  as `Known` has it
    payment: Payment,
    order: CheckoutOrder | None,
) -> bool:
    """Whether the payment was credited by this row, and tells nothing that the row does not."""
    return (
        is_credited
        and payment.payment_status != "unpaid"
        and payment.payment_intent_id in (None, row.payment_intent_id)
        and row.livemode is not None
        and row.stripe_account == payment.stripe_account
        and rules.is_same_purchase(row, payment, order)
    )
