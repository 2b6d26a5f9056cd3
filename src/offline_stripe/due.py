"""What happens by itself as time passes: sessions expire, delayed payments and refunds settle."""

from collections.abc import Callable
from functools import partial

import structlog

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
from src.offline_stripe.errors import StripeError

SETTLED_AFTER_SECONDS = 180
"""What a bank takes days for takes three minutes with Stripe's test accounts, and here."""
_CANNOT = "cannot_be_done"

log = structlog.get_logger(__name__)


def session_of(account: Account, object_id: str) -> Object | None:
    """The Checkout Session of this id, or of this PaymentIntent."""
    for session in account.all("checkout.session"):
        if object_id in (session["id"], session["payment_intent"]):
            return session
    return None


def settle_payment(account: Account, object_id: str, *, succeeded: bool) -> Object:
    """A delayed payment of a session or a PaymentIntent comes in, or does not."""
    session = session_of(account, object_id)
    if session is not None:
        return checkout.settle(account, session["id"], succeeded=succeeded)
    intent = payments.settle(account, object_id, succeeded=succeeded)
    invoices.note_payment(account, intent)
    return intent


def authenticate(account: Account, object_id: str, *, passed: bool) -> Object:
    """The customer answers 3-D Secure for a session or a PaymentIntent."""
    session = session_of(account, object_id)
    if session is not None:
        return checkout.authenticate(account, session["id"], passed=passed)
    intent = payments.authenticate(account, object_id, passed=passed)
    invoices.note_payment(account, intent)
    return intent


def do_what_is_due(account: Account) -> None:
    """Bring the account to the present; what cannot be done is noted, and stops nothing else."""
    now = account.now()
    sessions = account.all("checkout.session")
    expired = [each for each in sessions if each["status"] == "open" and each["expires_at"] <= now]
    _do_each(account, expired, partial(checkout.expire, account, {}))
    balance.become_available(account)
    payouts.arrive_due(account)
    _do_each(account, invoices.due(account), partial(invoices.advance, account))
    coupons.lapse(account)
    _do_each(account, _long_pending(account, "charge"), partial(_settle_charge, account))
    refund = partial(refunds.settle, account, status="succeeded")
    _do_each(account, _long_pending(account, "refund"), refund)
    clocks.finish_advancing(account)


def _do_each(account: Account, found: list[Object], act: Callable[[str], object]) -> None:
    """Do it to each by its id; one that refuses is not tried again."""
    for object_id in [each["id"] for each in found]:
        if _CANNOT in account.state.private.get(object_id, {}):
            continue
        try:
            act(object_id)
        except StripeError as error:
            account.private(object_id)[_CANNOT] = str(error)
            log.warning("offline_stripe.cannot_be_done", object_id=object_id, reason=str(error))


def _long_pending(account: Account, kind: str) -> list[Object]:
    latest = account.now() - SETTLED_AFTER_SECONDS
    found = account.all(kind)
    return [each for each in found if each["status"] == "pending" and each["created"] <= latest]


def _settle_charge(account: Account, charge_id: str) -> None:
    charged = account.get("charge", charge_id)
    method = method_of(account, account.get("payment_method", charged["payment_method"]))
    succeeded = method.behaviour is not Behaviour.DELAY_AND_FAIL
    settle_payment(account, charged["payment_intent"], succeeded=succeeded)
