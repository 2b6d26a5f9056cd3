"""Checks of clocks: ours, the database's, Stripe's."""

import time

from sqlalchemy import text

from src.common.doctor.checks import (
    Check,
    Finding,
    Needs,
    duration,
    fail,
    ok,
    skipped,
    unknown,
    warn,
)
from src.common.doctor.context import Context

WARN_SECONDS = 5.0
FAIL_SECONDS = 240.0
"""Stripe's signatures are taken for five minutes (`src/common/stripe/signatures.py`)."""
_NOW = text("SELECT extract(epoch FROM clock_timestamp())::float")


def _database_clock(context: Context) -> Finding:
    """How far this machine's clock is from the database's."""
    with context.looking() as session:
        began = time.time()
        theirs = session.execute(_NOW).scalar_one()
        ours = (began + time.time()) / 2
    return _judge("the database's", ours - theirs)


def _stripe_clock(context: Context) -> Finding:
    """How far this machine's clock is from Stripe's, by the `Date` of its answer."""
    if context.settings.stripe_secret_key is None:
        return skipped("STRIPE_SECRET_KEY is not set.")
    ahead = context.stripe.clock_ahead_seconds
    if ahead is None:
        return unknown("Stripe's answer did not say what time it is there.")
    return _judge("Stripe's", ahead)


def _judge(whose: str, ahead: float) -> Finding:
    """What a clock means that is so many seconds before another's."""
    if abs(ahead) < WARN_SECONDS:
        return ok(f"This machine's clock and {whose} agree within {WARN_SECONDS:g} s.")
    way = "ahead of" if ahead > 0 else "behind"
    seen = f"This machine's clock is {duration(abs(ahead))} {way} {whose}."
    step = "set both clocks by NTP; here: timedatectl set-ntp true"
    return fail(seen, step) if abs(ahead) >= FAIL_SECONDS else warn(seen, step)


CHECKS = (
    Check(
        "database-clock",
        _database_clock,
        Needs.DATABASE,
        "Tokens and API keys expire by our clock, lots and holds by the database's.",
    ),
    Check(
        "stripe-clock",
        _stripe_clock,
        Needs.STRIPE,
        "Webhooks are refused whose signature looks older than five minutes.",
    ),
)
