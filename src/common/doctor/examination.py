"""Runs checks, one after the other; what goes wrong with one is an answer of that one alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError

from src.common.doctor.checks import (
    Check,
    Finding,
    Needs,
    Status,
    psql_in,
    sentence,
    skipped,
    unknown,
)
from src.common.doctor.context import Context
from src.common.exceptions import ExceptionWithErrorType
from src.common.postgres.errors import RetryableDatabaseError, sqlstate_of
from src.common.postgres.kept_errors import keep
from src.common.postgres.migrations import is_behind
from src.common.postgres.routes import SHARED_SCHEMA, is_group
from src.common.postgres.sides import Side

NOT_LOOKED_AT = "Not looked at: "
"""How an answer begins whose check could not begin; the rest says why."""
_INSUFFICIENT_PRIVILEGE = "42501"
_SEVERITY = (Status.FAIL, Status.UNKNOWN, Status.WARN)
_GRAVEST = (*_SEVERITY, Status.OK, Status.SKIPPED)
_SHOWN = 3
"""So many groups are named where a check found something in more."""


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A check and what it found; the fields are those of `flashslides doctor --json`."""

    name: str
    status: Status
    seen: str
    why: str
    next: str | None
    """The command to run next, or what to do; None where there is nothing to do."""

    @property
    def not_looked_at_because(self) -> str | None:
        """What was out of reach, so that the check did not begin; None where it did."""
        before, _, why = self.seen.partition(NOT_LOOKED_AT)
        return why.rstrip(".") if self.status is Status.UNKNOWN and why and not before else None


def examine(checks: Sequence[Check], context: Context) -> Iterator[Examined]:
    """Each check's answer, in their order, as soon as it is there."""
    for check in checks:
        with context.serving(check):
            finding = _look(check, context)
        yield Examined(
            name=check.name,
            status=finding.status,
            seen=finding.seen,
            why=check.why,
            next=finding.next_step,
        )


def worst(examined: Sequence[Examined]) -> Status:
    """The gravest status: fail, unknown, warn, or ok where everything is ok or not there."""
    found = {each.status for each in examined}
    return next((status for status in _SEVERITY if status in found), Status.OK)


def _look(check: Check, context: Context) -> Finding:
    return _answer(lambda: _out_of_reach(check, context) or _look_everywhere(check, context))


def _look_everywhere(check: Check, context: Context) -> Finding:
    """What a check finds; of tables that groups of users have, in each group."""
    if not check.sides or not context.is_divided:
        return check.look(context)
    places = [SHARED_SCHEMA] if Side.EVERYBODY in check.sides else []
    places += context.groups if Side.USERS in check.sides else []
    if not places:
        return skipped("There is no group of users yet: see `flashslides shards create`.")
    found: dict[str, Finding] = {}
    for place in places:
        with context.in_group(None if place == SHARED_SCHEMA else place):
            found[place] = _answer(lambda: _out_of_reach(check, context) or check.look(context))
    return _merge(found)


def _merge(found: Mapping[str, Finding]) -> Finding:
    """The gravest findings, each with the place; one sentence where all places say the same."""
    status = next(each for each in _GRAVEST if each in {it.status for it in found.values()})
    places = [place for place, finding in found.items() if finding.status is status]
    first = found[places[0]]
    step = first.next_step
    if step is not None and is_group(places[0]):
        step = psql_in(places[0], step)
    if len(places) == len(found) and len({each.seen for each in found.values()}) == 1:
        return Finding(status, f"Everywhere: {first.seen}", step)
    shown = " ".join(f"{place}: {found[place].seen}" for place in places[:_SHOWN])
    more = f" And {len(places) - _SHOWN} more." if len(places) > _SHOWN else ""
    return Finding(status, shown + more, step)


def _answer(look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except RetryableDatabaseError as error:
        return unknown(f"The database did not answer this ({error.reason}).")
    except ExceptionWithErrorType as error:
        return unknown(sentence(error.message))
    except DBAPIError as error:
        if sqlstate_of(error) == _INSUFFICIENT_PRIVILEGE:
            return unknown(
                f"This role may not look: {keep(error).message}.",
                "flashslides db grant-runtime the_role_of_DATABASE_USER",
            )
        return unknown(f"The database refused the look: {keep(error).message}.")
    except Exception as error:  # noqa: BLE001  an edge: the other checks go on
        return unknown(f"The check itself failed: {keep(error).message}.")


def _out_of_reach(check: Check, context: Context) -> Finding | None:
    """Why a check cannot look; None where all it needs is in reach."""
    if check.needs is Needs.NOTHING:
        return None
    try:
        _ = context.settings
    except ExceptionWithErrorType:
        return unknown(
            f"{NOT_LOOKED_AT}the settings cannot be used.", "flashslides doctor settings"
        )
    if check.needs in {Needs.DATABASE, Needs.TABLES}:
        try:
            _ = context.session
        except ExceptionWithErrorType:
            return unknown(
                f"{NOT_LOOKED_AT}the database is out of reach.", "flashslides doctor database"
            )
    if check.needs is Needs.TABLES and is_behind(next(iter(context.revisions), None)):
        return unknown(
            f"{NOT_LOOKED_AT}the database lacks migrations.", "flashslides doctor migrations"
        )
    if check.needs is Needs.STRIPE and context.settings.stripe_secret_key is not None:
        try:
            _ = context.stripe
        except ExceptionWithErrorType:
            return unknown(f"{NOT_LOOKED_AT}Stripe does not answer.", "flashslides doctor stripe")
    return None
