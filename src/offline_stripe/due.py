"""What happens by itself as time passes: sessions expire, delayed payments and refunds settle."""

from src.offline_stripe import (
    balance,
    checkout,
    clocks,
    coupons,
    invoices,
    payments,
    payouts,
    refunds,
)
from src.offline_stripe.account import Account, Object
from src.offline_stripe.cards import Behaviour, method_of

SETTLED_AFTER_SECONDS = 180
"""What a bank takes days for takes three minutes with Stripe's test accounts, and here."""


def session_of(account: Account, object_id: str) -> Object | None:
    """The Checkout Session of this id, or of this PaymentIntent."""
    for session in account.all("checkout.session"):
        if object_id in (session["id"], session["payment_intent"]):
            return session
    return None


def settle_payment(account: Account, object_id: str, *, succeeded: bool) -> Object:
    """A delayed payment of a session or a PaymentIntent comes in, or does not."""
    session = session_of(account, object_id)
    if session is None:
        return payments.settle(account, object_id, succeeded=succeeded)
    return checkout.settle(account, session["id"], succeeded=succeeded)


def authenticate(account: Account, object_id: str, *, passed: bool) -> Object:
    """The customer answers 3-D Secure for a session or a PaymentIntent."""
    session = session_of(account, object_id)
    if session is not None:
        return checkout.authenticate(account, session["id"], passed=passed)
    intent = payments.authenticate(account, object_id, passed=passed)
    invoices.note_payment(account, intent)
    return intent


def do_what_is_due(account: Account) -> None:
    """Bring the account to the present."""
    checkout.expire_due(account)
    balance.become_available(account)
    payouts.arrive_due(account)
    invoices.advance_due(account)
    coupons.lapse(account)
    latest = account.now() - SETTLED_AFTER_SECONDS
    for charged in list(account.all("charge")):
        if charged["status"] == "pending" and charged["created"] <= latest:
            method = method_of(account, account.get("payment_method", charged["payment_method"]))
            succeeded = method.behaviour is not Behaviour.DELAY_AND_FAIL
            settle_payment(account, charged["payment_intent"], succeeded=succeeded)
    for refund in list(account.all("refund")):
        if refund["status"] == "pending" and refund["created"] <= latest:
            refunds.settle(account, refund["id"], status="succeeded")
    clocks.finish_advancing(account)
