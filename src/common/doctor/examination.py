"""Runs checks, one after the other; what goes wrong with one is an answer of that one alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError

from src.common.database_settings import Sharding
from src.common.doctor.checks import Check, Finding, Needs, Status, sentence, unknown
from src.common.doctor.context import Context
from src.common.exceptions import ExceptionWithErrorType
from src.common.postgres.errors import RetryableDatabaseError, sqlstate_of
from src.common.postgres.kept_errors import keep
from src.common.postgres.migrations import is_behind

NOT_LOOKED_AT = "Not looked at: "
"""How an answer begins whose check could not begin; the rest says why."""
_INSUFFICIENT_PRIVILEGE = "42501"
_SEVERITY = (Status.FAIL, Status.UNKNOWN, Status.WARN)


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
    try:
        return _out_of_reach(check, context) or check.look(context)
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
    if check.needs is Needs.TABLES and context.settings.sharding is not Sharding.NONE:
        return unknown(f"{NOT_LOOKED_AT}SHARDING=schemas, and it would see one group of users.")
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
