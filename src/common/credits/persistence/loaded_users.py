"""Brings loaded `User` objects up to date with what the ledger wrote, and back on rollback.

SQLAlchemy expires what was flushed inside a savepoint that is rolled back; a value set as if it had
been loaded it leaves alone. So what a user showed before is noted at the first change in each
savepoint, and put back: expired, it could not be read under asyncio.
"""

import uuid
from typing import Any

from sqlalchemy import event, inspect
from sqlalchemy.orm import PassiveFlag, Session, SessionTransaction
from sqlalchemy.orm.attributes import History, get_history, set_committed_value

from src.common.models.user import User

Lineage = tuple[SessionTransaction, ...]
"""A session's database transaction and the savepoints in it, innermost first."""

_NAMES = ("credits_balance", "credits_version")
_INFO_KEY = "flashslides.credits.loaded_users"

_Shown = tuple[int | None, ...]
"""Balance and version as loaded; None where they were not."""
_Notes = dict[tuple[uuid.UUID, SessionTransaction], tuple[Lineage, _Shown]]


def lineage_of(session: Session) -> Lineage:
    """Where the session is now."""
    lineage: list[SessionTransaction] = []
    current = session.get_nested_transaction() or session.get_transaction()
    while current is not None:
        lineage.append(current)
        current = current.parent
    return tuple(lineage)


def history_of(user: User, name: str) -> History:
    """What became of an attribute since it was loaded; loads nothing."""
    return get_history(user, name, PassiveFlag.PASSIVE_NO_INITIALIZE)


def show(session: Session, user_id: uuid.UUID, *, balance: int, version: int) -> None:
    """Have a `User` whom the caller has loaded show this as loaded; nothing is expired."""
    user = _loaded(session, user_id)
    lineage = lineage_of(session)
    if len(lineage) > 1:
        notes: _Notes = session.info.setdefault(_INFO_KEY, {})
        notes.setdefault((user_id, lineage[0]), (lineage, _shown_by(user)))
    if user is not None:
        _put(user, (balance, version))


def install() -> None:
    """Listen to every session of the process, whichever session maker made it."""
    if not event.contains(Session, "after_soft_rollback", _after_rollback):
        event.listen(Session, "after_soft_rollback", _after_rollback)
        event.listen(Session, "after_transaction_end", _after_end)


def _after_rollback(session: Session, rolled_back: SessionTransaction) -> None:
    """Put back what was shown before; a whole rollback has expired everything anyway."""
    notes: _Notes = session.info.get(_INFO_KEY, {})
    undone = [(*key, *note) for key, note in notes.items() if rolled_back in note[0]]
    for user_id, savepoint, _, shown in reversed(undone):  # the earliest last
        del notes[user_id, savepoint]
        user = _loaded(session, user_id)
        if user is None or not rolled_back.nested:
            continue
        if None in shown:  # loaded inside the savepoint
            session.expire(user, _NAMES)
        else:
            _put(user, shown)


def _after_end(session: Session, ended: SessionTransaction) -> None:
    if ended.parent is None:
        session.info.pop(_INFO_KEY, None)


def _loaded(session: Session, user_id: uuid.UUID) -> User | None:
    return session.identity_map.get(inspect(User).identity_key_from_primary_key((user_id,)))


def _shown_by(user: User | None) -> _Shown:
    if user is None:
        return (None, None)
    return tuple(_as_loaded(history_of(user, name)) for name in _NAMES)


def _as_loaded(history: History) -> Any:
    """The value without what was assigned since."""
    return next(iter(history.deleted or history.unchanged), None)


def _put(user: User, shown: _Shown) -> None:
    for name, value in zip(_NAMES, shown, strict=True):
        set_committed_value(user, name, value)
