"""A commit that changes one balance books it in one write, in place of the flush's own UPDATE.

What the document's pattern mostly is: nothing was flushed before, one user's balance was assigned,
perhaps beside one new purchase, and the commit comes. Then nobody can look between the flush and
the booking, so the row need not change twice. Whatever else a session has done takes the road of
`listeners.py` and `operations.py`, which gives the same entries and the same errors.
"""

import uuid
from typing import Any, NamedTuple

from sqlalchemy import inspect
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from src.common.credits import assigned_balances
from src.common.credits.assigned_balances import Pending, purchase_command
from src.common.credits.domain import own_commands
from src.common.credits.domain.book import StoredBook
from src.common.credits.domain.commands import AMOUNT_MAX, ORM_ACTOR, Result
from src.common.credits.domain.decisions import decide_each
from src.common.credits.listeners import assigned_delta, is_touched, is_unobserved
from src.common.credits.new_purchases import BOUGHT_THIS, NOTHING_BOUGHT, NewPurchase
from src.common.credits.persistence.storage import Key, lock_books, write_book_if
from src.common.models.transaction import Transaction
from src.common.models.user import User


class _Change(NamedTuple):
    """All that a session has to book."""

    user: User
    user_id: uuid.UUID
    loaded: int
    delta: int
    bought: Transaction | None
    """The new purchase, of just these credits."""


def book_with_commit(session: Session) -> bool:
    """Flush, and book the one balance that was assigned; whether it was that plain.

    If not, nothing was done, though perhaps the user is locked.

    Raises:
        Exception: what the flush raises.
    """
    with session.no_autoflush:
        change = _find_change(session)
    if change is None:
        return False
    books = lock_books(session, [change.user_id], keys=_keys(change))
    book = books.get(change.user_id)
    if book is None or not _is_plain(book, change.delta):
        return False
    is_booked = False
    try:
        _keep_from_flush(session, change.user, book.balance + change.delta)
        session.flush()
        is_booked = _book(session, change, book)
    finally:
        if not is_booked:
            _assign_again(change)
    return is_booked


def _find_change(session: Session) -> _Change | None:
    """The one change, where there is nothing else about credits, flushed or to be flushed."""
    new, dirty = list(session.new), list(session.dirty)  # each look makes a set anew
    touched = [each for each in dirty if isinstance(each, User) and is_touched(each)]
    if len(touched) != 1 or session.deleted or assigned_balances.has_notes(session):
        return None
    if any(isinstance(each, User) for each in new) or not is_unobserved(session, [*new, *dirty]):
        return None
    [user], bought = touched, [each for each in new if isinstance(each, Transaction)]
    delta, user_id = assigned_delta(user), _id_of(user)
    if not delta or len(bought) > 1 or inspect(user).dict.get("user_id", user_id) != user_id:
        return None
    loaded = user.credits_balance - delta
    change = _Change(user, user_id, loaded, delta, bought[0] if bought else None)
    return change if change.bought is None or _pays_for(change) else None


def _id_of(user: User) -> uuid.UUID:
    """Its row's, which is known where a rollback has expired the column."""
    identity: Any = inspect(user).identity
    user_id: uuid.UUID = identity[0]
    return user_id


def _pays_for(change: _Change) -> bool:
    """Whether the new purchase is of this user and of these credits, as far as it says so itself.

    Its columns may be given as SQL, and the user as an object or as an id.
    """
    given = inspect(change.bought).dict
    credits_added = given.get("credits_added")
    return (
        ("user" in given or "user_id" in given)
        and given.get("user", change.user) is change.user
        and given.get("user_id", change.user_id) == change.user_id
        and isinstance(given.get("stripe_session_id"), str)
        and not given.get("predates_ledger")
        and type(credits_added) is int
        and credits_added == change.delta
    )


def _keys(change: _Change) -> list[Key]:
    """What is looked up; an assignment's key is made anew each time."""
    if change.bought is None:
        return []
    return [(change.user_id, own_commands.purchase_key(change.bought.stripe_session_id))]


def _is_plain(book: StoredBook, delta: int) -> bool:
    """Whether no range is left, as the row is, and nothing is owed from before the ledger."""
    return book.balance >= 0 and 0 <= book.balance + delta <= AMOUNT_MAX


def _keep_from_flush(session: Session, user: User, balance: int) -> None:
    """Have the user show the balance as loaded; where nothing else changed, there is no flush."""
    set_committed_value(user, "credits_balance", balance)
    if not inspect(user).committed_state:
        session.merge(user, load=False)  # itself: the one call that says it has no changes


def _book(session: Session, change: _Change, book: StoredBook) -> bool:
    """Whether it was decided and written; refusals are the other road's to raise."""
    bought = _as_new_purchase(change)
    command = (
        own_commands.assignment(change.user_id, change.delta, actor=ORM_ACTOR)
        if bought is None
        else purchase_command(change.user_id, bought)
    )
    [outcome], changed = decide_each({change.user_id: book}, [command])
    if not isinstance(outcome, Result) or outcome.replayed:
        return False
    may_write, parameters = (
        (NOTHING_BOUGHT, {})
        if bought is None
        else (BOUGHT_THIS, {"purchase_id": bought.transaction_id})
    )
    updated_at = write_book_if(session, changed[0], may_write, parameters)
    if updated_at is None:
        return False
    set_committed_value(change.user, "updated_at", updated_at)
    assigned_balances.note_change(session, change.user_id, change.delta)
    pending = Pending(delta=change.delta, purchases=[] if bought is None else [bought])
    assigned_balances.mark_booked(session, {change.user_id: pending})
    return True


def _as_new_purchase(change: _Change) -> NewPurchase | None:
    """The purchase as it was just inserted."""
    bought = change.bought
    if bought is None:
        return None
    return NewPurchase(
        bought.user_id,
        bought.transaction_id,
        bought.stripe_session_id,
        bought.credits_added,
        is_credited=False,
        is_reversed=False,
    )


def _assign_again(change: _Change) -> None:
    """Have the user show the change as not flushed, unless a rollback took it back."""
    if "credits_balance" in inspect(change.user).dict:
        set_committed_value(change.user, "credits_balance", change.loaded)
        change.user.credits_balance = change.loaded + change.delta
