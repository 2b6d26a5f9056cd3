"""Reads an event into plain facts, asking Stripe for what the event does not say.

It asks before any database transaction begins, so that no lock waits for Stripe. An event is a
hint: a PaymentIntent is resolved to its Checkout Session, an invoice to its PaymentIntents, a
refunded charge to its refunds (rule 4). What Stripe does not know for our key, because it
is deleted or of another account, is taken as the event tells it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from src.common.models.checkout_order import OrderStatus
from src.common.purchases.reversals import Reversal
from src.common.purchases.rules import Payment
from src.common.stripe.gateway import Gateway, configured
from src.common.stripe.unasked import UnaskedGateway
from src.common.stripe.wire import (
    AnyEvent,
    Charge,
    CheckoutSession,
    Event,
    Invoice,
    PaymentIntent,
    ThinEvent,
)
from src.common.stripe.wire_money_back import CreditNote, Dispute, Refund

IsKnown = Callable[[str, str | None], Awaitable[bool]]
"""Whether a PaymentIntent has a credited purchase already, noted as of this connected account."""


@dataclass(frozen=True)
class Facts:
    """What an event, or an object found at Stripe, tells us to settle."""

    payments: tuple[Payment, ...] = ()
    reversals: tuple[Reversal, ...] = ()
    ended: tuple[tuple[Payment, OrderStatus], ...] = ()
    """Sessions that came to nothing."""

    def of_account(self, account: str | None) -> "Facts":
        """The same, told of a connected account's objects."""
        if account is None:
            return self
        return replace(
            self,
            payments=tuple(replace(each, stripe_account=account) for each in self.payments),
            reversals=tuple(replace(each, stripe_account=account) for each in self.reversals),
        )


