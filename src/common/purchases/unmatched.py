"""Unmatched payments, paid and credited to nobody: noted, listed, closed; never commits.

And money back whose credits nobody could take.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from src.common.credits.domain.reversed_money import COUNTING
from src.common.models.stripe_reversal import StripeReversal
from src.common.models.transaction import Transaction
from src.common.models.unmatched_payment import (
    BY_HAND,
    PAYMENT_INTENT_ID,
    SYSTEM_ACTOR,
    UnmatchedPayment,
)
from src.common.purchases import uncredited
from src.common.purchases.rules import Mismatch, Payment, Reason
from src.common.time_zones import in_order


def open_unmatched_payments(session: Session, limit: int) -> Sequence[UnmatchedPayment]:
    """The payments that wait for somebody to look at them, oldest first.

    Purchases that credited nobody are among them, though no event may have told of them: these are
    of no session.
    """
    return oldest([*noted(session, limit), *derived(session, limit)], limit)


def noted(session: Session, limit: int) -> Sequence[UnmatchedPayment]:
    """The oldest of those that are noted, whosever they are."""
    return session.scalars(
        select(UnmatchedPayment)
        .where(UnmatchedPayment.status == "open")
        .order_by(UnmatchedPayment.created_at)
        .limit(limit)
    ).all()


def derived(session: Session, limit: int) -> Sequence[UnmatchedPayment]:
    """The oldest purchases that credited nobody, of those users whom the session sees."""
    return [unlisted(purchase) for purchase in uncredited.oldest_unlisted(session, limit)]


def oldest(payments: Iterable[UnmatchedPayment], limit: int) -> Sequence[UnmatchedPayment]:
    """So many of these, the oldest first."""
    return sorted(payments, key=lambda each: in_order(each.created_at))[:limit]


def unlisted(purchase: Transaction) -> UnmatchedPayment:
    """The row of a purchase that credited nobody, as it would be noted; of no session."""
    return UnmatchedPayment(
        **_key_of(purchase), **_about(purchase), status="open", created_at=purchase.created_at
    )


def count_open_unmatched_payments(session: Session) -> int:
    """How many payments wait for somebody to look at them."""
    return count_noted(session) + uncredited.count_unlisted(session)


def count_noted(session: Session) -> int:
    """How many of them are noted, whosever they are."""
    return session.scalars(select(func.count()).where(UnmatchedPayment.status == "open")).one()


def close(session: Session, payment: Payment, resolution: str) -> bool:
    """Close what an earlier event about this payment left open; whether there was anything."""
    return _close(session, _is_about(payment), resolution)


def is_open(payment: Payment) -> ColumnElement[bool]:
    """Whether an earlier event about this payment left something open; part of a statement."""
    return exists().where(_is_about(payment), UnmatchedPayment.status == "open")


def is_settled_by_hand(payment: Payment) -> ColumnElement[bool]:
    """Whether somebody resolved this payment: then nothing automatic credits it, whatever changes.

    Part of a statement.
    """
    return exists().where(_is_about(payment), BY_HAND)


def find_settled_by_hand(session: Session, payment: Payment) -> UnmatchedPayment | None:
    """What somebody resolved of this payment."""
    return session.scalars(
        select(UnmatchedPayment).where(_is_about(payment), BY_HAND).limit(1)
    ).one_or_none()


def is_noted(session: Session, payment: Payment) -> bool:
    """Whether this payment is or was among the unmatched."""
    return session.scalars(select(exists().where(_is_about(payment)))).one()


def _is_about(payment: Payment) -> ColumnElement[bool]:
    """Rows of this payment, whichever of its Stripe objects they were noted by.

    In either mode: an id is one object's, and a purchase that application code wrote may not say
    its mode. Both are named, for then the primary key serves.
    """
    names = (payment.stripe_session_id, payment.payment_intent_id, payment.invoice_id)
    by_name = and_(
        UnmatchedPayment.livemode.in_((False, True)),
        UnmatchedPayment.stripe_object_id.in_([each for each in names if each is not None]),
    )
    if payment.payment_intent_id is None:
        return by_name
    return or_(by_name, payment.payment_intent_id == PAYMENT_INTENT_ID)


def note(session: Session, payment: Payment, mismatch: Mismatch, cause: str) -> None:
    """Write or renew the payment's row; one that somebody resolved stays as it is."""
    if find_settled_by_hand(session, payment) is not None:
        return
    details = details_of(payment)
    _write(session, payment.livemode, payment.stripe_session_id, mismatch, cause, details)


