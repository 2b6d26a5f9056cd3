"""Who may decide what, until when, and what takes a second person: pure (rule 13)."""

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from src.common.exceptions import Conflict, Forbidden, Invalid
from src.common.models.approval import Approval, Decision
from src.common.packages import Package
from src.common.settings import Settings

WINDOW = dt.timedelta(days=1)
"""What one person gave a user within this time counts together: many small gifts are a large one.
"""


@dataclass(frozen=True, kw_only=True)
class Credited:
    """A payment that somebody credited by hand."""

    credits: int
    paid_cents: int | None
    """What came, in the currency's smallest unit; None where only whoever credited it says so, or
    says for whom."""
    currency: str
    livemode: bool


class ApprovalStatus(StrEnum):
    """How a request stands: what was decided, or that its time is over."""

    OPEN = "open"
    EXPIRED = "expired"
    CONSENTED = "consented"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True)
class Limits:
    """Above what a second person has to consent."""

    credits_above: int
    """Whole credits that one person gives a user within `WINDOW`, or takes."""
    refund_cents_above: int
    """What one person pays back to a user within `WINDOW`, in a currency's smallest unit."""
    lifetime: dt.timedelta
    """How long somebody else may consent."""
    packages: tuple[Package, ...] = ()
    """What money buys: only credits beyond that are given by hand."""
    is_live: bool = False
    """Whether only real money buys anything."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Those of the settings."""
        return cls(
            credits_above=settings.approvals_credits_above,
            refund_cents_above=settings.approvals_refund_cents_above,
            lifetime=dt.timedelta(seconds=settings.approvals_lifetime_seconds),
            packages=settings.packages,
            is_live=settings.stripe_livemode is True,
        )


def status_of(approval: Approval, now: dt.datetime) -> ApprovalStatus:
    """How a request stands. At the very instant of its expiry it has expired."""
    if approval.status == Decision.OPEN and approval.expires_at <= now:
        return ApprovalStatus.EXPIRED
    return ApprovalStatus(approval.status)


def check_not_over(approval: Approval, now: dt.datetime) -> None:
    """Refuse to ask again, with the key of before, for what is never done.

    Raises:
        Conflict: APPROVAL_DECIDED, APPROVAL_EXPIRED.
    """
    status = status_of(approval, now)
    if status is ApprovalStatus.EXPIRED:
        raise _expired()
    if status in {ApprovalStatus.REFUSED, ApprovalStatus.WITHDRAWN}:
        raise _decided(approval)


def check_decision(approval: Approval, decision: Decision, decider: str, now: dt.datetime) -> None:
    """Refuse who may not decide so, or no longer.

    Raises:
        Conflict: APPROVAL_DECIDED, APPROVAL_EXPIRED.
        Forbidden: APPROVAL_IS_OWN, FORBIDDEN.
    """
    status = status_of(approval, now)
    if status is ApprovalStatus.EXPIRED:
        raise _expired()
    if status is not ApprovalStatus.OPEN:
        raise _decided(approval)
    is_own = approval.requester == decider
    if decision is Decision.WITHDRAWN and not is_own:
        raise Forbidden("Whoever asked withdraws; anybody else refuses", "FORBIDDEN")
    if decision is not Decision.WITHDRAWN and is_own:
        raise Forbidden(
            "Whoever asked never decides: another person does. It can be withdrawn",
            "APPROVAL_IS_OWN",
        )


def credits_beyond_price(credited: Credited, limits: Limits) -> int:
    """Whole credits beyond the largest package that the money that came buys; 0 or more."""
    is_money = credited.livemode or not limits.is_live
    paid_cents = credited.paid_cents if is_money else None
    bought = [
        each.credits
        for each in limits.packages
        if paid_cents is not None
        and each.currency == credited.currency
        and each.price_cents <= paid_cents
    ]
    return max(credited.credits - max(bought, default=0), 0)


def consent_needed() -> Invalid:
    """CONSENT_NEEDED: who may not ask here asks in the console, or by a command."""
    return Invalid(
        "This is more than one person gives or pays back alone within a day: ask for it in the "
        "console, where another person consents",
        "CONSENT_NEEDED",
    )


def check_reason(reason: str | None, field: str) -> str:
    """The reason of a request that another person is to judge.

    Raises:
        Invalid: VALIDATION_ERROR, there is none.
    """
    if reason is None:
        raise Invalid(
            f"{field}: this takes another person's consent, who needs to know what it is for",
            "VALIDATION_ERROR",
            field=field,
        )
    return reason


def _expired() -> Conflict:
    return Conflict(
        "The request has expired: it can be asked for anew, with another key", "APPROVAL_EXPIRED"
    )


def _decided(approval: Approval) -> Conflict:
    status = str(approval.status)
    return Conflict(
        f"The request was {status} by {approval.decider} already",
        "APPROVAL_DECIDED",
        status=status,
    )
