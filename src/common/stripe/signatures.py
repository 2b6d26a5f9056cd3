"""Checks a webhook's signature, by Stripe's own code, against every secret we accept."""

from collections.abc import Sequence

import stripe

from src.common.exceptions import BadRequest, Unavailable

TOLERANCE_SECONDS = 300
"""A signature older than this may be a replay by somebody who overheard it (Stripe's default)."""


def verify_signature(body: bytes, header: str | None, secrets: Sequence[str]) -> None:
    """Return if one of `secrets` signed `body` within the last 300 seconds.

    Several secrets are accepted while one is being rotated out.

    Raises:
        BadRequest: WEBHOOK_SIGNATURE_INVALID.
        Unavailable: WEBHOOK_NOT_CONFIGURED, there is no secret; nothing is accepted unsigned.
    """
    if not secrets:
        raise Unavailable("STRIPE_WEBHOOK_SECRET is not set", "WEBHOOK_NOT_CONFIGURED")
    if not any(_is_signed_with(secret, body, header) for secret in secrets):
        raise BadRequest(
            "The Stripe-Signature header does not match this body and any of our secrets, or is "
            f"more than {TOLERANCE_SECONDS} seconds old",
            "WEBHOOK_SIGNATURE_INVALID",
        )


def _is_signed_with(secret: str, body: bytes, header: str | None) -> bool:
    try:
        stripe.WebhookSignature.verify_header(body, header, secret, TOLERANCE_SECONDS)
    except stripe.SignatureVerificationError:
        return False
    except (UnicodeDecodeError, TypeError):
        return False  # a body that is no UTF-8, a signature that is no ASCII: not Stripe's
    return True


def sign(body: str, secret: str) -> str:
    """The `Stripe-Signature` header Stripe would send with `body` now (tests, development)."""
    return str(stripe.WebhookSignature.generate_signature_header(body, secret))
