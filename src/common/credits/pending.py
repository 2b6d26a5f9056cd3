"""The document's own `user.credits_balance += n`, noted until the ledger books it.

Assigning `credits_balance` on a loaded `User` means a *delta* (new minus loaded), applied to the
row as it is under its lock, so that two sessions that both add lose nothing (DESIGN §4 rule 10).
The row changes with the flush, as the document's code expects; which entry explains it is only
known at the end of the database transaction, when all deltas and all new `Transaction`s are there.
Until then they are noted here, on the session.
"""

import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from sqlalchemy import Row, event, inspect, select
from sqlalchemy.orm import Session, SessionTransaction, UOWTransaction
from sqlalchemy.orm.attributes import set_committed_value

from src.common.credits import errors, own_commands
from src.common.credits.commands import AMOUNT_MAX, ORM_ACTOR, Command
from src.common.credits.opening import open_books
from src.common.exceptions import Conflict, Invalid
from src.common.models.transaction import Transaction
from src.common.models.user import User

_INFO_KEY = "flashslides.credits.pending"


_Lineage = tuple[SessionTransaction, ...]
"""A session's database transaction and the savepoints in it, innermost first."""


@dataclass
class _Note:
    """One change that was flushed, and the database transactions it is part of."""

    user_id: uuid.UUID
    lineage: _Lineage
    delta: int = 0
    is_new_user: bool = False
    transaction: Transaction | None = None
    booked_in: _Lineage = ()
    """Where an entry explains it already; a savepoint among them may still be rolled back."""


@dataclass
class Pending:
    """What one user's flushed changes amount to."""

    delta: int = 0
    is_new_user: bool = False
    transactions: list[Transaction] = field(default_factory=list[Transaction])

    def commands(self, user_id: uuid.UUID) -> list[Command]:
        """The entries that explain the changes (rule 10).

        Raises:
            Conflict: BALANCE_CHANGE_AMBIGUOUS, the balance changed by something else than the new
                purchases add up to.
        """
        if self.delta == 0:
            return []  # purchases alone credit nothing; they are listed as such
        if self.transactions:
            return self._purchases(user_id)
        if self.is_new_user:
            return [own_commands.opening(user_id, self.delta, actor=ORM_ACTOR)]
        return [own_commands.assignment(user_id, self.delta, actor=ORM_ACTOR)]

    def _purchases(self, user_id: uuid.UUID) -> list[Command]:
        bought = sum(each.credits_added for each in self.transactions)
        if bought != self.delta:
            raise Conflict(
                f"credits_balance changed by {self.delta}, the new transactions add {bought}: "
                "change it by just that, or call src.common.credits for the rest",
                "BALANCE_CHANGE_AMBIGUOUS",
            )
        return [
            own_commands.purchase(
                user_id,
                each.credits_added,
                transaction_id=each.transaction_id,
                stripe_session_id=each.stripe_session_id,
                actor=ORM_ACTOR,
            )
            for each in self.transactions
        ]


def read_pending(session: Session) -> dict[uuid.UUID, Pending]:
    """What was flushed and is not yet booked, of every user whose balance it changed.

    Purchases alone stay noted: the balance may follow later in the same database transaction.
    """
    pending: dict[uuid.UUID, Pending] = defaultdict(Pending)
    for note in _notes(session):
        if note.booked_in:
            continue
        each = pending[note.user_id]
        each.delta += note.delta
        each.is_new_user |= note.is_new_user
        if note.transaction is not None:
            each.transactions.append(note.transaction)
    return {user_id: each for user_id, each in pending.items() if each.delta}


def read_cancelled(session: Session) -> set[uuid.UUID]:
    """Users whose balance was changed and changed back, so that there is nothing to book."""
    sums: defaultdict[uuid.UUID, int] = defaultdict(int)
    for note in _notes(session):
        if note.delta and not note.booked_in:
            sums[note.user_id] += note.delta
    return {user_id for user_id, delta in sums.items() if delta == 0}


def mark_booked(session: Session, user_ids: AbstractSet[uuid.UUID]) -> None:
    """Entries that explain these users' changes were written."""
    booked = read_pending(session).keys() & user_ids
    lineage = _lineage(session)
    for note in _notes(session):
        if note.user_id in booked and not note.booked_in:
            note.booked_in = lineage


def has_pending(session: Session) -> bool:
    """Whether anything waits to be booked."""
    return bool(read_pending(session))


