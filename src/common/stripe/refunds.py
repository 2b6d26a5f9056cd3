"""Refunds a purchase: writes the request, asks Stripe, settles its refund as events are settled."""

import datetime as dt
import uuid
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from src.common.credits.domain.reversed_money import COUNTING
from src.common.exceptions import Conflict
from src.common.models.refund_request import RefundRequest
from src.common.purchases.refunds import (
    RefundWish,
    get_transaction,
    note_account,
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
NEVER_HEARD_OF = "stripe_never_heard_of_it"
KEY_LIFETIME = dt.timedelta(days=1)
"""How long Stripe keeps idempotency keys (docs.stripe.com/api/idempotent_requests)."""
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

    transaction_id: uuid.UUID
    stripe_session_id: str
    payment_intent_id: str | None
    paid_cents: int
    currency: str
    stripe_account: str | None
    """The connected account that was paid, and pays back."""


async def refund_payment(
    in_database: InDatabase, gateway: Gateway | None, settings: Settings, wish: RefundWish
) -> Refunded:
    """Have Stripe pay a purchase back, all or a part, and take the credits that it bought.

    With one key it is paid back once. The request is committed before Stripe is asked, so the same
    key goes on after a crash or a time-out.

    Args:
        in_database: Runs work in a database transaction, as `run_in_async_database_transaction`.
        gateway: The way to Stripe; None where no secret key is configured.
        settings: The settings of this process.
        wish: Which purchase, how much of it in the smallest unit of its currency, with which key.

    Raises:
        NotFound: TRANSACTION_NOT_FOUND.
        Invalid: REFUND_EXCEEDS_PAYMENT, more than is left of the payment. VALIDATION_ERROR.
        Conflict: IDEMPOTENCY_KEY_REUSED. REFUND_REFUSED, Stripe says no.
        StripeGatewayError: STRIPE_GATEWAY_ERROR; the same key asks again.
        Unavailable: STRIPE_NOT_CONFIGURED.
    """
    client = configured(gateway)
    was_asked = False

    def begin(session: Session) -> tuple[RefundRequest, _Bought]:
        nonlocal was_asked
        was_asked = session.get(RefundRequest, (wish.transaction_id, wish.key)) is not None
        return request_refund(session, wish), _bought(session, wish.transaction_id)

    request, bought = await in_database(begin)
    if request.refund_id is not None:
        return Refunded(request.refund_id, request.amount_cents, replayed=True)
    till = await _open_till(in_database, client, settings, bought)
    if request.error is not None:
        raise await till.refusal(request.error)
    return await _ask(till, request, was_asked=was_asked)


async def resume_refund(
    in_database: InDatabase, gateway: Gateway | None, settings: Settings, request: RefundRequest
) -> Refunded:
    """Go on with a request that was cut off: Stripe's refund of it, or one that is made now.

    Raises:
        ExceptionWithErrorType: as `refund_payment`.
    """
    till = await _till_of(in_database, gateway, settings, request)
    return await _ask(till, request, was_asked=True)


async def close_if_unknown(
    in_database: InDatabase, gateway: Gateway | None, settings: Settings, request: RefundRequest
) -> bool:
    """Close a request that Stripe never heard of; take in its refund where there is one.

    Only once Stripe has forgotten its key: until then a first answer may still be on its way.

    Returns:
        Whether it was closed.

    Raises:
        StripeGatewayError: STRIPE_GATEWAY_ERROR.
        Unavailable: STRIPE_NOT_CONFIGURED.
    """
    till = await _till_of(in_database, gateway, settings, request)
    made = await till.find(request_name(request.transaction_id, request.idempotency_key))
    if made is not None:
        await till.take_in([made])
        return False
    await till.refuse(request, NEVER_HEARD_OF)
    return True


async def _ask(till: "_Till", request: RefundRequest, *, was_asked: bool) -> Refunded:
    """Have Stripe pay back, unless an earlier try of this request did."""
    payment = till.bought.payment_intent_id
    if payment is None:
        if (theirs := await till.of_who_was_paid()) is not None:
            return await _ask(theirs, request, was_asked=was_asked)
        await till.refuse(request, NOTHING_CHARGED)
        raise await till.refusal(NOTHING_CHARGED)
    name = request_name(request.transaction_id, request.idempotency_key)
    made = await till.find(name) if was_asked else None
    if made is None:
        try:
            made = await till.client.create_refund(
                payment, request.amount_cents, key=name, reason=request.reason
            )
        except StripeGatewayError as error:
            if not error.is_refusal:
                raise
            is_unknown = error.code == "resource_missing"
            if is_unknown and (theirs := await till.of_who_was_paid()) is not None:
                return await _ask(theirs, request, was_asked=was_asked)
            code = TOO_MUCH if error.parameter == "amount" else error.code or "invalid_request"
            await till.refuse(request, code)
            raise await till.refusal(code) from None
    await till.take_in([made])
    return Refunded(made.id, request.amount_cents, replayed=False)


def _bought(session: Session, transaction_id: uuid.UUID) -> _Bought:
    paid = get_transaction(session, transaction_id)
    return _Bought(
        transaction_id,
        paid.stripe_session_id,
        paid.payment_intent_id,
        paid.amount_paid_cents,
        paid.currency,
        paid.stripe_account,
    )


async def _till_of(
    in_database: InDatabase, gateway: Gateway | None, settings: Settings, request: RefundRequest
) -> "_Till":
    bought = await in_database(lambda session: _bought(session, request.transaction_id))
    return await _open_till(in_database, configured(gateway), settings, bought)


async def _open_till(
    in_database: InDatabase, client: Gateway, settings: Settings, bought: _Bought
) -> "_Till":
    client = client.for_account(bought.stripe_account)
    if bought.payment_intent_id is None:
        bought = replace(bought, payment_intent_id=await _payment_of(client, bought))
    return _Till(Processor(in_database, client, settings), client, bought)


@dataclass(frozen=True)
class _Till:
    """Stripe's refunds of one payment, and their way into the books."""

    processor: Processor
    client: Gateway
    bought: _Bought

    async def of_who_was_paid(self) -> "_Till | None":
        """The till of the connected account that was paid, where the purchase does not say it.

        Purchases from before we noted accounts do not. It is noted before money is asked for in its
        name: a refund whose answer is lost is then looked for there.

        Raises:
            StripeGatewayError: nobody knows the payment, and not everybody could be asked.
        """
        if self.bought.stripe_account is not None:
            return None
        failure: StripeGatewayError | None = None
        for account in sorted(self.processor.settings.connected_accounts):
            client = self.client.for_account(account)
            try:
                payment = await _known_payment(client, self.bought)
            except StripeGatewayError as error:
                failure = error
                continue
            if payment is not None:
                await self.processor.in_database(
                    lambda session: note_account(session, self.bought.transaction_id, account)  # noqa: B023  run at once
                )
                bought = replace(self.bought, payment_intent_id=payment, stripe_account=account)
                return _Till(replace(self.processor, gateway=client), client, bought)
        if failure is not None:
            raise failure
        return None

    async def find(self, name: str) -> Refund | None:
        """The refund that an earlier try of this request made, though we never heard of it.

        Stripe's idempotency key would tell too, but only for a day.
        """
        return next((each for each in await self._refunds() if each.request == name), None)

    async def refuse(self, request: RefundRequest, error: str) -> None:
        """Note that nothing comes of a request, and why."""
        transaction_id, key = request.transaction_id, request.idempotency_key
        await self.processor.in_database(
            lambda session: refuse_request(session, transaction_id, key, error)
        )

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
            facts = Facts(reversals=(each,)).of_account(self.bought.stripe_account)
            await self.processor.apply(facts, cause=each.reversal_id)
        return sum(each.amount_cents for each in reversals if each.status in COUNTING)

    async def refusal(self, code: str) -> Exception:
        """Why Stripe refused; what is left to refund is asked, for our rows did not know."""
        if code not in _TOO_MUCH:
            return Conflict(f"Stripe refuses this refund ({code})", "REFUND_REFUSED", code=code)
        try:
            taken = await self.take_in(await self._refunds())
        except StripeGatewayError:
            return refund_exceeds_payment(None, self.bought.currency)
        left = max(self.bought.paid_cents - taken, 0)
        return refund_exceeds_payment(left, self.bought.currency)

    async def _refunds(self) -> list[Refund]:
        payment = self.bought.payment_intent_id
        return await self.client.refunds_of(payment_intent=payment) or [] if payment else []


async def _payment_of(gateway: Gateway, bought: _Bought) -> str | None:
    """The PaymentIntent of a purchase that application code wrote without one."""
    if bought.stripe_session_id.startswith("pi_"):
        return bought.stripe_session_id
    session = await gateway.retrieve_session(bought.stripe_session_id)
    return session.as_payment().payment_intent_id if session else None


async def _known_payment(gateway: Gateway, bought: _Bought) -> str | None:
    """The PaymentIntent of a purchase, where this account has it."""
    payment = bought.payment_intent_id or await _payment_of(gateway, bought)
    found = await gateway.retrieve_payment(payment) if payment else None
    return found.id if found else None
