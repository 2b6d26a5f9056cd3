"""SQLAlchemy listeners that tell the ledger of changed balances and new purchases.

Assigning `credits_balance` on a loaded `User` means a *delta* (new minus loaded), applied to the
row as it is under its lock, so that two sessions that both add lose nothing. All users of a flush
are locked in one statement, before it; whom another listener changes after that is locked when the
row is about to be written. What was written is noted (`assigned_balances.py`) and booked before
the commit.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence, Sized
from functools import lru_cache
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Row, event, exists, inspect, select
from sqlalchemy.orm import Mapper, ORMExecuteState, Session, UOWTransaction, object_session

from src.common.credits import assigned_balances
from src.common.credits.assigned_balances import is_changed
from src.common.credits.domain import errors
from src.common.credits.domain.commands import AMOUNT_MAX
from src.common.credits.opening.opening import settle_books
from src.common.credits.persistence import loaded_users
from src.common.credits.persistence.loaded_users import history_of
from src.common.credits.persistence.storage import connection_of
from src.common.exceptions import Invalid
from src.common.models.credit_lot import CreditLot
from src.common.models.transaction import Transaction
from src.common.models.user import User

_LOCKED = "flashslides.credits.locked_by_flush"
_BOOKED_COLUMNS = frozenset({"credits_balance", "credits_version"})


def install() -> None:
    """Listen to every session of the process, whichever session maker made it."""
    loaded_users.install()
    assigned_balances.install()
    if event.contains(Session, "before_flush", _before_flush):
        return
    event.listen(Session, "before_flush", _before_flush)
    event.listen(Session, "do_orm_execute", _refuse_bulk_change)
    for model, name, listener in _OF_ROWS:
        event.listen(model, name, listener, propagate=True)


def is_unobserved(session: Session, written: Iterable[object]) -> bool:
    """Whether a flush that writes these has no other listeners: nobody looks before it has ended.

    Where rows have versions of SQLAlchemy's own, its UPDATE counts them, and somebody looks.
    """
    heard = session.dispatch
    if heard.after_flush or heard.pending_to_persistent:
        return False
    if len(heard.before_flush) + len(heard.after_flush_postexec) > len(_OF_FLUSHES):
        return False
    mappers: set[Mapper[Any]] = {inspect(each).mapper for each in written}
    return all(map(_is_unobserved, mappers))


def _is_unobserved(mapper: Mapper[Any]) -> bool:
    heard: Iterable[Sized] = _row_events_of(mapper.dispatch)
    return sum(map(len, heard)) == _count_ours(mapper) and mapper.version_id_col is None


@lru_cache
def _count_ours(mapper: Mapper[Any]) -> int:
    """How many listeners the rows of this class have of the ledger's."""
    return sum(issubclass(mapper.class_, each) for each, _, _ in _OF_ROWS)


def _before_flush(session: Session, _context: UOWTransaction, _instances: object) -> None:
    """Turn assigned balances into deltas on the locked rows."""
    session.info[_LOCKED] = set()
    for each in session.new:
        if isinstance(each, User):
            _check_newcomer(session, each)
    _lock_and_apply(
        session, [each for each in session.dirty if isinstance(each, User) and is_touched(each)]
    )


def _before_update(_mapper: Mapper[Any], _connection: Connection, user: User) -> None:
    """A listener that was called after ours may have changed it still."""
    session = object_session(user)
    if session is None or not is_touched(user):
        return
    if user.user_id in session.info[_LOCKED]:
        delta = assigned_delta(user)
        _check_range(user.credits_balance - delta, delta)
    else:
        _lock_and_apply(session, [user])


def _after_update(_mapper: Mapper[Any], _connection: Connection, user: User) -> None:
    session = object_session(user)
    delta = assigned_delta(user)
    if session is None or not delta:
        return
    if user.user_id not in session.info[_LOCKED]:
        raise errors.balance_change_ambiguous(
            "A before_update listener changed credits_balance when nobody could lock the row any "
            "more: do it in before_flush, or call src.common.credits"
        )
    assigned_balances.note_change(session, user.user_id, delta)


def _after_insert(_mapper: Mapper[Any], _connection: Connection, user: User) -> None:
    session, balance = object_session(user), inspect(user).dict.get("credits_balance")
    if session is not None and balance:
        assigned_balances.note_change(session, user.user_id, balance, is_new_user=True)


def _after_purchase(_mapper: Mapper[Any], _connection: Connection, bought: Transaction) -> None:
    session = object_session(bought)
    if session is not None:
        assigned_balances.note_purchase(session, bought.user_id, bought.transaction_id)


_KEEPS_ITS_USER = "A purchase keeps its user and stays: what it was credited goes back by a refund"


def _refuse_move(_mapper: Mapper[Any], _connection: Connection, purchase: Transaction) -> None:
    """A purchase stays with its user, whose lot it pays for; the database says so too."""
    if inspect(purchase).attrs.user_id.history.added:
        raise errors.balance_change_ambiguous(_KEEPS_ITS_USER)


def _refuse_delete(_mapper: Mapper[Any], connection: Connection, purchase: Transaction) -> None:
    """One that was credited stays; a lot would name no purchase."""
    lot = exists().where(
        CreditLot.user_id == purchase.user_id, CreditLot.transaction_id == purchase.transaction_id
    )
    if connection.execute(select(lot)).scalar_one():
        raise errors.balance_change_ambiguous(_KEEPS_ITS_USER)


