"""What an operator decides about an unmatched payment, on the caller's open session.

It is settled with that, for good (decision 0031); never commits.
"""

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from src.common.accounts.rules import storable
from src.common.credits.domain.commands import AMOUNT_MAX
from src.common.exceptions import Conflict, Invalid, NotFound
from src.common.models.transaction import Transaction
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.purchases import uncredited, unmatched
from src.common.purchases.locks import lock_payment
from src.common.purchases.operations import credit_by_hand, find_purchase
from src.common.purchases.rules import Offer, Payment
from src.html_pages import money

T = TypeVar("T")

RESOLUTION_LENGTH_MAX = 1_000
_ARRIVED = frozenset({"paid", "no_payment_required"})
_CREDITED_ELSEWHERE = frozenset({"subscription", "setup"})
"""Sessions whose money, if any, comes with an invoice."""


@dataclass(frozen=True)
class Ruling:
    """Who is to get what for a payment, where it does not say so, or says it wrongly."""

    user_id: uuid.UUID | None = None
    credits: int | None = None
    amount_cents: int | None = None
    """Only where Stripe did not say what was paid; currency likewise."""
    currency: str | None = None


def resolve(
    session: Session,
    stripe_object_id: str,
    *,
    resolution: str,
    actor: str,
    ruling: Ruling | None = None,
) -> tuple[UnmatchedPayment, Transaction | None]:
    """Close an unmatched payment: somebody says what was done about it.

    With a `ruling` that is to credit it: the purchase is written, and its credits are given.

    Raises:
        NotFound: UNMATCHED_PAYMENT_NOT_FOUND, USER_NOT_FOUND.
        Conflict: ALREADY_RESOLVED, NOT_CREDITABLE.
        Invalid: VALIDATION_ERROR, BALANCE_LIMIT_EXCEEDED.
    """
    is_storable = resolution == storable(resolution)
    if not 1 <= len(resolution.strip()) <= RESOLUTION_LENGTH_MAX or not is_storable:
        raise _invalid("resolution", f"must be 1 to {RESOLUTION_LENGTH_MAX} characters long")
    row = lock(session, stripe_object_id)
    if row.status != "open":
        raise Conflict(f"Resolved already: {row.resolution}", "ALREADY_RESOLVED")
    purchase = None if ruling is None else _credit(session, row, ruling, actor)
    row.status, row.resolution, row.actor = "resolved", resolution, actor
    row.resolved_at = func.clock_timestamp()
    session.flush()
    session.refresh(row, ["resolved_at"])
    return row, purchase


def find_unmatched(session: Session, stripe_object_id: str) -> UnmatchedPayment:
    """The unmatched payment of this id, an open one first; nothing is written.

    Of a purchase that credited nobody, and of which no event told, the row is made up.

    Raises:
        NotFound: UNMATCHED_PAYMENT_NOT_FOUND.
    """
    name = storable(stripe_object_id)
    written = uncredited.find_unlisted(session, name)
    if written is not None:
        return unmatched.unlisted(written)
    row = session.scalars(_of_name(name)).one_or_none()
    if row is None:
        raise _not_found()
    return row


def _of_name(stripe_object_id: str) -> Select[UnmatchedPayment]:
    return (
        select(UnmatchedPayment)
        .where(UnmatchedPayment.stripe_object_id == stripe_object_id)
        .order_by(UnmatchedPayment.status)
        .limit(1)
    )


def _not_found() -> NotFound:
    return NotFound("No unmatched payment has this id", "UNMATCHED_PAYMENT_NOT_FOUND")


def lock(session: Session, stripe_object_id: str) -> UnmatchedPayment:
    """The row, an open one first; its payment is locked before it, as whoever settles it does.

    Raises:
        NotFound: UNMATCHED_PAYMENT_NOT_FOUND.
        Invalid: VALIDATION_ERROR, an id that no text of the database is.
    """
    if stripe_object_id != storable(stripe_object_id):
        raise _invalid("stripe_object_id", "must be text")
    written = uncredited.find_unlisted(session, stripe_object_id)
    if written is not None:
        lock_payment(session, written.payment_intent_id or written.stripe_session_id)
        unmatched.note_uncredited(session, written)
    statement = _of_name(stripe_object_id)
    row = session.scalars(statement).one_or_none()
    if row is None:
        raise _not_found()
    payment = payment_of(row)
    lock_payment(session, payment.payment_intent_id or payment.stripe_session_id)
    if payment.invoice_id is not None:
        lock_payment(session, payment.invoice_id)
    return session.scalars(
        statement.with_for_update().execution_options(populate_existing=True)
    ).one()


