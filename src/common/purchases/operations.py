"""Turns payments into purchases and credits, on the caller's open session; never commits."""

import uuid
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import ColumnElement, exists, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from src.common.accounts.operations import lock_user
from src.common.credits import operations as ledger
from src.common.credits.domain import own_commands
from src.common.credits.domain.commands import STRIPE_ACTOR, Command
from src.common.exceptions import Conflict, Invalid, NotFound
from src.common.models.checkout_order import CheckoutOrder, OrderStatus
from src.common.models.credit_lot import CreditLot
from src.common.models.transaction import Transaction
from src.common.models.user import User
from src.common.purchases import rules, unmatched
from src.common.purchases.locks import lock_payment
from src.common.purchases.money_back import adopt_reversals, has_reversals
from src.common.purchases.orders import find_order, named_by_order, note_status
from src.common.purchases.recorded import names_of
from src.common.purchases.rules import Mismatch, Offer, Payment, Reason, Terms
from src.common.purchases.whose import is_of_another, sees_users
from src.common.sharding.directory import PAYMENT_OF_ANOTHER_USER, note_payment


class _SettledByHand(Exception):
    """Leaves a savepoint: somebody has resolved this payment."""


class PurchaseStatus(StrEnum):
    """What became of a payment."""

    CREDITED = "credited"
    ALREADY_CREDITED = "already_credited"
    UNMATCHED = "unmatched"


@dataclass(frozen=True)
class PurchaseOutcome:
    """What became of a payment, and why where it was not credited."""

    status: PurchaseStatus
    reason: Reason | None = None


def settle_payment(
    session: Session, payment: Payment, terms: Terms, *, cause: str
) -> PurchaseOutcome:
    """Credit a payment once, or note it as unmatched where it must not be credited.

    Every event, the success page and reconciliation lead to this function. The payment's lock and
    the user's row lock make them wait for each other. The unique keys of `transactions` are the
    second guard. `cause` names the event, or whatever else brought the payment here.
    """
    lock_payment(session, payment.payment_intent_id or payment.stripe_session_id)
    if payment.invoice_id is not None:
        lock_payment(session, payment.invoice_id)  # all that a credit note may know of it
    order = find_order(session, payment)
    payment = named_by_order(payment, order)
    owner = order.user_id if order else payment.user_id
    user = lock_user(session, owner) if owner and sees_users(session) else None
    existing = find_purchase(session, payment)
    verdict = (
        rules.judge(payment, order, terms)
        if existing is None
        else _conflict(session, existing, payment, order)
    )
    if existing is not None and verdict is None:
        _complete(session, existing, payment, order)
        return PurchaseOutcome(PurchaseStatus.ALREADY_CREDITED)
    if isinstance(verdict, Offer):
        verdict = _credit(session, user, payment, verdict)
    if verdict is not None:
        if verdict.reason is Reason.NOT_PAID and order is not None:
            note_status(session, order, OrderStatus.PROCESSING)
        unmatched.note(session, payment, verdict, cause)
        return PurchaseOutcome(PurchaseStatus.UNMATCHED, verdict.reason)
    if order is not None:
        note_status(session, order, OrderStatus.PAID, payment.stripe_session_id)
    return PurchaseOutcome(PurchaseStatus.CREDITED)


def end_order(session: Session, payment: Payment, status: OrderStatus) -> bool:
    """Note that a session has expired, or that its delayed payment has failed.

    Nothing opens that order again, but a payment that arrives later is credited all the same.

    Returns:
        Whether anything changed.
    """
    lock_payment(session, payment.payment_intent_id or payment.stripe_session_id)
    order = find_order(session, payment)
    changed = (
        order is not None
        # Another is of a page that nobody was told: Stripe's answer was lost, the order went on.
        and order.stripe_session_id in (None, payment.stripe_session_id)
        and not is_of_another(session, order.user_id, [payment.stripe_session_id])
        and note_status(session, order, status, payment.stripe_session_id)
    )
    if status is OrderStatus.FAILED:
        failure = Mismatch(Reason.NOT_PAID, "The delayed payment failed")
        unmatched.note(session, payment, failure, "payment_failed")
        unmatched.close(session, payment, "the delayed payment failed; nothing was paid")
    return changed


