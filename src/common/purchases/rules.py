"""May a payment be credited, and is it one we already have? Pure.

Rule 4: what is unpaid, mismatched, wrong mode or unknown never credits and is never silent.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from src.common.models.checkout_order import CheckoutOrder
from src.common.models.transaction import Transaction
from src.common.purchases.packages import Package, find_package


@dataclass(frozen=True)
class Payment:
    """What Stripe says about one payment; money in the currency's smallest unit."""

    stripe_session_id: str
    """The Stripe object that paid: `cs_…`, or `in_…`/`pi_…` where there is no session."""
    livemode: bool
    mode: str | None
    payment_status: str | None
    payment_intent_id: str | None
    currency: str | None
    amount_subtotal_cents: int | None
    """The price of what was sold, before discounts and taxes."""
    amount_total_cents: int | None
    """What the customer paid."""
    env: str | None
    user_id: uuid.UUID | None
    package_id: str | None
    credits: str | None
    discount_cents: int = 0
    tax_cents: int = 0
    order_id: uuid.UUID | None = None
    """The order of ours that the metadata names."""
    invoice_id: str | None = None
    stripe_account: str | None = None
    """The connected account that was paid; None where it is our own."""


@dataclass(frozen=True)
class Terms:
    """Under what conditions we credit."""

    env: str
    livemode: bool | None = None
    """What our Stripe key expects; None where no key says."""
    packages: Sequence[Package] = ()
    requires_order: bool = False


@dataclass(frozen=True)
class Offer:
    """What somebody was to get for how much."""

    user_id: uuid.UUID
    credits: int
    amount_cents: int
    currency: str
    allows_discount: bool = False
    allows_tax: bool = False


class Reason(StrEnum):
    """Why a payment was not credited."""

    MODE_NOT_PAYMENT = "MODE_NOT_PAYMENT"
    NOT_PAID = "NOT_PAID"
    ENVIRONMENT_MISMATCH = "ENVIRONMENT_MISMATCH"
    LIVEMODE_MISMATCH = "LIVEMODE_MISMATCH"
    ORDER_REQUIRED = "ORDER_REQUIRED"
    ORDER_UNKNOWN = "ORDER_UNKNOWN"
    ORDER_MISMATCH = "ORDER_MISMATCH"
    USER_UNKNOWN = "USER_UNKNOWN"
    PACKAGE_UNKNOWN = "PACKAGE_UNKNOWN"
    CREDITS_MISMATCH = "CREDITS_MISMATCH"
    CURRENCY_MISMATCH = "CURRENCY_MISMATCH"
    AMOUNT_MISMATCH = "AMOUNT_MISMATCH"
    BALANCE_LIMIT_EXCEEDED = "BALANCE_LIMIT_EXCEEDED"
    PAYMENT_CONFLICT = "PAYMENT_CONFLICT"
    TRANSACTION_WITHOUT_CREDIT = "TRANSACTION_WITHOUT_CREDIT"


@dataclass(frozen=True)
class Mismatch:
    """Why a payment must not be credited, with one sentence for whoever resolves it."""

    reason: Reason
    explanation: str


def judge(payment: Payment, order: CheckoutOrder | None, terms: Terms) -> Offer | Mismatch:
    """What this payment bought, or why it must not be credited."""
    if payment.mode != "payment":
        return Mismatch(Reason.MODE_NOT_PAYMENT, f"The session's mode is {payment.mode}")
    if payment.env != terms.env:
        return Mismatch(
            Reason.ENVIRONMENT_MISMATCH,
            f"The session was made for env {payment.env}, not {terms.env}",
        )
    if terms.livemode is not None and payment.livemode != terms.livemode:
        return Mismatch(Reason.LIVEMODE_MISMATCH, "Our Stripe key is of the other mode")
    offer = _ordered(payment, order, terms) or _advertised(payment, terms)
    if isinstance(offer, Mismatch):
        return offer
    return _price_mismatch(payment, offer) or offer