def payment_of(row: UnmatchedPayment) -> Payment:
    """The payment that a row was noted for."""
    said = row.details
    is_invoice = row.stripe_object_id.startswith("in_")
    return Payment(
        stripe_session_id=row.stripe_object_id,
        livemode=row.livemode,
        mode=said.get("mode"),
        payment_status=said.get("payment_status"),
        payment_intent_id=said.get("payment_intent_id"),
        invoice_id=said.get("invoice_id") or (row.stripe_object_id if is_invoice else None),
        stripe_account=said.get("stripe_account"),
        currency=said.get("currency"),
        amount_subtotal_cents=said.get("amount_subtotal_cents"),
        amount_total_cents=said.get("amount_total_cents"),
        env=said.get("env"),
        user_id=_id(said.get("user_id")),
        package_id=said.get("package_id"),
        credits=said.get("credits"),
        order_id=_id(said.get("order_id")),
    )


def _credit(session: Session, row: UnmatchedPayment, ruling: Ruling, actor: str) -> Transaction:
    if "kind" in row.details:
        raise Conflict("This is money back, not a payment", "NOT_CREDITABLE")
    payment = payment_of(row)
    existing = find_purchase(session, payment)
    if existing is None:
        payment, offer = overrule(payment, ruling)
    else:
        offer = _as_written(existing, ruling)
    purchase = credit_by_hand(session, payment, offer, actor=actor)
    if purchase is None:
        raise Conflict("This payment was credited before", "NOT_CREDITABLE")
    return purchase


def _as_written(existing: Transaction, ruling: Ruling) -> Offer:
    """What a purchase that application code wrote says; a ruling may only repeat it."""
    offer = Offer(
        existing.user_id, existing.credits_added, existing.amount_paid_cents, existing.currency
    )
    for name in ("user_id", "credits", "amount_cents", "currency"):
        if getattr(ruling, name) not in (None, getattr(offer, name)):
            raise _invalid(name, f"the purchase is written, with {getattr(offer, name)}")
    return offer


def overrule(payment: Payment, ruling: Ruling) -> tuple[Payment, Offer]:
    """What somebody decides that this payment bought, and the payment with all its figures.

    Who and how much is as the ruling says, else as the metadata does. What Stripe says of the money
    nobody overrules.

    Raises:
        Conflict: NOT_CREDITABLE, no money came, or it comes with an invoice.
        Invalid: VALIDATION_ERROR, a field that nobody says, or a ruling that Stripe contradicts.
    """
    if payment.payment_status not in _ARRIVED or payment.mode in _CREDITED_ELSEWHERE:
        raise Conflict(
            f"Mode {payment.mode}, payment status {payment.payment_status}: "
            "only money that came is credited",
            "NOT_CREDITABLE",
        )
    user_id = ruling.user_id or payment.user_id
    if user_id is None:
        raise _invalid("user", "the payment names none; name one")
    credits_bought = ruling.credits or _whole(payment.credits)
    if credits_bought is None or not 0 < credits_bought <= AMOUNT_MAX:
        raise _invalid("credits", "the payment promises no such number; name one")
    currency = payment.currency.lower() if payment.currency else None
    in_words = partial(money, currency=currency or ruling.currency or "")
    offer = Offer(
        user_id,
        credits_bought,
        _said("amount_cents", payment.amount_total_cents, ruling.amount_cents, in_words),
        _said("currency", currency, ruling.currency),
    )
    return replace(payment, amount_total_cents=offer.amount_cents), offer


def _said(
    field: str, by_stripe: T | None, ruled: T | None, in_words: Callable[[T], str] = str
) -> T:
    """What Stripe said of the money, or, where it said nothing, somebody does."""
    value = ruled if by_stripe is None else by_stripe
    if value is None:
        raise _invalid(field, "Stripe did not say it; name it")
    if ruled not in (None, value):
        raise _invalid(field, f"Stripe says {in_words(value)}")
    return value


def _whole(written: str | None) -> int | None:
    """A number of credits as metadata has it."""
    return int(written) if written and re.fullmatch("[0-9]{1,10}", written) else None


def _id(written: str | None) -> uuid.UUID | None:
    return uuid.UUID(written) if written else None


def _invalid(field: str, problem: str) -> Invalid:
    return Invalid(f"{field}: {problem}", "VALIDATION_ERROR", field=field)
