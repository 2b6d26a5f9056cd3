"""The findings of a comparison with Stripe, and which errors are not ours."""

from dataclasses import dataclass, field
from typing import Any

from src.common.postgres.errors import concerns_other_rows
from src.common.postgres.kept_errors import keep
from src.common.purchases.rules import Reason
from src.common.stripe.gateway_errors import (
    PermissionMissing,
    StripeGatewayError,
    UnreadableObject,
)


@dataclass
class Page:
    """What one page of a stage came to."""

    cursor: str | None
    """Where the next page begins; None after the last."""
    compared: int
    findings: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


def concerns_others(error: Exception) -> bool:
    """Whether other objects would fail likewise: Stripe or the database does not answer."""
    if isinstance(error, StripeGatewayError):
        return not (error.is_refusal or isinstance(error, (PermissionMissing, UnreadableObject)))
    return concerns_other_rows(error)


def failure_of(error: Exception) -> str:
    """An error as a finding tells it."""
    kept = keep(error)
    return f"{kept.error_type}: {kept.message}"


def uncredited(name: str) -> dict[str, Any]:
    """A purchase of ours that nobody was credited for."""
    what = f"{Reason.TRANSACTION_WITHOUT_CREDIT}: a purchase that credited nobody"
    return {"object": name, "what": what, "mended": False}


def extra(name: str) -> dict[str, Any]:
    """What we have and Stripe has not."""
    return {"object": name, "what": "extra", "mended": False}
