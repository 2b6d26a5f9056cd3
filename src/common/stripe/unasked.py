"""A gateway that never calls Stripe: tells which events can be settled without it.

While Stripe is silent, every question takes as long as its time-out. Events that need none must not
wait for it, and only reading one tells whether it asks (`lookup.py`).
"""

from collections.abc import Awaitable, Callable
from typing import Any

import stripe

from src.common.stripe.gateway import Gateway


class StripeNeeded(Exception):
    """Stripe would have to be asked, or waited for, longer than may be."""


class UnaskedGateway(Gateway):
    """Raises `StripeNeeded` instead of calling Stripe."""

    def __init__(self) -> None:
        super().__init__(stripe.StripeClient("sk_unasked"), timeout_seconds=0)

    async def _ask(
        self,
        method: Callable[..., Awaitable[Any]],  # noqa: ARG002  the gateway's signature
        *arguments: Any,  # noqa: ARG002
        **options: str,  # noqa: ARG002
    ) -> Any:
        raise StripeNeeded
