"""Turning payments into purchases and credits, on the caller's open session; never commits."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import exists, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from src.common.accounts.operations import lock_user
from src.common.credits import operations as ledger
from src.common.credits.commands import Grant
from src.common.exceptions import Invalid
from src.common.models.credit_lot import CreditLot, LotSource
from src.common.models.transaction import Transaction
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.models.user import User
from src.common.pagination import Page, decode_cursor, encode_cursor
from src.common.purchases import rules
from src.common.purchases.packages import Package
from src.common.purchases.rules import CheckoutPayment, Mismatch, Reason


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


def settle_checkout(
    session: Session,
    payment: CheckoutPayment,
    *,
    env: str,
    livemode: bool | None,
    event_id: str,
) -> PurchaseOutcome:
    """Credit a paid Checkout Session, once; note any other as an unmatched payment.

    The one function every event about the session leads to. The user's row lock puts all
    deliveries of one payment in a queue; the unique keys of `transactions` are the second wall.
    `env` and `livemode` as in `rules.judge`; `event_id` is noted with an unmatched payment.
    """
    user = lock_user(session, payment.user_id) if payment.user_id else None
    existing = _find_purchase(session, payment)
    verdict = rules.judge(payment, env=env, livemode=livemode)
    if isinstance(verdict, Package) and existing is not None:
        conflict = _conflict(session, existing, payment, verdict)
        if conflict is None:
            return PurchaseOutcome(PurchaseStatus.ALREADY_CREDITED)
        verdict = conflict
    if isinstance(verdict, Package):
        verdict = _credit(session, user, payment, verdict) or verdict
    if isinstance(verdict, Mismatch):
        if verdict.reason is Reason.NOT_PAID and existing is not None:
            # A picture of the session from before it was paid, delivered late.
            return PurchaseOutcome(PurchaseStatus.ALREADY_CREDITED)
        _note_unmatched(session, payment, verdict, event_id)
        return PurchaseOutcome(PurchaseStatus.UNMATCHED, verdict.reason)
    _resolve_unmatched(session, payment)
    return PurchaseOutcome(PurchaseStatus.CREDITED)


def list_transactions(
    session: Session, user_id: uuid.UUID, *, cursor: str | None, limit: int
) -> Page[Transaction]:
    """One page of a user's purchases, newest first; a range scan at any depth.

    Raises:
        Invalid: VALIDATION_ERROR, the cursor is not one of ours.
    """
    statement = (
        select(Transaction)
        .where(Transaction.user_id == user_id)
        .order_by(Transaction.created_at.desc(), Transaction.transaction_id.desc())
        .limit(limit + 1)
    )
    if cursor is not None:
        last_seen = tuple_(*decode_cursor(cursor))
        statement = statement.where(
            tuple_(Transaction.created_at, Transaction.transaction_id) < last_seen
        )
    rows = session.scalars(statement).all()
    items = rows[:limit]
    more = len(rows) > limit
    last = items[-1] if more else None
    return Page(items, encode_cursor(last.created_at, last.transaction_id) if last else None)


def open_unmatched_payments(session: Session, limit: int) -> Sequence[UnmatchedPayment]:
    """The payments that wait for somebody to look at them, oldest first."""
    return session.scalars(
        select(UnmatchedPayment)
        .where(UnmatchedPayment.status == "open")
        .order_by(UnmatchedPayment.created_at)
        .limit(limit)
    ).all()


def count_open_unmatched_payments(session: Session) -> int:
    """How many payments wait for somebody to look at them."""
    return session.scalars(select(func.count()).where(UnmatchedPayment.status == "open")).one()


def _find_purchase(session: Session, payment: CheckoutPayment) -> Transaction | None:
    """The row that has this payment's session or its PaymentIntent."""
    same = Transaction.stripe_session_id == payment.stripe_session_id
    if payment.payment_intent_id is not None:
        same = or_(same, Transaction.payment_intent_id == payment.payment_intent_id)
    return session.scalars(select(Transaction).where(same).limit(1)).one_or_none()


