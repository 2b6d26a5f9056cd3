"""Notes what `user.credits_balance += n` changed, until the ledger books it.

The row changes with the flush, as the document's code expects (`listeners.py`). Which entry
explains the change is known only at the end of the database transaction, when all changes and all
new purchases are there. Until then the changes are noted here, on the session. The database itself
is asked for the purchases, so it makes no difference how they were written.
"""

import uuid
from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from src.common.credits.domain import errors, own_commands
from src.common.credits.domain.commands import ORM_ACTOR, Command
from src.common.credits.new_purchases import NewPurchase, find_new_purchases
from src.common.credits.persistence.loaded_users import Lineage, lineage_of

_INFO_KEY = "flashslides.credits.pending"


@dataclass
class _Note:
    """A change of a balance, or a purchase, that was flushed, and what it is part of."""

    user_id: uuid.UUID
    lineage: Lineage
    delta: int = 0
    is_new_user: bool = False
    transaction_id: uuid.UUID | None = None
    booked_in: Lineage = ()
    """Where an entry explains it already; a savepoint among them may still be rolled back."""
    is_bought: bool = False
    """Whether that entry is a purchase's."""


@dataclass
class Pending:
    """What one user's flushed changes amount to."""

    delta: int = 0
    """What is to be booked."""
    booked: int = 0
    """What was booked before, in this database transaction, as something else than purchases."""
    is_new_user: bool = False
    announced: set[uuid.UUID] = field(default_factory=set[uuid.UUID])
    """Purchases that the session inserted for this user."""
    purchases: list[NewPurchase] = field(default_factory=list[NewPurchase])
    """Those that are there now and credited to nobody."""

    @property
    def reversed_purchases(self) -> list[uuid.UUID]:
        """The purchases to be booked whose credits money back takes from, or gives back to."""
        return [each.transaction_id for each in self.purchases if self.delta and each.is_reversed]

    def commands(self, user_id: uuid.UUID, *, is_final: bool = False) -> list[Command]:
        """The entries that explain the changes (rule 10).

        At the end, when `is_final`, a purchase may not be left whose credits were booked before as
        something else: settling it later would pay them twice.

        Raises:
            Conflict: BALANCE_CHANGE_AMBIGUOUS, the balance changed by something else than the new
                purchases add up to.
        """
        bought = sum(each.credits_added for each in self.purchases)
        if self.purchases and bought == self.delta:
            return [purchase_command(user_id, each) for each in self.purchases]
        if self.delta == 0 and not (is_final and self.booked and self.purchases):
            return []  # purchases alone credit nothing; they are listed as such
        if self.purchases or self.announced:
            raise errors.balance_change_ambiguous(
                f"credits_balance changed by {self.delta or self.booked}, the new transactions add "
                f"{bought}: change it by just that, after the last of them was added and before "
                "anything else is asked of the ledger, or call src.common.credits for the rest"
            )
        if self.is_new_user:
            return [own_commands.opening(user_id, self.delta, actor=ORM_ACTOR)]
        return [own_commands.assignment(user_id, self.delta, actor=ORM_ACTOR)]


def purchase_command(user_id: uuid.UUID, purchase: NewPurchase) -> Command:
    """The entry that explains a new purchase."""
    return own_commands.purchase(
        user_id,
        purchase.credits_added,
        transaction_id=purchase.transaction_id,
        stripe_session_id=purchase.stripe_session_id,
        actor=ORM_ACTOR,
    )


def note_change(
    session: Session, user_id: uuid.UUID, delta: int, *, is_new_user: bool = False
) -> None:
    """A user's row was written with a balance changed by `delta`."""
    _add(session, _Note(user_id, lineage_of(session), delta=delta, is_new_user=is_new_user))


def note_purchase(session: Session, user_id: uuid.UUID, transaction_id: uuid.UUID) -> None:
    """The session inserted a purchase: it was meant, should it be gone when its sum is booked."""
    _add(session, _Note(user_id, lineage_of(session), transaction_id=transaction_id))


def has_notes(session: Session) -> bool:
    """Whether a balance was written or a purchase inserted in this database transaction."""
    return bool(_notes(session))


def is_changed(session: Session, user_id: uuid.UUID) -> bool:
    """Whether the user's row was changed, perhaps back again, by what is not booked yet."""
    return any(
        note.user_id == user_id and note.delta and not note.booked_in for note in _notes(session)
    )


def has_pending(session: Session) -> bool:
    """Whether anything waits to be booked."""
    return any(each.delta for each in _sums(session).values())


def read_cancelled(session: Session) -> set[uuid.UUID]:
    """Users whose balance was changed and changed back, so that there is nothing to book."""
    changed = {note.user_id for note in _notes(session) if note.delta and not note.booked_in}
    return {user_id for user_id, each in _sums(session).items() if not each.delta} & changed


def read_pending(
    session: Session,
    *,
    granted: AbstractSet[uuid.UUID] = frozenset(),
    is_final: bool = False,
) -> dict[uuid.UUID, Pending]:
    """What was flushed and is not yet booked, of every user whose balance it changed.

    When `is_final`, also what was booked before. `granted` are purchases that are being credited by
    a command of their own.
    """
    pending = {
        user_id: each
        for user_id, each in _sums(session).items()
        if each.delta or (is_final and each.booked)
    }
    if pending:
        for purchase in find_new_purchases(session, pending):
            each = pending[purchase.user_id]
            each.announced.discard(purchase.transaction_id)
            if not purchase.is_credited and purchase.transaction_id not in granted:
                each.purchases.append(purchase)
    return pending


def mark_booked(session: Session, booked: Mapping[uuid.UUID, Pending]) -> None:
    """Entries that explain these users' changes were written."""
    lineage = lineage_of(session)
    for note in _notes(session):
        each = booked.get(note.user_id)
        if each is not None and each.delta and not note.booked_in:
            note.booked_in, note.is_bought = lineage, bool(each.purchases)


def install() -> None:
    """Listen to every session of the process, whichever session maker made it."""
    if not event.contains(Session, "after_soft_rollback", _after_rollback):
        event.listen(Session, "after_soft_rollback", _after_rollback)
        event.listen(Session, "after_transaction_end", _after_end)


def _after_rollback(session: Session, rolled_back: SessionTransaction) -> None:
    """What was rolled back, a savepoint's part too, never happened, nor was it ever booked."""
    notes = [note for note in _notes(session) if rolled_back not in note.lineage]
    for note in notes:
        if rolled_back in note.booked_in:
            note.booked_in, note.is_bought = (), False
    session.info[_INFO_KEY] = notes


def _after_end(session: Session, ended: SessionTransaction) -> None:
    """Nothing is noted beyond the database transaction, however it ended: `close` tells no one."""
    if ended.parent is None:
        session.info.pop(_INFO_KEY, None)


def _sums(session: Session) -> dict[uuid.UUID, Pending]:
    sums: defaultdict[uuid.UUID, Pending] = defaultdict(Pending)
    for note in _notes(session):
        each = sums[note.user_id]
        if note.booked_in:
            each.booked += 0 if note.is_bought else note.delta
            continue
        each.delta += note.delta
        each.is_new_user |= note.is_new_user
        if note.transaction_id is not None:
            each.announced.add(note.transaction_id)
    return sums


def _add(session: Session, note: _Note) -> None:
    session.info.setdefault(_INFO_KEY, []).append(note)


def _notes(session: Session) -> list[_Note]:
    notes: list[_Note] = session.info.get(_INFO_KEY, [])
    return notes
