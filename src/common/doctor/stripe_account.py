"""Checks of Stripe, as our key sees it: reach, permissions, webhook endpoints, clock, mode."""

from itertools import takewhile

from sqlalchemy import select

from src.common.doctor.checks import (
    Check,
    Finding,
    Needs,
    count,
    fail,
    ok,
    sentence,
    skipped,
    unknown,
    warn,
)
from src.common.doctor.context import Context
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.stripe_event import StripeEvent

NEWEST_EVENTS = 1_000
"""How many events of the inbox are looked at."""

_NO_KEY = "STRIPE_SECRET_KEY is not set."
_DASHBOARD = "dashboard.stripe.com → Developers → Webhooks"


def _stripe(context: Context) -> Finding:
    """Whether Stripe answers, and takes our key."""
    if context.settings.stripe_secret_key is None:
        return skipped(_NO_KEY)
    try:
        answers = context.stripe
    except ExceptionWithErrorType as error:
        return fail(
            sentence(error.message),
            "correct STRIPE_SECRET_KEY if Stripe refuses it, else: curl -sI https://api.stripe.com",
        )
    if answers.missing_permissions:
        return fail(
            f"Stripe answers; the restricted key lacks {', '.join(answers.missing_permissions)}.",
            "add the permissions to the key: dashboard.stripe.com → Developers → API keys",
        )
    return ok("Stripe answers, and takes our key.")


def _endpoint_events(context: Context) -> Finding:
    """Whether Stripe sends us every type of event that we handle."""
    if context.settings.stripe_secret_key is None:
        return skipped(_NO_KEY)
    answers = context.stripe
    if answers.endpoints is None:
        return _may_not_ask()
    if not answers.endpoints:
        return fail(
            "Stripe has no enabled webhook endpoint that leads to /api/v1/webhook or "
            f"/api/v1/stripe-webhook; {count(answers.others, 'other')}.",
            f"make one, or enable it: {_DASHBOARD}",
        )
    names = ", ".join(each.id for each in answers.endpoints)
    if answers.missing_types:
        return fail(
            f"Stripe does not send us {', '.join(answers.missing_types)} ({names}).",
            f"add these types to the endpoint ({_DASHBOARD}), then: "
            "flashslides stripe reconcile --since YYYY-MM-DD --repair",
        )
    return ok(f"Stripe sends every type that we handle ({names}).")


def _endpoint_version(context: Context) -> Finding:
    """Whether webhooks are written in the version of Stripe's API that we read."""
    if context.settings.stripe_secret_key is None:
        return skipped(_NO_KEY)
    answers = context.stripe
    if answers.endpoints is None:
        return _may_not_ask()
    other = {
        each.id: each.api_version
        for each in answers.endpoints
        if each.api_version not in {None, answers.api_version}
    }
    if not other and any(each.api_version is None for each in answers.endpoints):
        newest = _newest_version(context)
        if newest not in {None, answers.api_version}:
            other = {"the account's default version": newest}
    if not other:
        return ok(f"Webhooks are in {answers.api_version}, as our library is.")
    named = ", ".join(f"{name}: {version}" for name, version in other.items())
    return warn(
        f"Our library reads {answers.api_version}, and webhooks come in another version ({named}).",
        f"make an endpoint of version {answers.api_version}, then disable the old one: "
        f"{_DASHBOARD}",
    )


def _stripe_mode(context: Context) -> Finding:
    """Whether key and webhook secret are of one mode, by the events that came with the secret."""
    settings = context.settings
    if settings.stripe_livemode is None:
        return skipped("Neither STRIPE_MODE nor a key says which mode is meant.")
    newest = select(StripeEvent.livemode).order_by(StripeEvent.received_at.desc())
    with context.looking() as session:
        modes = session.scalars(newest.limit(NEWEST_EVENTS)).all()
    if not modes:
        return skipped("No event of Stripe's has come in yet.")
    ours = "live" if settings.stripe_livemode else "test"
    other = "test" if settings.stripe_livemode else "live"
    strange = sum(1 for _ in takewhile(lambda mode: mode is not settings.stripe_livemode, modes))
    if not strange:
        return ok(f"The newest event is of {ours} mode, as ours is.")
    return fail(
        f"STRIPE_WEBHOOK_SECRET belongs to {other} mode and we are in {ours} mode: what came last "
        f"is {count(strange, 'event')} of {other} mode.",
        f"set the signing secret of the {ours}-mode endpoint ({_DASHBOARD}) as "
        "STRIPE_WEBHOOK_SECRET; this is right again with the first event it signs",
    )


def _may_not_ask() -> Finding:
    return unknown(
        "Our restricted Stripe key may not read webhook endpoints.",
        "add rak_webhook_read to the key: dashboard.stripe.com → Developers → API keys",
    )


def _newest_version(context: Context) -> str | None:
    """Of the newest event in the inbox; None where nobody knows."""
    statement = select(StripeEvent.api_version).order_by(StripeEvent.received_at.desc()).limit(1)
    try:
        with context.looking() as session:
            return session.scalars(statement).one_or_none()
    except ExceptionWithErrorType:
        return None


CHECKS = (
    Check(
        "stripe",
        _stripe,
        Needs.SETTINGS,
        "Without Stripe nobody buys, and what was paid cannot be looked up.",
    ),
    Check(
        "stripe-mode",
        _stripe_mode,
        Needs.TABLES,
        "With secrets of two modes real payments are not credited, or test payments come in.",
    ),
    Check(
        "stripe-endpoint-events",
        _endpoint_events,
        Needs.STRIPE,
        "What Stripe does not send is only found by the next reconciliation.",
    ),
    Check(
        "stripe-endpoint-version",
        _endpoint_version,
        Needs.STRIPE,
        "A field that moved between versions may be read as if it were not there.",
    ),
)
