"""Reads what is recorded of many payments and reversals at once; nothing here locks or writes."""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    SQLColumnExpression,
    String,
    Uuid,
    and_,
    cast,
    exists,
    func,
    or_,
    select,
)
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from src.common.models.checkout_order import CheckoutOrder
from src.common.models.credit_lot import CreditLot
from src.common.models.refund_request import RefundRequest
from src.common.models.stripe_reversal import StripeReversal
from src.common.models.transaction import Transaction
from src.common.models.unmatched_payment import PAYMENT_INTENT_ID, UnmatchedPayment
from src.common.purchases.rules import Payment
from src.common.purchases.whose import sees_users


@dataclass(frozen=True)
class Asked:
    """What the books are asked about."""

    payments: list[Payment] = field(default_factory=list[Payment])
    payment_intents: list[str] = field(default_factory=list[str])
    reversals: list[str] = field(default_factory=list[str])
    """Of refunds and disputes."""


@dataclass(frozen=True)
class RecordedPurchase:
    """A purchase, and whether it credited somebody."""

    row: Transaction
    is_credited: bool


@dataclass(frozen=True)
class Recorded:
    """What is recorded of what was asked for."""

    purchases: Mapping[str, Collection[RecordedPurchase]]
    """By session, PaymentIntent and invoice."""
    orders: Mapping[str | uuid.UUID, CheckoutOrder]
    """By id and by session."""
    unmatched: frozenset[str]
    """Names of payments that are or were among the unmatched."""
    reversals: Mapping[tuple[bool, str], StripeReversal]
    """By mode and id."""
    refunds_asked_for: frozenset[uuid.UUID]
    """Purchases with a refund request that no refund of Stripe's has answered yet."""

    def purchases_of(self, payment: Payment) -> list[RecordedPurchase]:
        """All that have one of the payment's names."""
        names = names_of(payment)
        found = {
            each.row.transaction_id: each for name in names for each in self.purchases.get(name, ())
        }
        return list(found.values())

    def order_of(self, payment: Payment) -> CheckoutOrder | None:
        """As `orders.find_order`: the order that the metadata names, else the session's."""
        named = self.orders.get(payment.order_id) if payment.order_id else None
        return named or self.orders.get(payment.stripe_session_id)

    def is_credited(self, payment_intent_id: str, account: str | None) -> bool:
        """Whether a PaymentIntent has a credited purchase, noted as of this connected account."""
        return any(
            each.is_credited and each.row.stripe_account == account
            for each in self.purchases.get(payment_intent_id, ())
            if each.row.payment_intent_id == payment_intent_id
        )

    def is_unmatched(self, payment: Payment) -> bool:
        """Whether the payment is or was among the unmatched."""
        return not self.unmatched.isdisjoint(names_of(payment))


def names_of(payment: Payment) -> list[str]:
    """What a payment may be called here."""
    names = (payment.stripe_session_id, payment.payment_intent_id, payment.invoice_id)
    return [each for each in names if each is not None]


def read_recorded(session: Session, asked: Asked) -> Recorded:
    """What is recorded of what is asked about, by a statement a table.

    A session that sees no user's tables reads what is nobody's.
    """
    payments, sees = asked.payments, sees_users(session)
    names = [*asked.payment_intents, *_all_names(payments)]
    purchases = _purchases(session, names if sees else ())
    paid_for = _orders(session, payments if sees else ())
    unknown = [each for each in payments if purchases.keys().isdisjoint(names_of(each))]
    known = _reversals(session, asked.reversals)
    asked_for = [each.transaction_id for each in known.values() if each.transaction_id]
    return Recorded(
        purchases,
        paid_for,
        _unmatched(session, [*_all_names(unknown)]),
        known,
        _refunds_asked_for(session, asked_for),
    )