@dataclass(frozen=True)
class Lookup:
    """Reads events; asks Stripe where they do not say enough."""

    gateway: Gateway | None
    is_known: IsKnown
    livemode: bool | None
    """The mode of our key: objects of the other mode cannot be asked for."""
    accounts: frozenset[str] = frozenset()
    """The connected accounts that we act for."""
    account: str | None = None
    """The one that is read for; None where it is our own."""

    async def facts_of(self, event: AnyEvent) -> Facts | None:
        """What the event says; None where its type or its account is none of our business.

        Raises:
            StripeGatewayError: Stripe could not say what it must.
            Unavailable: STRIPE_NOT_CONFIGURED, there is nobody to ask.
            ValidationError: the object is not as Stripe's are.
        """
        handle = _HANDLERS.get(event.snapshot_type)
        if handle is None or event.account not in {None, *self.accounts}:
            return None
        lookup = self.of_account(event.account)
        if isinstance(event, ThinEvent):
            found = await lookup.object_of(event)
            facts = None if found is None else await handle(lookup, event.with_object(found))
        else:
            facts = await handle(lookup, event)
        return None if facts is None else facts.of_account(event.account)

    def of_account(self, account: str | None) -> "Lookup":
        """What reads the objects of a connected account, and asks Stripe in its name."""
        gateway = None if self.gateway is None else self.gateway.for_account(account)
        return replace(self, gateway=gateway, account=account)

    def unasked(self, is_known: IsKnown) -> "Lookup":
        """What reads as much as it can of the same account's objects without asking anybody.

        Where Stripe would have to be asked, it raises `StripeNeeded`.
        """
        gateway = UnaskedGateway().for_account(self.account)
        return replace(self, gateway=gateway, is_known=is_known)

    async def object_of(self, event: ThinEvent) -> dict[str, Any] | None:
        """The object that a thin event names, as it is now; None where Stripe has it not for us."""
        named = event.related_object
        if named is None or named.id is None:
            return None
        return await configured(self.gateway).find(named.type, named.id)

    async def session_facts(self, session: CheckoutSession) -> Facts:
        """What a session says that was found at Stripe."""
        if session.status == "expired":
            return Facts(ended=((session.as_payment(), OrderStatus.EXPIRED),))
        if session.status == "open":
            return Facts()
        return Facts(payments=(session.as_payment(),))

    async def payment_facts(self, payment: PaymentIntent, invoice_id: str | None = None) -> Facts:
        """What a PaymentIntent says: its session, else its invoice, else itself was paid.

        `invoice_id` is the invoice that was said to be its own. Of a payment that is credited
        already it says nothing.
        """
        if await self.is_known(payment.id, self.account):
            return Facts()
        return Facts(payments=(await self._resolve(payment, invoice_id),))

    async def refund_facts(self, refund: Refund, *, livemode: bool) -> Facts:
        """What a refund says."""
        payment_intent_id = refund.payment_intent or await self._payment_of_charge(refund.charge)
        reversal = refund.as_reversal(livemode=livemode, payment_intent_id=payment_intent_id)
        return Facts(reversals=(await self._with_session(reversal),))

    async def dispute_facts(self, dispute: Dispute, event_type: str | None = None) -> Facts:
        """What a dispute says."""
        payment_intent_id = dispute.payment_intent or await self._payment_of_charge(dispute.charge)
        reversal = dispute.as_reversal(event_type=event_type, payment_intent_id=payment_intent_id)
        return Facts(reversals=(await self._with_session(reversal),))

    async def on_session(self, event: Event) -> Facts:
        """`checkout.session.completed` and `…async_payment_succeeded`."""
        session = CheckoutSession.model_validate(event.data.object)
        if not session.tells_all and self.gateway is not None:
            session = await self.gateway.retrieve_session(session.id) or session
        return Facts(payments=(session.as_payment(),))

    async def on_session_failed(self, event: Event) -> Facts:
        """`checkout.session.async_payment_failed`."""
        session = CheckoutSession.model_validate(event.data.object)
        return Facts(ended=((session.as_payment(), OrderStatus.FAILED),))

    async def on_session_expired(self, event: Event) -> Facts:
        """`checkout.session.expired`."""
        session = CheckoutSession.model_validate(event.data.object)
        return Facts(ended=((session.as_payment(), OrderStatus.EXPIRED),))

    async def on_payment(self, event: Event) -> Facts:
        """`payment_intent.succeeded`."""
        return await self.payment_facts(PaymentIntent.model_validate(event.data.object))

    async def on_charge(self, event: Event) -> Facts:
        """`charge.succeeded`: its PaymentIntent was paid."""
        charge = Charge.model_validate(event.data.object)
        if charge.payment_intent is None:
            bare = PaymentIntent(id=charge.id, livemode=charge.livemode, status="succeeded")
            payment = replace(bare.as_payment(), mode="charge", payment_intent_id=None)
            return Facts(payments=(payment,))
        return await self._paid(charge.as_payment_intent(charge.payment_intent))

    async def on_invoice(self, event: Event) -> Facts:
        """`invoice.paid`: its PaymentIntents were paid; where there are none, nothing was."""
        invoice = Invoice.model_validate(event.data.object)
        found = await configured(self.gateway).payments_of_invoice(invoice.id)
        if found is None and invoice.payment_intent is not None:
            found = [invoice.payment_intent]
        if not found:
            return Facts(payments=(invoice.as_payment(),))
        told = [
            PaymentIntent(id=each, livemode=invoice.livemode, status="succeeded") for each in found
        ]
        facts = [await self._paid(each, invoice.id) for each in told]
        return Facts(payments=tuple(payment for each in facts for payment in each.payments))

    async def on_charge_refunded(self, event: Event) -> Facts | None:
        """`charge.refunded` only says that the charge's refunds are worth a look.

        Where Stripe cannot show them, and the event does not, their own events tell of them.
        """
        charge = Charge.model_validate(event.data.object)
        refunds = await configured(self.gateway).refunds_of(charge=charge.id)
        if refunds is None:
            if charge.refunds is None:
                return None
            refunds = list(charge.refunds.data)
        named = [
            each.model_copy(update={"payment_intent": each.payment_intent or charge.payment_intent})
            for each in refunds
        ]
        facts = [await self.refund_facts(each, livemode=charge.livemode) for each in named]
        return Facts(reversals=tuple(found for each in facts for found in each.reversals))

    async def on_refund(self, event: Event) -> Facts:
        """`refund.created`, `.updated`, `.failed`."""
        refund = Refund.model_validate(event.data.object)
        return await self.refund_facts(refund, livemode=event.livemode)

    async def on_dispute(self, event: Event) -> Facts:
        """`charge.dispute.…`"""
        return await self.dispute_facts(Dispute.model_validate(event.data.object), event.type)

    async def on_credit_note(self, event: Event) -> Facts:
        """`credit_note.…`"""
        return await self.credit_note_facts(CreditNote.model_validate(event.data.object))

    async def credit_note_facts(self, note: CreditNote) -> Facts:
        """What a credit note says: it takes from the payment of its invoice."""
        gateway = configured(self.gateway)
        if not note.tells_all:
            note = await gateway.retrieve_credit_note(note.id) or note
        found = await gateway.payments_of_invoice(note.invoice) if note.invoice else []
        reversal = note.as_reversal(payment_intent_id=found[0] if found else None)
        return Facts(reversals=(await self._with_session(reversal),))

    async def _paid(self, told: PaymentIntent, invoice_id: str | None = None) -> Facts:
        """What a PaymentIntent says that somebody else told of; as told where Stripe has none."""
        if await self.is_known(told.id, self.account):
            return Facts()
        found = await configured(self.gateway).retrieve_payment(told.id)
        return await self.payment_facts(found or told, invoice_id)

    async def _resolve(self, payment_intent: PaymentIntent, invoice_id: str | None) -> Payment:
        if self.livemode is not None and payment_intent.livemode != self.livemode:
            return payment_intent.as_payment(invoice_id=invoice_id)
        gateway = configured(self.gateway)
        session = await gateway.session_of_payment(payment_intent.id)
        if session is None:
            found = await gateway.invoice_of_payment(payment_intent.id)
            return payment_intent.as_payment(invoice_id=found or invoice_id)
        payment = replace(session.as_payment(), payment_intent_id=payment_intent.id)
        received = payment_intent.amount_received if payment_intent.has_succeeded else None
        if received is not None and payment_intent.currency == payment.currency:
            # All that was captured, which may be less than the session's total.
            payment = replace(payment, amount_total_cents=received)
        if payment_intent.has_succeeded and payment.payment_status == "unpaid":
            # The session may be read a moment before Stripe has marked it paid.
            return replace(payment, payment_status="paid")
        return payment

    async def _payment_of_charge(self, charge_id: str | None) -> str | None:
        if charge_id is None or self.gateway is None:
            return None
        charge = await self.gateway.retrieve_charge(charge_id)
        return None if charge is None else charge.payment_intent

    async def _with_session(self, reversal: Reversal) -> Reversal:
        """With the payment's session, where no purchase has the PaymentIntent.

        Application code of the document's pattern notes only the session.
        """
        payment_intent_id = reversal.payment_intent_id
        if (
            self.gateway is None
            or payment_intent_id is None
            or self.livemode not in (None, reversal.livemode)
            or await self.is_known(payment_intent_id, self.account)
        ):
            return reversal
        session = await self.gateway.session_of_payment(payment_intent_id)
        return replace(reversal, stripe_session_id=session.id) if session else reversal