def _lock_and_apply(session: Session, users: Iterable[User]) -> None:
    changed = {user.user_id: (user, assigned_delta(user)) for user in users}
    if not changed:
        return
    booked = _lock(session, changed)
    behind = {
        user_id
        for user_id, balance, version in booked
        if (version == 0 and balance < 0)  # from before the ledger: what is added repays that first
        # What is due decides whether there is enough, unless the row is ahead of its entries.
        or (balance + changed[user_id][1] < 0 and not is_changed(session, user_id))
    }
    if behind:
        settle_books(session, behind)
        booked = _lock(session, changed)
        _apply([row for row in booked if row.user_id in behind], changed, session)
    for user_id, balance, _ in booked:
        _check_range(balance, changed[user_id][1])
    _apply(booked, changed, session)  # none is refused: a refusal keeps what was assigned
    session.info[_LOCKED].update(changed)


def _apply(
    rows: Iterable[Row[uuid.UUID, int, int]],
    changed: Mapping[uuid.UUID, tuple[User, int]],
    session: Session,
) -> None:
    """Have loaded users show their rows as loaded, and what was assigned as a change of that."""
    for user_id, balance, version in rows:
        user, delta = changed[user_id]
        loaded_users.show(session, user_id, balance=balance, version=version)
        user.credits_balance = balance + delta


def _lock(session: Session, user_ids: Iterable[uuid.UUID]) -> Sequence[Row[uuid.UUID, int, int]]:
    rows = connection_of(session).execute(
        select(User.user_id, User.credits_balance, User.credits_version)
        .where(User.user_id.in_(user_ids))
        .order_by(User.user_id)
        .with_for_update(key_share=True)
    )
    return rows.all()


def _check_range(balance: int, delta: int) -> None:
    if balance + delta < min(balance, 0):
        raise errors.InsufficientCredits(required=-delta, available=balance)
    if balance + delta > AMOUNT_MAX:
        raise errors.balance_limit_exceeded(AMOUNT_MAX)


def is_touched(user: User) -> bool:
    """Whether anything was assigned that the ledger books."""
    return any(history_of(user, name).has_changes() for name in _BOOKED_COLUMNS)


def assigned_delta(user: User) -> int:
    """What was assigned to the balance minus what was loaded.

    Raises:
        Invalid: BALANCE_CHANGE_NOT_A_NUMBER, something else than an integer was assigned.
    """
    history = history_of(user, "credits_balance")
    if not history.has_changes():
        return 0
    loaded: int = next(iter(history.deleted))  # active history: never changed without being loaded
    return _integer(next(iter(history.added), None)) - loaded


def _check_newcomer(session: Session, user: User) -> None:
    """A new user may have a first balance, and no history."""
    given = inspect(user).dict
    first: object = given.get("credits_balance")
    balance = 0 if first is None else _integer(first)
    if balance < 0:
        raise errors.InsufficientCredits(required=-balance, available=0)
    if balance:
        connection_of(session)  # refuses one that has no database transaction
        if given.get("credits_version"):
            raise errors.balance_change_ambiguous(
                "A copy of a User brings no credits along: set credits_balance to 0, or "
                "credits_version to 0 where the new user is to begin with that balance"
            )
    elif given.get("credits_version"):
        user.credits_version = 0


def _integer(value: object) -> int:
    if type(value) is not int:
        raise Invalid(
            "credits_balance takes an integer, no SQL expression: load the user and add to it, "
            "or call src.common.credits",
            "BALANCE_CHANGE_NOT_A_NUMBER",
        )
    return value


def _refuse_bulk_change(state: ORMExecuteState) -> None:
    """Refuse statements that would change many users' balances: nobody knew by how much.

    Those that no event tells of, the triggers refuse at commit.
    """
    if not (state.is_update or state.is_insert) or state.bind_mapper is not inspect(User):
        return
    if _BOOKED_COLUMNS & set(_names_set(state)):
        raise errors.balance_change_ambiguous(
            "A bulk statement cannot change credits_balance: load the users and add to each, or "
            "call src.common.credits"
        )


def _names_set(state: ORMExecuteState) -> Iterable[str]:
    """The columns that a statement sets; on insertion not those it sets to 0.

    No public attribute of a statement tells.
    """
    statement: Any = state.statement
    rows: list[Mapping[Any, Any]] = [getattr(statement, "_values", None) or {}]
    for several in getattr(statement, "_multi_values", ()):
        rows += several
    given = state.parameters or {}
    rows += [given] if isinstance(given, Mapping) else given
    for row in rows:
        for key, value in row.items():
            number = getattr(value, "value", value)
            if not (state.is_insert and isinstance(number, int) and number == 0):
                yield _name_of(key)
    yield from getattr(statement, "_select_names", None) or ()
    conflict = getattr(statement, "_post_values_clause", None)
    yield from map(_name_of, getattr(conflict, "update_values_to_set", ()))


def _name_of(key: Any) -> str:
    return key if isinstance(key, str) else key.key


_OF_ROWS = (
    (User, "before_update", _before_update),
    (User, "after_update", _after_update),
    (User, "after_insert", _after_insert),
    (Transaction, "after_insert", _after_purchase),
    (Transaction, "before_update", _refuse_move),
    (Transaction, "before_delete", _refuse_delete),
)
_row_events_of = attrgetter(
    *(f"{when}_{what}" for when in ("before", "after") for what in ("insert", "update", "delete"))
)
_OF_FLUSHES = ("before_flush", "after_flush_postexec")
"""Session events of which the ledger has one listener each (`operations.py`)."""