def merged(parts: Sequence[Recorded]) -> Recorded:
    """What is recorded in several groups of users: nothing is in two of them."""
    purchases: dict[str, list[RecordedPurchase]] = {}
    for part in parts:
        for name, found in part.purchases.items():
            purchases.setdefault(name, []).extend(found)
    return Recorded(
        purchases,
        {key: order for part in parts for key, order in part.orders.items()},
        frozenset[str]().union(*(part.unmatched for part in parts)),
        {key: reversal for part in parts for key, reversal in part.reversals.items()},
        frozenset[uuid.UUID]().union(*(part.refunds_asked_for for part in parts)),
    )


def _all_names(payments: Iterable[Payment]) -> Iterable[str]:
    return (name for payment in payments for name in names_of(payment))


def _one_of(
    column: SQLColumnExpression[Any], values: Collection[Any], type_: TypeEngine[Any] | None = None
) -> ColumnElement[bool]:
    """One parameter, however many there are: the statement stays the same."""
    return column == func.any(cast(list(values), ARRAY(type_ or String())))


def _purchases(session: Session, names: Collection[str]) -> dict[str, list[RecordedPurchase]]:
    found: dict[str, list[RecordedPurchase]] = {}
    if not names:
        return found
    has_lot = exists().where(
        CreditLot.user_id == Transaction.user_id,
        CreditLot.transaction_id == Transaction.transaction_id,
    )
    statement = select(Transaction, or_(Transaction.predates_ledger, has_lot)).where(
        or_(
            _one_of(Transaction.stripe_session_id, names),
            _one_of(Transaction.payment_intent_id, names),
            _one_of(Transaction.invoice_id, names),
        )
    )
    for row, is_credited in session.execute(statement):
        purchase = RecordedPurchase(row, is_credited)
        for name in (row.stripe_session_id, row.payment_intent_id, row.invoice_id):
            if name is not None:
                found.setdefault(name, []).append(purchase)
    return found


def _orders(
    session: Session, payments: Collection[Payment]
) -> dict[str | uuid.UUID, CheckoutOrder]:
    found: dict[str | uuid.UUID, CheckoutOrder] = {}
    if not payments:
        return found
    order_ids = [each.order_id for each in payments if each.order_id is not None]
    sessions = [each.stripe_session_id for each in payments]
    statement = select(CheckoutOrder).where(
        or_(
            _one_of(CheckoutOrder.order_id, order_ids, Uuid()),
            _one_of(CheckoutOrder.stripe_session_id, sessions),
        )
    )
    for order in session.scalars(statement):
        found[order.order_id] = order
        if order.stripe_session_id is not None:
            found[order.stripe_session_id] = order
    return found


def _unmatched(session: Session, names: Collection[str]) -> frozenset[str]:
    if not names:
        return frozenset()
    statement = select(UnmatchedPayment.stripe_object_id, PAYMENT_INTENT_ID).where(
        or_(
            and_(
                UnmatchedPayment.livemode.in_((False, True)),  # then the primary key serves
                _one_of(UnmatchedPayment.stripe_object_id, names),
            ),
            _one_of(PAYMENT_INTENT_ID, names),
        )
    )
    return frozenset(name for row in session.execute(statement) for name in row if name is not None)


def _reversals(session: Session, names: Collection[str]) -> dict[tuple[bool, str], StripeReversal]:
    if not names:
        return {}
    statement = select(StripeReversal).where(
        StripeReversal.livemode.in_((False, True)), _one_of(StripeReversal.reversal_id, names)
    )
    return {(each.livemode, each.reversal_id): each for each in session.scalars(statement)}


def _refunds_asked_for(
    session: Session, transaction_ids: Collection[uuid.UUID]
) -> frozenset[uuid.UUID]:
    if not transaction_ids:
        return frozenset()
    statement = select(RefundRequest.transaction_id).where(
        _one_of(RefundRequest.transaction_id, transaction_ids, Uuid()),
        RefundRequest.status != "accepted",
    )
    return frozenset(session.scalars(statement))