def details_of(payment: Payment) -> dict[str, Any]:
    """What was offered and what came, as the payment's row keeps it."""
    return {
        "user_id": str(payment.user_id) if payment.user_id else None,
        "order_id": str(payment.order_id) if payment.order_id else None,
        "package_id": payment.package_id,
        "credits": payment.credits,
        "env": payment.env,
        "mode": payment.mode,
        "payment_status": payment.payment_status,
        "payment_intent_id": payment.payment_intent_id,
        "invoice_id": payment.invoice_id,
        "stripe_account": payment.stripe_account,
        "amount_subtotal_cents": payment.amount_subtotal_cents,
        "amount_total_cents": payment.amount_total_cents,
        "currency": payment.currency,
    }


def note_uncredited(session: Session, purchase: Transaction) -> None:
    """Note a purchase that credited nobody, so that it can be resolved as any other payment is.

    A row of this name that was closed by itself, as of a payment that failed, is opened again.
    """
    values = _about(purchase)
    again = {"status": "open", "resolution": None, "actor": None, "resolved_at": None}
    session.execute(
        insert(UnmatchedPayment)
        .values(**_key_of(purchase), **values)
        .on_conflict_do_update(
            index_elements=[UnmatchedPayment.livemode, UnmatchedPayment.stripe_object_id],
            set_=values | again,
            where=~BY_HAND,
        )
    )


def _key_of(purchase: Transaction) -> dict[str, Any]:
    return {
        "livemode": bool(purchase.livemode),
        "stripe_object_id": purchase.stripe_session_id,
    }


def _about(purchase: Transaction) -> dict[str, Any]:
    return {
        "event_id": f"transaction:{purchase.transaction_id}",
        "reason": str(Reason.TRANSACTION_WITHOUT_CREDIT),
        "explanation": (
            f"Transaction {purchase.transaction_id} was written without crediting anybody"
        ),
        "details": {
            "user_id": str(purchase.user_id),
            "credits": str(purchase.credits_added),
            "payment_intent_id": purchase.payment_intent_id,
            "invoice_id": purchase.invoice_id,
            "amount_total_cents": purchase.amount_paid_cents,
            "currency": purchase.currency,
        },
    }


def note_stray(session: Session, reversal: StripeReversal, currency: str, cause: str) -> None:
    """Note a reversal in another currency than its payment, as long as it counts."""
    if reversal.status not in COUNTING:
        ended = f"the {reversal.kind} is {reversal.status}"
        is_this = and_(
            UnmatchedPayment.livemode == reversal.livemode,
            UnmatchedPayment.stripe_object_id == reversal.reversal_id,
        )
        _close(session, is_this, ended)
        return
    explanation = (
        f"A {reversal.kind} of {reversal.amount_cents} cents in {reversal.currency} of a payment "
        f"in {currency}: no credits were taken back"
    )
    details = {
        "transaction_id": str(reversal.transaction_id),
        "payment_intent_id": reversal.payment_intent_id,
        "kind": reversal.kind,
        "status": reversal.status,
        "amount_cents": reversal.amount_cents,
        "currency": reversal.currency,
    }
    mismatch = Mismatch(Reason.CURRENCY_MISMATCH, explanation)
    _write(session, reversal.livemode, reversal.reversal_id, mismatch, cause, details)


def _close(session: Session, rows: ColumnElement[bool], resolution: str) -> bool:
    closed = session.execute(
        update(UnmatchedPayment)
        .where(rows, UnmatchedPayment.status == "open")
        .values(
            status="resolved",
            resolution=resolution,
            actor=SYSTEM_ACTOR,
            resolved_at=func.now(),
        )
        .returning(UnmatchedPayment.stripe_object_id)
    ).all()
    session.flush()
    return bool(closed)


def _write(
    session: Session,
    livemode: bool,  # noqa: FBT001  as Stripe's objects have it
    stripe_object_id: str,
    mismatch: Mismatch,
    cause: str,
    details: dict[str, Any],
) -> None:
    values = {
        "event_id": cause,
        "reason": str(mismatch.reason),
        "explanation": mismatch.explanation,
        "details": details,
    }
    key = {"livemode": livemode, "stripe_object_id": stripe_object_id}
    session.execute(
        insert(UnmatchedPayment)
        .values(**key, **values)
        .on_conflict_do_update(
            index_elements=[UnmatchedPayment.livemode, UnmatchedPayment.stripe_object_id],
            set_=values,
            where=UnmatchedPayment.status == "open",
        )
    )
