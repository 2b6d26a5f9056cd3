"""Pure decisions about a payment: may it be credited, and is it the one we already have?

DESIGN §4 rule 4: unpaid, mismatched, wrong mode or unknown never credits and is never silent.
"""

import uuid
from dataclasses import dataclass
from enum import StrEnum

from src.common.models.transaction import Transaction
from src.common.purchases.packages import Package, find_package


@dataclass(frozen=True)
class CheckoutPayment:
    """What Stripe says about one Checkout Session; money in the currency's smallest unit."""

    stripe_session_id: str
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


class Reason(StrEnum):
    """Why a payment was not credited."""

    MODE_NOT_PAYMENT = "MODE_NOT_PAYMENT"
    NOT_PAID = "NOT_PAID"
    ENVIRONMENT_MISMATCH = "ENVIRONMENT_MISMATCH"
    LIVEMODE_MISMATCH = "LIVEMODE_MISMATCH"
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


def judge(payment: CheckoutPayment, *, env: str, livemode: bool | None) -> Package | Mismatch:
    """The package this payment bought, or why it must not be credited.

    `env` is ours; `livemode` is what our Stripe key expects, None where no key says.
    """
    package = find_package(payment.package_id)
    if payment.mode != "payment":
        return Mismatch(Reason.MODE_NOT_PAYMENT, f"The session's mode is {payment.mode}")
    if payment.env != env:
        return Mismatch(
            Reason.ENVIRONMENT_MISMATCH, f"The session was made for env {payment.env}, not {env}"
        )
    if livemode is not None and payment.livemode != livemode:
        return Mismatch(Reason.LIVEMODE_MISMATCH, "Our Stripe key is of the other mode")
    if payment.payment_status != "paid":
        return Mismatch(Reason.NOT_PAID, f"The payment status is {payment.payment_status}")
    if payment.user_id is None:
        return Mismatch(Reason.USER_UNKNOWN, "The session's metadata names no user id")
    if package is None:
        return Mismatch(Reason.PACKAGE_UNKNOWN, f"We sell no package {payment.package_id}")
    return _offer_mismatch(payment, package) or package


def _offer_mismatch(payment: CheckoutPayment, package: Package) -> Mismatch | None:
    """Where what was paid for is not what we sell under that name."""
    if payment.credits != str(package.credits):
        return Mismatch(
            Reason.CREDITS_MISMATCH,
            f"The session promises {payment.credits} credits, the package has {package.credits}",
        )
    if payment.currency != package.currency:
        return Mismatch(
            Reason.CURRENCY_MISMATCH, f"Paid in {payment.currency}, sold in {package.currency}"
        )
    if payment.amount_subtotal_cents != package.price_cents:
        return Mismatch(
            Reason.AMOUNT_MISMATCH,
            f"Priced at {payment.amount_subtotal_cents} cents, sold at {package.price_cents}",
        )
    if payment.amount_total_cents != payment.amount_subtotal_cents:
        return Mismatch(
            Reason.AMOUNT_MISMATCH,
            f"Paid {payment.amount_total_cents} cents of {payment.amount_subtotal_cents}: "
            "no order allows a discount or a tax",
        )
    return None


def is_same_purchase(existing: Transaction, payment: CheckoutPayment, package: Package) -> bool:
    """Whether the row with this payment's key is this payment; NULL means "did not say"."""
    return (
        existing.user_id == payment.user_id
        and existing.amount_paid_cents == payment.amount_total_cents
        and existing.credits_added == package.credits
        and existing.currency == payment.currency
        and existing.livemode in (payment.livemode, None)
        and existing.payment_intent_id in (payment.payment_intent_id, None)
    )
