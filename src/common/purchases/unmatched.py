"""Payments nobody was credited for: noted with a reason, listed, resolved; never commits.

And money back whose credits nobody could take.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from src.common.credits.reversed_money import COUNTING
from src.common.exceptions import Conflict, Invalid, NotFound
from src.common.models.stripe_reversal import StripeReversal
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.purchases.rules import Mismatch, Payment, Reason

RESOLUTION_LENGTH_MAX = 1_000


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


def resolve(
    session: Session, stripe_object_id: str, *, resolution: str, actor: str
) -> UnmatchedPayment:
    """Close an unmatched payment: somebody says what was done about it.

    Raises:
        NotFound: UNMATCHED_PAYMENT_NOT_FOUND.
        Conflict: ALREADY_RESOLVED.
        Invalid: VALIDATION_ERROR, no resolution, or one too long.
    """
    if not 1 <= len(resolution.strip()) <= RESOLUTION_LENGTH_MAX or "\x00" in resolution:
        raise Invalid(
            f"resolution: must be 1 to {RESOLUTION_LENGTH_MAX} characters long",
            "VALIDATION_ERROR",
            field="resolution",
        )
    rows = session.scalars(
        select(UnmatchedPayment)
        .where(UnmatchedPayment.stripe_object_id == stripe_object_id)
        .order_by(UnmatchedPayment.status)  # an open one first
        .with_for_update()
    ).all()
    if not rows:
        raise NotFound("No unmatched payment has this id", "UNMATCHED_PAYMENT_NOT_FOUND")
    row = rows[0]
    if row.status != "open":
        raise Conflict(f"Resolved already: {row.resolution}", "ALREADY_RESOLVED")
    row.status, row.resolution, row.actor = "resolved", resolution, actor
    row.resolved_at = func.clock_timestamp()
    session.flush()
    session.refresh(row, ["resolved_at"])
    return row


def close(session: Session, payment: Payment, resolution: str) -> None:
    """Close what an earlier event about this payment left open."""
    _close(session, payment.livemode, _names_of(payment), resolution)


def is_open(payment: Payment) -> ColumnElement[bool]:
    """Whether an earlier event about this payment left something open; part of a statement."""
    return exists().where(
        UnmatchedPayment.livemode == payment.livemode,
        UnmatchedPayment.stripe_object_id.in_(_names_of(payment)),
        UnmatchedPayment.status == "open",
    )


def _names_of(payment: Payment) -> list[str]:
    names = (payment.stripe_session_id, payment.payment_intent_id, payment.invoice_id)
    return [each for each in names if each is not None]


def note(session: Session, payment: Payment, mismatch: Mismatch, cause: str) -> None:
    """Write or renew the payment's row; one that somebody resolved stays as it is."""
    details = {
        "user_id": str(payment.user_id) if payment.user_id else None,
        "order_id": str(payment.order_id) if payment.order_id else None,
        "package_id": payment.package_id,
        "credits": payment.credits,
        "env": payment.env,
        "mode": payment.mode,
        "payment_status": payment.payment_status,
        "payment_intent_id": payment.payment_intent_id,
        "amount_subtotal_cents": payment.amount_subtotal_cents,
        "amount_total_cents": payment.amount_total_cents,
        "currency": payment.currency,
    }
    _write(session, payment.livemode, payment.stripe_session_id, mismatch, cause, details)


def note_stray(session: Session, reversal: StripeReversal, currency: str, cause: str) -> None:
    """Note a reversal in another currency than its payment, as long as it counts."""
    if reversal.status not in COUNTING:
        ended = f"the {reversal.kind} is {reversal.status}"
        _close(session, reversal.livemode, [reversal.reversal_id], ended)
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


def _close(session: Session, livemode: bool, names: Sequence[str], resolution: str) -> None:  # noqa: FBT001  as Stripe's objects have it
    session.execute(
        update(UnmatchedPayment)
        .where(
            UnmatchedPayment.livemode == livemode,
            UnmatchedPayment.stripe_object_id.in_(names),
            UnmatchedPayment.status == "open",
        )
        .values(
            status="resolved",
            resolution=resolution,
            actor="system:webhook",
            resolved_at=func.now(),
        )
    )
    session.flush()


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
