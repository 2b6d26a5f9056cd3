"""Errors of calls to Stripe, in our own terms."""

import re
from typing import ClassVar

import stripe

from src.common.exceptions import ErrorKind, ExceptionWithErrorType

_PERMISSION = re.compile(r"\brak_\w+")


class StripeGatewayError(ExceptionWithErrorType):
    """Stripe did not answer in time, or not as it should; the same key may ask again."""

    kind = ErrorKind.BAD_GATEWAY
    status: ClassVar[int] = 502

    def __init__(
        self,
        message: str,
        code: str | None = None,
        parameter: str | None = None,
        *,
        is_refusal: bool = False,
    ) -> None:
        super().__init__(message, "STRIPE_GATEWAY_ERROR")
        self.is_refusal = is_refusal
        """Whether Stripe said no to what was asked, and did none of it."""
        self.code = code
        """Stripe's own code where it refused what was asked, as in `charge_already_refunded`."""
        self.parameter = parameter
        """What of the request it refused, where it says so."""


class UnreadableObject(StripeGatewayError):
    """Stripe answered, with an object that is not as Stripe's are."""


class CustomerMissing(StripeGatewayError):
    """Stripe no longer has the customer we know."""


class PermissionMissing(StripeGatewayError):
    """Our key is a restricted one that may not do this; given the permission, it may."""

    def __init__(self, permission: str | None, request_id: str | None) -> None:
        named = permission or "a permission that Stripe does not name"
        trace = f" ({request_id})" if request_id else ""
        super().__init__(f"Our Stripe key lacks {named}{trace}: add it to the key at Stripe")
        self.permission = permission
        """As Stripe calls it, `rak_charge_read`; several where any of them would do."""


def gateway_error(error: Exception) -> StripeGatewayError:
    """What went wrong, without Stripe's sentence, which may quote what was sent."""
    if not isinstance(error, stripe.StripeError):
        return StripeGatewayError(f"Stripe cannot be reached ({type(error).__name__})")
    if isinstance(error, stripe.PermissionError):
        said = error.user_message or ""
        named = " or ".join(_PERMISSION.findall(said))
        if "permission" in said:  # otherwise it is an account that our key has no access to
            return PermissionMissing(named or None, error.request_id)
    known = ", ".join(filter(None, [type(error).__name__, error.code, error.request_id]))
    parameter: str | None = getattr(error, "param", None)
    return StripeGatewayError(
        f"Stripe refused or failed ({known})",
        error.code,
        parameter,
        is_refusal=isinstance(error, (stripe.InvalidRequestError, stripe.CardError)),
    )