def _conflict(
    session: Session, existing: Transaction, payment: CheckoutPayment, package: Package
) -> Mismatch | None:
    """Why the row with this payment's key does not mean that it was credited; None if it does."""
    if not rules.is_same_purchase(existing, payment, package):
        return Mismatch(
            Reason.PAYMENT_CONFLICT,
            f"Transaction {existing.transaction_id} has this payment with other figures",
        )
    if not _is_credited(session, existing):
        return Mismatch(
            Reason.TRANSACTION_WITHOUT_CREDIT,
            f"Transaction {existing.transaction_id} was written without crediting anybody",
        )
    return None


def _is_credited(session: Session, transaction: Transaction) -> bool:
    """Whether a lot refers to the purchase, or the opening balance held what it added."""
    if transaction.predates_ledger:
        return True
    lot = exists().where(
        CreditLot.user_id == transaction.user_id,
        CreditLot.transaction_id == transaction.transaction_id,
    )
    return session.execute(select(lot)).scalar_one()


def _credit(
    session: Session, user: User | None, payment: CheckoutPayment, package: Package
) -> Mismatch | None:
    """Write the purchase and its grant; or say why that cannot be, and leave nothing behind."""
    if user is None:
        return Mismatch(Reason.USER_UNKNOWN, "No user of ours has the metadata's user id")
    try:
        with session.begin_nested():
            _write_purchase(session, user, payment, package)
    except Invalid as refusal:
        if refusal.error_type != Reason.BALANCE_LIMIT_EXCEEDED:
            raise
        return Mismatch(Reason.BALANCE_LIMIT_EXCEEDED, refusal.message)
    return None


def _write_purchase(
    session: Session, user: User, payment: CheckoutPayment, package: Package
) -> None:
    transaction_id = session.execute(
        insert(Transaction)
        .values(
            user_id=user.user_id,
            stripe_session_id=payment.stripe_session_id,
            payment_intent_id=payment.payment_intent_id,
            amount_paid_cents=payment.amount_total_cents,
            currency=package.currency,
            livemode=payment.livemode,
            credits_added=package.credits,
        )
        .returning(Transaction.transaction_id)
    ).scalar_one()
    purchase = Grant(
        user_id=user.user_id,
        key=f"~purchase:{payment.stripe_session_id}",
        actor="system:stripe",
        amount=package.credits,
        source=LotSource.PURCHASE,
        transaction_id=transaction_id,
    )
    ledger.execute(session, [purchase])


def _resolve_unmatched(session: Session, payment: CheckoutPayment) -> None:
    """Close what an earlier event about this payment left open."""
    session.execute(
        update(UnmatchedPayment)
        .where(
            UnmatchedPayment.livemode == payment.livemode,
            UnmatchedPayment.stripe_object_id == payment.stripe_session_id,
            UnmatchedPayment.status == "open",
        )
        .values(
            status="resolved",
            resolution="credited when a later event matched",
            actor="system:webhook",
            resolved_at=func.now(),
        )
    )
    session.flush()


def _note_unmatched(
    session: Session, payment: CheckoutPayment, mismatch: Mismatch, event_id: str
) -> None:
    """Write or renew the payment's row; one that somebody resolved stays as it is."""
    values = {
        "event_id": event_id,
        "reason": str(mismatch.reason),
        "explanation": mismatch.explanation,
        "details": {
            "user_id": str(payment.user_id) if payment.user_id else None,
            "package_id": payment.package_id,
            "credits": payment.credits,
            "env": payment.env,
            "mode": payment.mode,
            "payment_status": payment.payment_status,
            "payment_intent_id": payment.payment_intent_id,
            "amount_subtotal_cents": payment.amount_subtotal_cents,
            "amount_total_cents": payment.amount_total_cents,
            "currency": payment.currency,
        },
    }
    key = {"livemode": payment.livemode, "stripe_object_id": payment.stripe_session_id}
    session.execute(
        insert(UnmatchedPayment)
        .values(**key, **values)
        .on_conflict_do_update(
            index_elements=[UnmatchedPayment.livemode, UnmatchedPayment.stripe_object_id],
            set_=values,
            where=UnmatchedPayment.status == "open",
        )
    )
