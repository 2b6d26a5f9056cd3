"""What goes wrong between us and Stripe, in our own terms."""

from typing import ClassVar

import stripe

from src.common.exceptions import ErrorKind, ExceptionWithErrorType


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


def gateway_error(error: Exception) -> StripeGatewayError:
    """What went wrong, without Stripe's sentence, which may quote what was sent."""
    if not isinstance(error, stripe.StripeError):
        return StripeGatewayError(f"Stripe cannot be reached ({type(error).__name__})")
    known = ", ".join(filter(None, [type(error).__name__, error.code, error.request_id]))
    parameter: str | None = getattr(error, "param", None)
    return StripeGatewayError(
        f"Stripe refused or failed ({known})",
        error.code,
        parameter,
        is_refusal=isinstance(error, (stripe.InvalidRequestError, stripe.CardError)),
    )