def is_credited(session: Session, transaction: Transaction) -> bool:
    """Whether a lot refers to the purchase, or the opening balance held what it added."""
    if transaction.predates_ledger:
        return True
    lot = exists().where(
        CreditLot.user_id == transaction.user_id,
        CreditLot.transaction_id == transaction.transaction_id,
    )
    return session.execute(select(lot)).scalar_one()


def find_credited(session: Session, payment_intent_id: str) -> Transaction | None:
    """The credited purchase of this PaymentIntent, if there is one."""
    found = session.scalars(
        select(Transaction).where(Transaction.payment_intent_id == payment_intent_id)
    ).one_or_none()
    return found if found is not None and is_credited(session, found) else None


def is_session_credited(session: Session, user_id: uuid.UUID, stripe_session_id: str) -> bool:
    """Whether this user has a credited purchase by this Checkout Session."""
    found = session.scalars(
        select(Transaction).where(
            Transaction.user_id == user_id, Transaction.stripe_session_id == stripe_session_id
        )
    ).one_or_none()
    return found is not None and is_credited(session, found)


def credit_by_hand(
    session: Session, payment: Payment, offer: Offer, *, actor: str
) -> Transaction | None:
    """Write a payment's purchase and give its credits, as somebody decided; the payment is locked.

    A purchase that application code wrote is credited as it is. None where it was credited before.

    Raises:
        NotFound: USER_NOT_FOUND.
        Invalid: BALANCE_LIMIT_EXCEEDED.
    """
    transaction = find_purchase(session, payment)
    if transaction is None:
        if lock_user(session, offer.user_id) is None:
            raise NotFound(f"No user has the id {offer.user_id}", "USER_NOT_FOUND")
        transaction = _write_purchase(session, payment, offer)
    if not credit_transaction(session, transaction, actor=actor):
        return None
    order = find_order(session, payment)
    if order is not None:
        note_status(session, order, OrderStatus.PAID, payment.stripe_session_id)
    return transaction


def credit_transaction(session: Session, transaction: Transaction, *, actor: str) -> bool:
    """Give the credits of a purchase that was written without crediting anybody; whether it was.

    Raises:
        Invalid: BALANCE_LIMIT_EXCEEDED.
    """
    lock_user(session, transaction.user_id)
    if is_credited(session, transaction):
        return False
    _grant(session, transaction.user_id, transaction, actor)
    adopt_reversals(session, transaction)
    return True


def find_purchase(session: Session, payment: Payment) -> Transaction | None:
    """The row that has this payment's session, its PaymentIntent or its invoice.

    Application code may have called it by any of them.
    """
    if not sees_users(session):
        return None
    names = (payment.stripe_session_id, payment.payment_intent_id, payment.invoice_id)
    same: list[ColumnElement[bool]] = [
        Transaction.stripe_session_id.in_([each for each in names if each is not None])
    ]
    if payment.payment_intent_id is not None:
        same.append(Transaction.payment_intent_id == payment.payment_intent_id)
    if payment.invoice_id is not None:
        same.append(Transaction.invoice_id == payment.invoice_id)
    return session.scalars(
        select(Transaction).where(or_(*same)).limit(1).execution_options(populate_existing=True)
    ).one_or_none()


def _conflict(
    session: Session, existing: Transaction, payment: Payment, order: CheckoutOrder | None
) -> Mismatch | None:
    """Why the row with this payment's key does not mean that it was credited; None if it does."""
    if is_of_another(session, existing.user_id, names_of(payment)):
        return Mismatch(Reason.PAYMENT_CONFLICT, "Another user has a payment of one of its names")
    if payment.payment_status == "unpaid":
        return None  # a picture of the session from before it was paid, delivered late
    if not rules.is_same_purchase(existing, payment, order):
        return Mismatch(
            Reason.PAYMENT_CONFLICT,
            f"Transaction {existing.transaction_id} has this payment with other figures",
        )
    if not is_credited(session, existing):
        return Mismatch(
            Reason.TRANSACTION_WITHOUT_CREDIT,
            f"Transaction {existing.transaction_id} was written without crediting anybody",
        )
    return None


