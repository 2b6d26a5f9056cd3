"""Payments that somebody credits by hand: alone as far as the money buys it, and one may give.

What is beyond both is asked for, and with another person's consent the payment is settled, for
good (rule 13).
"""

import uuid
from dataclasses import dataclass

from sqlalchemy.orm import Session

from src.common.accounts.operations import lock_user
from src.common.approvals import asking, moved
from src.common.approvals.asking import Asked, Request
from src.common.approvals.forms import PaymentForm
from src.common.approvals.rules import Limits
from src.common.credits.domain.commands import REFERENCE_LENGTH_MAX
from src.common.credits.domain.digest import digest_of
from src.common.credits.queries import balance
from src.common.exceptions import Invalid
from src.common.models.approval import Decision
from src.common.models.transaction import Transaction
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.postgres.previews import preview
from src.common.purchases import resolutions
from src.common.purchases.operations import find_purchase
from src.common.purchases.resolutions import Ruling


@dataclass(frozen=True)
class Settlement:
    """What somebody does about an unmatched payment."""

    stripe_object_id: str
    resolution: str
    """What was done about it, in words."""
    actor: str
    key: str
    """The request's idempotency key, where it becomes one."""
    ruling: Ruling | None = None
    """To credit it: to whom, with how much, where the payment does not say it."""


@dataclass(frozen=True)
class Settled:
    """It is settled."""

    row: UnmatchedPayment
    purchase: Transaction | None
    """Where it was credited."""


@dataclass(frozen=True, kw_only=True)
class PaymentPreview:
    """What settling a payment would do now."""

    reason: str
    """Why it was not credited."""
    user_id: uuid.UUID | None
    """Who would get the credits; None where nobody would."""
    credits: int
    amount_paid_cents: int
    currency: str
    balance: int
    """Afterwards."""
    asks: bool
    """Whether it would become a request."""


def resolve_or_ask(
    session: Session, settlement: Settlement, limits: Limits | None
) -> Settled | Asked:
    """Close or credit an unmatched payment, or ask for another person's consent.

    What is credited beyond the price counts together with what the actor gave that user within the
    window.

    Args:
        session: In a database transaction of the caller's.
        settlement: What is to be done.
        limits: Above what nobody credits alone; None where everybody may.

    Raises:
        ExceptionWithErrorType: as `resolutions.resolve`. Invalid: VALIDATION_ERROR, a request's
            reason is shorter. Conflict: IDEMPOTENCY_KEY_REUSED. APPROVAL_DECIDED,
            APPROVAL_EXPIRED, nothing comes of what was asked for with this key.
    """
    row = resolutions.lock(session, settlement.stripe_object_id)
    found = _find_asked(session, settlement, row)
    if found is not None:
        if found.approval.status != Decision.CONSENTED:
            return found
        return Settled(row, find_purchase(session, resolutions.payment_of(row)))
    if settlement.ruling is not None and limits is not None:
        bought = preview(session, lambda inner: _resolve(inner, settlement, limits))
        if bought.asks:
            return _ask(session, settlement, settlement.ruling, bought, limits)
    return Settled(
        *resolutions.resolve(
            session,
            settlement.stripe_object_id,
            resolution=settlement.resolution,
            actor=settlement.actor,
            ruling=settlement.ruling,
        )
    )


def foresee(session: Session, settlement: Settlement, limits: Limits | None) -> PaymentPreview:
    """What `resolve_or_ask` would do now; nothing is written.

    Raises:
        ExceptionWithErrorType: as `resolutions.resolve`.
    """
    return preview(session, lambda inner: _resolve(inner, settlement, limits))


def _resolve(session: Session, settlement: Settlement, limits: Limits | None) -> PaymentPreview:
    """Do it, to be undone, and tell."""
    row, purchase = resolutions.resolve(
        session,
        settlement.stripe_object_id,
        resolution=settlement.resolution,
        actor=settlement.actor,
        ruling=settlement.ruling,
    )
    if purchase is None:
        return PaymentPreview(
            reason=row.reason,
            user_id=None,
            credits=0,
            amount_paid_cents=0,
            currency="",
            balance=0,
            asks=False,
        )
    return PaymentPreview(
        reason=row.reason,
        user_id=purchase.user_id,
        credits=purchase.credits_added,
        amount_paid_cents=purchase.amount_paid_cents,
        currency=purchase.currency,
        balance=balance(session, purchase.user_id).balance,
        asks=limits is not None and _takes_consent(session, purchase, settlement.actor, limits),
    )


def _takes_consent(session: Session, purchase: Transaction, actor: str, limits: Limits) -> bool:
    """Whether it gives, beyond the price, more than one person gives alone; it is written."""
    by_hand = moved.credits_of_payments(session, purchase.user_id, actor, limits)
    if by_hand == 0:
        return False
    by_hand += moved.credits_moved(session, purchase.user_id, actor, gives=True)
    return by_hand > limits.credits_above


def _find_asked(session: Session, settlement: Settlement, row: UnmatchedPayment) -> Asked | None:
    """The very same, asked for before."""
    ruling = settlement.ruling
    if ruling is None:
        return None
    user_id = ruling.user_id or resolutions.payment_of(row).user_id
    if user_id is None:
        return None
    return asking.find_asked(session, user_id, settlement.key, _digest(settlement, ruling))


def _ask(
    session: Session,
    settlement: Settlement,
    ruling: Ruling,
    bought: PaymentPreview,
    limits: Limits,
) -> Asked:
    assert bought.user_id is not None  # noqa: S101  only what is credited takes consent
    if len(settlement.resolution) > REFERENCE_LENGTH_MAX:
        raise Invalid(
            f"reason: this takes another person's consent; say why in {REFERENCE_LENGTH_MAX} "
            "characters or fewer",
            "VALIDATION_ERROR",
            field="reason",
        )
    lock_user(session, bought.user_id)
    request = Request(
        user_id=bought.user_id,
        form=PaymentForm(
            stripe_object_id=settlement.stripe_object_id,
            amount=bought.credits,
            amount_cents=ruling.amount_cents,
            currency=ruling.currency,
        ),
        reason=settlement.resolution,
        requester=settlement.actor,
        key=settlement.key,
        digest=_digest(settlement, ruling),
    )
    return asking.ask(session, request, limits)


def _digest(settlement: Settlement, ruling: Ruling) -> bytes:
    return digest_of(
        settlement.actor,
        "payment",
        "",
        settlement.stripe_object_id,
        None if ruling.user_id is None else str(ruling.user_id),
        ruling.credits,
        ruling.amount_cents,
        ruling.currency,
        settlement.resolution,
    )