_HANDLERS: dict[str, Callable[[Lookup, Event], Awaitable[Facts | None]]] = {
    "checkout.session.completed": Lookup.on_session,
    "checkout.session.async_payment_succeeded": Lookup.on_session,
    "checkout.session.async_payment_failed": Lookup.on_session_failed,
    "checkout.session.expired": Lookup.on_session_expired,
    "payment_intent.succeeded": Lookup.on_payment,
    "charge.succeeded": Lookup.on_charge,
    "invoice.paid": Lookup.on_invoice,
    "charge.refunded": Lookup.on_charge_refunded,
    "charge.refund.updated": Lookup.on_refund,
    "refund.created": Lookup.on_refund,
    "refund.updated": Lookup.on_refund,
    "refund.failed": Lookup.on_refund,
    "charge.dispute.created": Lookup.on_dispute,
    "charge.dispute.updated": Lookup.on_dispute,
    "charge.dispute.funds_withdrawn": Lookup.on_dispute,
    "charge.dispute.funds_reinstated": Lookup.on_dispute,
    "charge.dispute.closed": Lookup.on_dispute,
    "credit_note.created": Lookup.on_credit_note,
    "credit_note.updated": Lookup.on_credit_note,
    "credit_note.voided": Lookup.on_credit_note,
}
HANDLED_TYPES = frozenset(_HANDLERS)