def is_same_purchase(existing: Transaction, payment: Payment, order: CheckoutOrder | None) -> bool:
    """Whether the row with this payment's key is this payment.

    What one of them does not say conflicts with nothing: events of old API versions lack currency
    and amounts, an invoice and a charge name no user.
    """
    said: tuple[tuple[object, object], ...] = (
        (existing.user_id, order.user_id if order else payment.user_id),
        (existing.amount_paid_cents, payment.amount_total_cents),
        (str(existing.credits_added), str(order.credits) if order else payment.credits),
        (existing.currency, payment.currency),
        (existing.livemode, payment.livemode),
        (existing.payment_intent_id, payment.payment_intent_id),
    )
    return all(ours == theirs or None in (ours, theirs) for ours, theirs in said)


def learnt_from(existing: Transaction, payment: Payment) -> dict[str, object]:
    """What the payment says that its purchase, as application code wrote it, does not."""
    return {
        name: value
        for name in ("payment_intent_id", "invoice_id", "livemode")
        if getattr(existing, name) is None and (value := getattr(payment, name)) is not None
    }


def _ordered(
    payment: Payment, order: CheckoutOrder | None, terms: Terms
) -> Offer | Mismatch | None:
    """What our own order offered; None where the payment is of no order and needs none."""
    if order is None:
        if payment.order_id is not None:
            return Mismatch(Reason.ORDER_UNKNOWN, f"We have no order {payment.order_id}")
        if terms.requires_order:
            return Mismatch(Reason.ORDER_REQUIRED, "We did not make this session")
        return None
    named = (payment.user_id, payment.package_id, payment.credits)
    if named != (order.user_id, order.package_id, str(order.credits)):
        return Mismatch(
            Reason.ORDER_MISMATCH, f"The metadata is not what order {order.order_id} says"
        )
    if payment.livemode != order.livemode:
        return Mismatch(Reason.LIVEMODE_MISMATCH, "The order was made in the other mode")
    return Offer(
        user_id=order.user_id,
        credits=order.credits,
        amount_cents=order.amount_cents,
        currency=order.currency,
        allows_discount=order.allows_discount,
        allows_tax=order.allows_tax,
    )


def _advertised(payment: Payment, terms: Terms) -> Offer | Mismatch:
    """What the metadata of a session that somebody else made promises, if we sell it."""
    if payment.payment_status != "paid":
        return _not_paid(payment)
    if payment.user_id is None:
        return Mismatch(Reason.USER_UNKNOWN, "The session's metadata names no user id")
    package = find_package(payment.package_id, terms.packages)
    if package is None:
        return Mismatch(Reason.PACKAGE_UNKNOWN, f"We sell no package {payment.package_id}")
    if payment.credits != str(package.credits):
        return Mismatch(
            Reason.CREDITS_MISMATCH,
            f"The session promises {payment.credits} credits, the package has {package.credits}",
        )
    return Offer(payment.user_id, package.credits, package.price_cents, package.currency)


def _price_mismatch(payment: Payment, offer: Offer) -> Mismatch | None:
    """Where what was paid is not what was asked for.

    Taxes that the price includes add nothing to it, others do; which they are is the account's own
    default, so both are right (docs.stripe.com/tax/products-prices-tax-codes-tax-behavior).
    """
    least = offer.amount_cents - (payment.discount_cents if offer.allows_discount else 0)
    most = least + (payment.tax_cents if offer.allows_tax else 0)
    is_free = least == 0 and payment.amount_total_cents == 0
    if payment.payment_status != ("no_payment_required" if is_free else "paid"):
        return _not_paid(payment)
    if payment.currency != offer.currency:
        return Mismatch(
            Reason.CURRENCY_MISMATCH, f"Paid in {payment.currency}, sold in {offer.currency}"
        )
    if payment.amount_subtotal_cents != offer.amount_cents:
        return Mismatch(
            Reason.AMOUNT_MISMATCH,
            f"Priced at {payment.amount_subtotal_cents} cents, sold at {offer.amount_cents}",
        )
    if payment.amount_total_cents is None or not least <= payment.amount_total_cents <= most:
        return Mismatch(
            Reason.AMOUNT_MISMATCH,
            f"Paid {payment.amount_total_cents} cents, expected {least} to {most}: "
            "no order allows such a discount or tax",
        )
    return None


def _not_paid(payment: Payment) -> Mismatch:
    return Mismatch(Reason.NOT_PAID, f"The payment status is {payment.payment_status}")
