"""The fields we read of Stripe's refunds, disputes and credit notes (see `wire.py`)."""

from decimal import Decimal

from src.common.models.stripe_reversal import ReversalKind
from src.common.purchases.reversals import Movement, Reversal, disputed_funds
from src.common.stripe.wire_types import Cents, ExpandableId, Id, Text, UnixTime, Wire


class Refund(Wire):
    """`refund`."""

    id: Id
    amount: Cents
    currency: Text
    status: Text | None = None
    payment_intent: ExpandableId = None
    charge: ExpandableId = None
    metadata: dict[str, Text] | None = None
    created: UnixTime | None = None

    @property
    def request(self) -> str | None:
        """The name of the request of ours that made it, as `Gateway.create_refund` wrote it."""
        return (self.metadata or {}).get("request")

    def as_reversal(self, *, livemode: bool, payment_intent_id: str | None = None) -> Reversal:
        """The refund in our own terms; what is no end of it is on its way."""
        ended = {"succeeded", "failed", "canceled"}
        return Reversal(
            livemode=livemode,
            reversal_id=self.id,
            kind=ReversalKind.REFUND,
            status=self.status if self.status in ended else "pending",
            amount_cents=self.amount,
            currency=self.currency,
            payment_intent_id=self.payment_intent or payment_intent_id,
            request=self.request,
        )


class RefundList(Wire):
    """`charge.refunds`: the newest ten."""

    data: tuple[Refund, ...] = ()


class BalanceTransaction(Wire):
    """`balance_transaction`: money into (+) or out of (-) our Stripe balance."""

    amount: Cents = 0
    currency: Text | None = None
    exchange_rate: Decimal | None = None

    def as_movement(self) -> Movement:
        """The movement in our own terms."""
        return Movement(self.amount, self.currency, self.exchange_rate)


class Dispute(Wire):
    """`dispute`: a customer's bank wants the money back."""

    id: Id
    livemode: bool
    amount: Cents
    currency: Text
    status: Text | None = None
    payment_intent: ExpandableId = None
    charge: ExpandableId = None
    balance_transactions: tuple[BalanceTransaction, ...] = ()
    created: UnixTime | None = None

    def as_reversal(
        self, *, event_type: str | None = None, payment_intent_id: str | None = None
    ) -> Reversal:
        """The dispute in our own terms: what counts is whether the funds are with the bank."""
        funds = disputed_funds(
            self.amount,
            self.currency,
            status=self.status,
            movements=[each.as_movement() for each in self.balance_transactions],
            told=_FUNDS_BY_EVENT.get(event_type or ""),
        )
        return Reversal(
            livemode=self.livemode,
            reversal_id=self.id,
            kind=ReversalKind.DISPUTE,
            status=funds.status,
            amount_cents=funds.amount_cents,
            moved_cents=funds.moved_cents,
            currency=self.currency,
            payment_intent_id=self.payment_intent or payment_intent_id,
        )


_FUNDS_BY_EVENT = {
    "charge.dispute.funds_withdrawn": "withdrawn",
    "charge.dispute.funds_reinstated": "reinstated",
}


class CreditNoteRefund(Wire):
    """`credit_note.refunds[]`: a refund that carries part of the note."""

    amount_refunded: Cents = 0


class CreditNote(Wire):
    """`credit_note`: an invoice is taken back, in part or whole."""

    id: Id
    livemode: bool
    currency: Text
    status: Text | None = None
    type: Text | None = None
    invoice: ExpandableId = None
    amount: Cents = 0
    post_payment_amount: Cents | None = None
    """What goes back of what had been paid; told since 2024, before that the type says it."""
    refunds: list[CreditNoteRefund] | None = None
    """Since 2025-03-31; before that there was one at most."""
    refund: ExpandableId = None
    out_of_band_amount: Cents | None = None
    """What is paid back outside Stripe."""
    customer_balance_transaction: ExpandableId = None

    @property
    def tells_all(self) -> bool:
        """Whether it tells how much of it a refund carries.

        Not where another part went to the customer's balance, before 2025-03-31.
        """
        is_split = self.refund is not None and self.customer_balance_transaction is not None
        return self.refunds is not None or not is_split

    def as_reversal(self, *, payment_intent_id: str | None) -> Reversal:
        """The note in our own terms: only what no refund carries."""
        paid = self.post_payment_amount
        if paid is None:
            paid = self.amount if self.type == "post_payment" else 0
        if self.refunds is not None:
            carried = sum(each.amount_refunded for each in self.refunds)
        else:
            carried = paid - (self.out_of_band_amount or 0) if self.refund else 0
        return Reversal(
            livemode=self.livemode,
            reversal_id=self.id,
            kind=ReversalKind.CREDIT_NOTE,
            status="void" if self.status == "void" else "issued",
            amount_cents=max(paid - carried, 0),
            currency=self.currency,
            payment_intent_id=payment_intent_id,
            invoice_id=self.invoice,
        )
