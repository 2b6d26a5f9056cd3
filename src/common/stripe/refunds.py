"""Paying money back: our request is committed, Stripe is asked, its refund takes its usual road."""

from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from src.common.credits.reversed_money import COUNTING
from src.common.exceptions import Conflict
from src.common.models.refund_request import RefundRequest
from src.common.purchases.refunds import (
    RefundWish,
    get_transaction,
    refund_exceeds_payment,
    refuse_request,
    request_name,
    request_refund,
)
from src.common.settings import Settings
from src.common.stripe.gateway import Gateway, configured
from src.common.stripe.gateway_errors import StripeGatewayError
from src.common.stripe.lookup import Facts
from src.common.stripe.processing import InDatabase, Processor
from src.common.stripe.wire_money_back import Refund

TOO_MUCH = "amount_too_large"
NOTHING_CHARGED = "nothing_was_charged"
_TOO_MUCH = frozenset({"charge_already_refunded", TOO_MUCH, "parameter_invalid_integer"})


@dataclass(frozen=True)
class Refunded:
    """A refund that Stripe accepted."""

    refund_id: str
    amount_cents: int
    replayed: bool


@dataclass(frozen=True)
class _Bought:
    """What is paid back."""

    stripe_session_id: str
    payment_intent_id: str | None
    paid_cents: int


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
    was_asked = False

    def begin(session: Session) -> tuple[RefundRequest, _Bought]:
        nonlocal was_asked
        was_asked = session.get(RefundRequest, (wish.transaction_id, wish.key)) is not None
        request = request_refund(session, wish)
        paid = get_transaction(session, wish.transaction_id)
        return request, _Bought(
            paid.stripe_session_id, paid.payment_intent_id, paid.amount_paid_cents
        )

    request, bought = await in_database(begin)
    if request.refund_id is not None:
        return Refunded(request.refund_id, request.amount_cents, replayed=True)
    if bought.payment_intent_id is None:
        found = await _payment_of(client, bought.stripe_session_id)
        bought = replace(bought, payment_intent_id=found)
    till = _Till(Processor(in_database, client, settings), client, bought)
    if request.error is not None:
        raise await till.refusal(request.error)
    if bought.payment_intent_id is None:
        await in_database(lambda session: refuse_request(session, wish, NOTHING_CHARGED))
        raise await till.refusal(NOTHING_CHARGED)
    name = request_name(wish.transaction_id, wish.key)
    made = await till.find(name) if was_asked else None
    if made is None:
        try:
            made = await client.create_refund(
                bought.payment_intent_id, request.amount_cents, key=name, reason=wish.reason
            )
        except StripeGatewayError as error:
            if not error.is_refusal:
                raise
            code = TOO_MUCH if error.parameter == "amount" else error.code or "invalid_request"
            await in_database(lambda session: refuse_request(session, wish, code))
            raise await till.refusal(code) from None
    await till.take_in([made])
    return Refunded(made.id, request.amount_cents, replayed=False)


@dataclass(frozen=True)
class _Till:
    """Stripe's refunds of one payment, and their way into the books."""

    processor: Processor
    client: Gateway
    bought: _Bought

    async def find(self, name: str) -> Refund | None:
        """The refund that an earlier try of this request made, though we never heard of it.

        Stripe's idempotency key would tell too, but only for a day.
        """
        return next((each for each in await self._refunds() if each.request == name), None)

    async def take_in(self, refunds: list[Refund]) -> int:
        """Settle refunds as their events will, or have; what they take of the payment, in cents."""
        livemode = bool(self.processor.settings.stripe_livemode)
        reversals = [
            replace(
                each.as_reversal(
                    livemode=livemode, payment_intent_id=self.bought.payment_intent_id
                ),
                stripe_session_id=self.bought.stripe_session_id,
            )
            for each in refunds
        ]
        for each in reversals:
            await self.processor.apply(Facts(reversals=(each,)), cause=each.reversal_id)
        return sum(each.amount_cents for each in reversals if each.status in COUNTING)

    async def refusal(self, code: str) -> Exception:
        """Why Stripe refused; what is left to refund is asked, for our rows did not know."""
        if code not in _TOO_MUCH:
            return Conflict(f"Stripe refuses this refund ({code})", "REFUND_REFUSED", code=code)
        try:
            taken = await self.take_in(await self._refunds())
        except StripeGatewayError:
            return refund_exceeds_payment(None)
        return refund_exceeds_payment(max(self.bought.paid_cents - taken, 0))

    async def _refunds(self) -> list[Refund]:
        payment = self.bought.payment_intent_id
        return await self.client.refunds_of(payment_intent=payment) or [] if payment else []


async def _payment_of(gateway: Gateway, stripe_object_id: str) -> str | None:
    """The PaymentIntent of a purchase that application code wrote without one."""
    if stripe_object_id.startswith("pi_"):
        return stripe_object_id
    session = await gateway.retrieve_session(stripe_object_id)
    return session.as_payment().payment_intent_id if session else None
