"""Paying money back: our request is committed, Stripe is asked, its refund takes its usual road."""

import hashlib
from dataclasses import dataclass

from sqlalchemy.orm import Session

from src.common.exceptions import Conflict
from src.common.models.refund_request import RefundRequest
from src.common.purchases.refunds import (
    RefundWish,
    answer_request,
    get_transaction,
    refund_exceeds_payment,
    request_refund,
)
from src.common.settings import Settings
from src.common.stripe.gateway import Gateway, StripeGatewayError, configured
from src.common.stripe.lookup import Facts
from src.common.stripe.processing import InDatabase, Processor

_TOO_MUCH = frozenset({"charge_already_refunded", "amount_too_large", "parameter_invalid_integer"})
REFUSED_FOR_GOOD = _TOO_MUCH | {"charge_disputed", "resource_missing"}


@dataclass(frozen=True)
class Refunded:
    """A refund that Stripe accepted."""

    refund_id: str
    amount_cents: int
    replayed: bool


async def refund_payment(
    in_database: InDatabase, gateway: Gateway | None, settings: Settings, wish: RefundWish
) -> Refunded:
    """Pay back what was asked for, once for its key, and take the credits back.

    Raises:
        NotFound: TRANSACTION_NOT_FOUND.
        Invalid: REFUND_EXCEEDS_PAYMENT, VALIDATION_ERROR.
        Conflict: IDEMPOTENCY_KEY_REUSED, REFUND_REFUSED.
        StripeGatewayError: STRIPE_GATEWAY_ERROR; the same key asks again.
        Unavailable: STRIPE_NOT_CONFIGURED.
    """
    client = configured(gateway)

    def begin(session: Session) -> tuple[RefundRequest, str, str | None]:
        request = request_refund(session, wish)
        paid = get_transaction(session, wish.transaction_id)
        return request, paid.stripe_session_id, paid.payment_intent_id

    request, session_id, payment_intent_id = await in_database(begin)
    if request.refund_id is not None:
        return Refunded(request.refund_id, request.amount_cents, replayed=True)
    if request.status == "refused":
        raise _refused(request.error)
    payment_intent_id = payment_intent_id or await _payment_of(client, session_id)
    if payment_intent_id is None:
        await in_database(
            lambda session: answer_request(session, wish, error="nothing_was_charged")
        )
        raise _refused("nothing_was_charged")
    name = hashlib.sha256(f"{wish.transaction_id}:{wish.key}".encode()).hexdigest()
    try:
        refund = await client.create_refund(
            payment_intent_id, request.amount_cents, key=name, reason=wish.reason
        )
    except StripeGatewayError as error:
        code = error.code
        if code not in REFUSED_FOR_GOOD:
            raise
        await in_database(lambda session: answer_request(session, wish, error=code))
        raise _refused(code) from None
    processor = Processor(in_database, gateway, settings)
    reversal = refund.as_reversal(
        livemode=bool(settings.stripe_livemode), payment_intent_id=payment_intent_id
    )
    made = refund.id
    await processor.apply(Facts(reversals=(reversal,)), cause=made)
    await in_database(lambda session: answer_request(session, wish, refund_id=made))
    return Refunded(made, request.amount_cents, replayed=False)


async def _payment_of(gateway: Gateway, stripe_object_id: str) -> str | None:
    """The PaymentIntent of a purchase that application code wrote without one."""
    if stripe_object_id.startswith("pi_"):
        return stripe_object_id
    session = await gateway.retrieve_session(stripe_object_id)
    return session.payment_intent if session else None


def _refused(code: str | None) -> Exception:
    if code in _TOO_MUCH:
        return refund_exceeds_payment(0)
    return Conflict(f"Stripe refuses this refund ({code})", "REFUND_REFUSED", code=code)