def install() -> None:
    """Listen to every session of the process, whichever session maker made it."""
    if not event.contains(Session, "before_flush", _before_flush):
        event.listen(Session, "before_flush", _before_flush)
        event.listen(Session, "after_flush", _after_flush)
        event.listen(Session, "after_soft_rollback", _after_rollback)
        event.listen(Session, "after_transaction_end", _after_end)


def _before_flush(session: Session, _context: UOWTransaction, _instances: object) -> None:
    """Turn assigned balances into deltas on the locked rows."""
    for each in session.new:
        if isinstance(each, User):
            _check_first_balance(each)
    changed = {
        user.user_id: (user, delta)
        for user in session.dirty
        if isinstance(user, User) and (delta := _assigned_delta(user))
    }
    if not changed:
        return
    booked = _lock(session, changed)
    in_debt = [user_id for user_id, balance, version in booked if version == 0 and balance < 0]
    if in_debt:  # from before the ledger: what is added repays that first
        open_books(session, in_debt)
        booked = _lock(session, changed)
    for user_id, balance, _ in booked:
        _, delta = changed[user_id]
        if balance + delta < 0:
            raise errors.InsufficientCredits(required=-delta, available=balance)
        if balance + delta > AMOUNT_MAX:
            raise errors.balance_limit_exceeded(AMOUNT_MAX)
    for user_id, balance, version in booked:  # none is refused: a refusal notes nothing
        user, delta = changed[user_id]
        set_committed_value(user, "credits_version", version)
        set_committed_value(user, "credits_balance", balance)
        user.credits_balance = balance + delta
        _note(session, _Note(user_id, _lineage(session), delta=delta))


def _lock(session: Session, user_ids: Iterable[uuid.UUID]) -> Sequence[Row[uuid.UUID, int, int]]:
    rows = session.connection(bind_arguments={"mapper": User}).execute(
        select(User.user_id, User.credits_balance, User.credits_version)
        .where(User.user_id.in_(user_ids))
        .order_by(User.user_id)
        .with_for_update(key_share=True)
    )
    return rows.all()


def _after_flush(session: Session, _context: UOWTransaction) -> None:
    """Note what was inserted: users with a balance, purchases."""
    for each in session.new:
        if isinstance(each, User) and each.credits_balance:
            _note(
                session,
                _Note(
                    each.user_id,
                    _lineage(session),
                    delta=each.credits_balance,
                    is_new_user=True,
                ),
            )
        elif isinstance(each, Transaction):
            _note(session, _Note(each.user_id, _lineage(session), transaction=each))


def _after_rollback(session: Session, rolled_back: SessionTransaction) -> None:
    """What was rolled back, a savepoint's part too, never happened, nor was it ever booked."""
    notes = [note for note in _notes(session) if rolled_back not in note.lineage]
    for note in notes:
        if rolled_back in note.booked_in:
            note.booked_in = ()
    session.info[_INFO_KEY] = notes


def _after_end(session: Session, ended: SessionTransaction) -> None:
    """Nothing is noted beyond the database transaction, however it ended: `close` tells no one."""
    if ended.parent is None:
        session.info.pop(_INFO_KEY, None)


def _assigned_delta(user: User) -> int:
    """New minus loaded.

    Raises:
        Invalid: BALANCE_CHANGE_NOT_A_NUMBER, something else than an integer was assigned.
    """
    history = inspect(user).attrs.credits_balance.history
    if not history.added or not history.deleted:
        return 0
    loaded: int = history.deleted[0]
    return _integer(history.added[0]) - loaded


def _check_first_balance(user: User) -> None:
    balance: object = inspect(user).dict.get("credits_balance")
    if balance is not None and _integer(balance) < 0:
        raise errors.InsufficientCredits(required=-user.credits_balance, available=0)


def _integer(value: object) -> int:
    if type(value) is not int:
        raise Invalid(
            "credits_balance takes an integer, no SQL expression: load the user and add to it, "
            "or call src.common.credits",
            "BALANCE_CHANGE_NOT_A_NUMBER",
        )
    return value


def _note(session: Session, note: _Note) -> None:
    session.info.setdefault(_INFO_KEY, []).append(note)


def _notes(session: Session) -> list[_Note]:
    notes: list[_Note] = session.info.get(_INFO_KEY, [])
    return notes


def _lineage(session: Session) -> _Lineage:
    lineage: list[SessionTransaction] = []
    current = session.get_nested_transaction() or session.get_transaction()
    while current is not None:
        lineage.append(current)
        current = current.parent
    return tuple(lineage)