def _complete(
    session: Session, existing: Transaction, payment: Payment, order: CheckoutOrder | None
) -> None:
    """Add what application code's own row did not say, and what waited for the payment."""
    if order is not None and payment.payment_status != "unpaid":
        note_status(session, order, OrderStatus.PAID, payment.stripe_session_id)
    unmatched.close(session, payment, "it had been credited before")
    learnt = rules.learnt_from(existing, payment)
    if existing.stripe_account != payment.stripe_account:  # nothing told it before; NULL is our own
        learnt["stripe_account"] = payment.stripe_account
    if learnt:
        for name, value in learnt.items():
            setattr(existing, name, value)
        session.flush()
        adopt_reversals(session, existing)


def _credit(session: Session, user: User | None, payment: Payment, offer: Offer) -> Mismatch | None:
    """Write the purchase and its grant; or say why that cannot be, and leave nothing behind.

    A payment that somebody has settled by hand is seen with what waited for it, after the grant:
    then it is undone. That costs most payments no statement more.
    """
    if user is None:
        return Mismatch(Reason.USER_UNKNOWN, "No user of ours has the metadata's user id")
    try:
        with session.begin_nested():  # the service may delete no purchase (`runtime_role.py`)
            transaction = _write_purchase(session, payment, offer)
            _grant(session, user.user_id, transaction, STRIPE_ACTOR)
            _take_up_what_waited(session, payment, transaction)
    except _SettledByHand:
        row = unmatched.find_settled_by_hand(session, payment)
        assert row is not None  # noqa: S101  nobody reopens it
        return Mismatch(Reason(row.reason), f"Settled by hand: {row.resolution}")
    except Invalid as refusal:
        if refusal.error_type != Reason.BALANCE_LIMIT_EXCEEDED:
            raise
        return Mismatch(Reason.BALANCE_LIMIT_EXCEEDED, refusal.message)
    except Conflict as refusal:
        if refusal.error_type != PAYMENT_OF_ANOTHER_USER:
            raise
        return Mismatch(Reason.PAYMENT_CONFLICT, refusal.message)
    return None


def _take_up_what_waited(session: Session, payment: Payment, transaction: Transaction) -> None:
    """Close what an earlier event left open; count what went back, of this payment or others.

    Most payments have neither, which one look tells.

    Raises:
        _SettledByHand: somebody resolved it, perhaps this very moment.
    """
    look = select(
        unmatched.is_settled_by_hand(payment),
        unmatched.is_open(payment),
        has_reversals(session, transaction),
    )
    is_settled, is_open, is_reversed = session.execute(look).one()
    if is_settled:
        raise _SettledByHand
    if is_open and not unmatched.close(session, payment, "credited when a later event matched"):
        raise _SettledByHand
    if is_reversed:
        adopt_reversals(session, transaction)


def _write_purchase(session: Session, payment: Payment, offer: Offer) -> Transaction:
    names = (payment.stripe_session_id, payment.payment_intent_id, payment.invoice_id)
    note_payment(session.connection(), offer.user_id, *names)
    return session.scalars(
        insert(Transaction)
        .values(
            user_id=offer.user_id,
            stripe_session_id=payment.stripe_session_id,
            payment_intent_id=payment.payment_intent_id,
            invoice_id=payment.invoice_id,
            stripe_account=payment.stripe_account,
            amount_paid_cents=payment.amount_total_cents,
            currency=offer.currency,
            livemode=payment.livemode,
            credits_added=offer.credits,
        )
        .returning(Transaction)
    ).one()


def _grant(session: Session, user_id: uuid.UUID, transaction: Transaction, actor: str) -> None:
    purchase = own_commands.purchase(
        user_id,
        transaction.credits_added,
        transaction_id=transaction.transaction_id,
        stripe_session_id=transaction.stripe_session_id,
        actor=actor,
    )
    ledger.execute(session, [purchase])


def grant_key(stripe_session_id: str) -> str:
    """The idempotency key of the grant for what this session, or other object, paid."""
    return own_commands.purchase_key(stripe_session_id)


def grant_of(payment: Payment, offer: Offer, transaction_id: uuid.UUID) -> Command:
    """What gives a payment's credits, whose purchase gets this id."""
    return own_commands.purchase(
        offer.user_id,
        offer.credits,
        transaction_id=transaction_id,
        stripe_session_id=payment.stripe_session_id,
        actor=STRIPE_ACTOR,
    )
