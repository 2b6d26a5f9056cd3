"""Checks parameters by their name, such as e-mails, in whichever request they are."""

import re
from collections.abc import Callable

from src.offline_stripe.amounts import check_currency
from src.offline_stripe.errors import invalid

EMAIL_LENGTH_MAX = 800
_EMAIL = re.compile(r"[^@\s,;]+@[^@\s,;.]+(\.[^@\s,;.]+)+")


def check_email(email: str, param: str) -> None:
    """Refuse what is no e-mail address.

    Raises:
        StripeError: email_invalid.
    """
    if len(email) > EMAIL_LENGTH_MAX or not _EMAIL.fullmatch(email):
        raise invalid(f"Invalid email address: {email}", param, "email_invalid")


CHECKS: dict[str, Callable[[str, str], None]] = {
    "currency": check_currency,
    "customer_email": check_email,
    "email": check_email,
    "receipt_email": check_email,
}
"""By the last part of a parameter's name."""


def check_format(value: str, path: str) -> None:
    """Refuse a text that cannot be what its parameter's name says.

    Raises:
        StripeError: naming the parameter.
    """
    check = CHECKS.get(path.rpartition("[")[2].rstrip("]"))
    if check is not None and value:
        check(value, path)
