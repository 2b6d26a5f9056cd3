"""Short ways to ask the ledger for something, at instants the test chooses."""

import datetime as dt
import uuid
from itertools import count
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from src.common.credits.domain.commands import Command, Result
from src.common.credits.operations import execute
from tests.credits.books import purchase
from tests.models.examples import a_user

START = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
ACTOR = "key:slides"
_numbers = count(1)

C = TypeVar("C", bound=Command)


def at(seconds: float) -> dt.datetime:
    """The instant so many seconds after the start."""
    return START + dt.timedelta(seconds=seconds)


def someone(session: Session, **columns: Any) -> uuid.UUID:
    """A user's id; without anything in their ledger."""
    user = a_user(**columns)
    session.add(user)
    session.flush()
    return user.user_id


def ask(kind: type[C], user_id: uuid.UUID, **arguments: Any) -> C:
    """A command with a key nobody has used."""
    given: dict[str, Any] = {
        "user_id": user_id,
        "actor": ACTOR,
        "key": f"key-{next(_numbers)}",
        **arguments,
    }
    return kind(**given)


def buy(
    session: Session, user_id: uuid.UUID, now: float = 0, *, amount: int, **arguments: Any
) -> Result:
    """Pay for credits, `now` seconds after the start."""
    command = purchase(session, user_id, amount, **{"actor": ACTOR, **arguments})
    [result] = execute(session, [command], now=at(now))
    return result


def do(
    session: Session, kind: type[Command], user_id: uuid.UUID, now: float = 0, **arguments: Any
) -> Result:
    """Do it, `now` seconds after the start."""
    [result] = execute(session, [ask(kind, user_id, **arguments)], now=at(now))
    return result
