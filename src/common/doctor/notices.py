"""Checks of notices: endpoints that are told nothing, notices given up, notices that are late."""

from src.common.doctor.checks import (
    Check,
    Finding,
    Needs,
    count,
    duration,
    fail,
    ok,
    skipped,
    warn,
)
from src.common.doctor.context import Context
from src.common.notices.delivery.figures import endpoint_figures
from src.common.postgres.sides import Side

LATE_SECONDS = 3_600.0
"""How long a notice may wait: longer than the first three attempts at it take."""
_NONE = "Nobody wants to be told anything."


def _disabled_endpoints(context: Context) -> Finding:
    """Endpoints to which nothing is sent any more."""
    with context.looking() as session:
        found = endpoint_figures(session)
    if not found:
        return skipped(_NONE)
    disabled = [each for each in found if each.disabled_reason is not None]
    if not disabled:
        return ok(f"{count(len(found), 'endpoint')} enabled.")
    first = disabled[0]
    return warn(
        f"{count(len(disabled), 'endpoint')} disabled; {first.endpoint_id}: "
        f"{first.disabled_reason}.",
        f"flashslides notices endpoints enable {first.endpoint_id}, or delete it",
    )


def _dead_notices(context: Context) -> Finding:
    """Notices that nobody tries any more."""
    with context.looking() as session:
        found = endpoint_figures(session)
    dead = [each for each in found if each.dead]
    if not found:
        return skipped(_NONE)
    if not dead:
        return ok("No notice was given up.")
    first = dead[0]
    return fail(
        f"{count(sum(each.dead for each in dead), 'notice')} given up; {first.endpoint_id} said "
        f"last: {first.last_error}.",
        "flashslides notices list --status dead; then flashslides notices replay",
    )


def _late_notices(context: Context) -> Finding:
    """Endpoints for which a notice has waited for a while."""
    with context.looking() as session:
        found = [each for each in endpoint_figures(session) if each.disabled_reason is None]
    if not found:
        return skipped(_NONE)
    worst = max(found, key=lambda each: each.oldest_seconds)
    if worst.oldest_seconds < LATE_SECONDS:
        return ok("No notice is late.")
    return warn(
        f"{count(worst.pending, 'notice')} for {worst.endpoint_id} not delivered, one is "
        f"{duration(worst.oldest_seconds)} old; it failed last: {worst.last_error or 'never'}.",
        "flashslides doctor worker; then look at the endpoint, or disable it",
    )


CHECKS = (
    Check(
        "disabled-endpoints",
        _disabled_endpoints,
        Needs.TABLES,
        "Nothing that happens meanwhile is told to them, then or later.",
        may_lag=True,
        sides=(Side.USERS,),
    ),
    Check(
        "dead-notices",
        _dead_notices,
        Needs.TABLES,
        "Another system was not told of what happened to somebody's credits.",
        may_lag=True,
        sides=(Side.USERS,),
    ),
    Check(
        "late-notices",
        _late_notices,
        Needs.TABLES,
        "Another system acts on what was true a while ago.",
        may_lag=True,
        sides=(Side.USERS,),
    ),
)
