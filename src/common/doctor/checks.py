"""What a check is, and what it answers: a status, what was seen, and the next step."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from src.common.postgres.routes import search_path
from src.common.postgres.sides import Side

if TYPE_CHECKING:
    from src.common.doctor.context import Context


class Status(StrEnum):
    """How it stands with what a check looks at."""

    OK = "ok"
    WARN = "warn"
    """Somebody should act; everything works."""
    FAIL = "fail"
    """Something does not work, or money or credits are at risk."""
    UNKNOWN = "unknown"
    """It could not be looked at; what was seen says why."""
    SKIPPED = "skipped"
    """There is nothing of the kind here to look at."""


class Needs(StrEnum):
    """What has to be in reach before a check can look."""

    NOTHING = "nothing"
    SETTINGS = "settings"
    DATABASE = "database"
    """A connection to it."""
    TABLES = "tables"
    """A connection, and every migration that this release needs."""
    STRIPE = "Stripe"
    """The settings and a key; whatever it asks of the database it asks if there is one."""


@dataclass(frozen=True)
class Finding:
    """What a check answers. Neither text holds secrets or anybody's data but ids."""

    status: Status
    seen: str
    """One or a few sentences."""
    next_step: str | None = None
    """The command to run next, or, where no command does it, what to do."""


@dataclass(frozen=True)
class Check:
    """One thing that is looked at. The name is stable for ever: alerts and run-books end in it."""

    name: str
    look: Callable[["Context"], Finding]
    """The first line of its docstring says what it looks at."""
    needs: Needs
    why: str
    """Why it matters, in a sentence."""
    may_lag: bool = False
    """Whether it looks at rows alone, which a replica has as well."""
    sides: tuple[Side, ...] = ()
    """Whose tables it looks at, where groups of users have their own: at those of users once for
    each group. Empty where at those of everybody alone, or at none."""

    @property
    def looks_at(self) -> str:
        """What it looks at, in a sentence."""
        return (self.look.__doc__ or "").partition("\n")[0]


def ok(seen: str) -> Finding:
    """Nothing to do."""
    return Finding(Status.OK, seen)


def warn(seen: str, next_step: str) -> Finding:
    """Somebody should act."""
    return Finding(Status.WARN, seen, next_step)


def fail(seen: str, next_step: str) -> Finding:
    """Something does not work, or money or credits are at risk."""
    return Finding(Status.FAIL, seen, next_step)


def unknown(seen: str, next_step: str | None = None) -> Finding:
    """It could not be looked at."""
    return Finding(Status.UNKNOWN, seen, next_step)


def skipped(seen: str) -> Finding:
    """There is nothing of the kind here."""
    return Finding(Status.SKIPPED, seen)


def sentence(message: str) -> str:
    """An error's message, with a full stop."""
    return f"{message.rstrip('.')}."


def psql(statement: str) -> str:
    """The command that runs one SQL statement on the settings' database."""
    return f'flashslides db psql -c "{statement}"'


def psql_in(group: str, step: str) -> str:
    """The same command for the tables of one group of users."""
    path = f'-c "SET search_path = {search_path(group)}" -c '
    return step.replace("flashslides db psql -c ", f"flashslides db psql {path}")


def duration(seconds: float) -> str:
    """So long, for people: `45 s`, `12 min`, `3.5 h`, `8 days`."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


def count(number: int, one: str, several: str | None = None) -> str:
    """So many of something: `1 event`, `2 events`."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"
