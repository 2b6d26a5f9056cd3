"""How a session executes commands: lock the users, decide, write; the caller commits.

One implementation serves the single call and several commands in one call: `decide` locks all users
in `user_id` order and puts every command to the rules in the order given (`decisions.py`);
`write_books` writes what was decided. Async callers run the same functions through
`AsyncSession.run_sync`.
"""

import datetime as dt
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction, UOWTransaction

from src.common.credits.assigned_balances import (
    Pending,
    has_pending,
    mark_booked,
    read_cancelled,
    read_pending,
)
from src.common.credits.commits import book_with_commit
from src.common.credits.domain.book import Book
from src.common.credits.domain.commands import Command, Grant, Result
from src.common.credits.domain.decisions import Outcome, decide_each, entries_named, holds_named
from src.common.credits.listeners import install as install_listeners
from src.common.credits.opening.opening import write_missing_openings
from src.common.credits.persistence.storage import lock_books, write_books
from src.common.exceptions import ExceptionWithErrorType

_COMMITTING = "flashslides.credits.committing"


class AdoptReversals(Protocol):
    """Recomputes what money back takes from users whose purchases were just credited."""

    def __call__(
        self, session: Session, transaction_ids: Sequence[uuid.UUID], *, now: dt.datetime | None
    ) -> None:
        """Called with the users locked and everything booked; several users' purchases at once."""
        ...


class _Installed:
    """What the layers above have given us to call."""

    adopt_reversals: AdoptReversals


def execute(
    session: Session, commands: Sequence[Command], *, now: dt.datetime | None = None
) -> list[Result]:
    """Do all of `commands`, for one or many users, as one atomic step; results in their order.

    Locks every user concerned in `user_id` order. A refusal does nothing at all. `now` replaces the
    database's clock, in tests.

    Raises:
        ExceptionWithErrorType: the first refusal, of `errors.py`.
        RetryableDatabaseError: a passing condition of the database.
    """
    session.flush()
    pending = _read_pending(session, commands, now)
    books, outcomes = decide(session, commands, pending, now=now)
    results: list[Result] = []
    for outcome in outcomes:
        if not isinstance(outcome, Result):
            raise outcome
        results.append(outcome)
    _write(session, books, pending)
    return results


def execute_each(
    session: Session, commands: Sequence[Command], *, now: dt.datetime | None = None
) -> list[Outcome]:
    """Do each of `commands` on its own, in one database transaction: a result or a refusal each."""
    session.flush()
    pending = _read_pending(session, commands, now)
    books, outcomes = decide(session, commands, pending, now=now)
    _write(session, books, pending)
    return outcomes


def decide(
    session: Session,
    commands: Sequence[Command],
    pending: Mapping[uuid.UUID, Pending],
    *,
    now: dt.datetime | None = None,
    is_final: bool = False,
) -> tuple[list[Book], list[Outcome]]:
    """Lock, read and decide. Nothing is written: the books returned hold what is to be written.

    What the session has changed and not booked (`pending`) comes first, all of it or nothing.
    """
    due = [
        command
        for user_id, each in pending.items()
        for command in each.commands(user_id, is_final=is_final)
    ]
    commands = [*due, *commands]
    if not commands:
        return [], []
    user_ids = sorted({command.user_id for command in commands})
    keys = [(command.user_id, command.key) for command in commands]
    books = lock_books(
        session,
        user_ids,
        keys=keys,
        hold_seqs=holds_named(commands),
        originals=entries_named(commands),
        now=now,
    )
    for book in books.values():
        # The row is ahead of its entries by what is pending: the book begins before that.
        book.balance -= pending.get(book.user_id, Pending()).delta
    outcomes, changed = decide_each(books, commands)
    for outcome in outcomes[: len(due)]:
        if isinstance(outcome, ExceptionWithErrorType):
            raise outcome  # the row has changed already: the caller's database transaction fails
    return changed, outcomes[len(due) :]


def _read_pending(
    session: Session, commands: Sequence[Command], now: dt.datetime | None
) -> Mapping[uuid.UUID, Pending]:
    """What is to be booked together with these commands.

    A purchase of a user with money back is booked before them, as in every other case. So they find
    the lots as the recomputed allocation leaves them.
    """
    pending = read_pending(session, granted=_purchases_granted(commands))
    if any(each.reversed_purchases for each in pending.values()):
        _book(session, pending, now=now)
        return {}
    return pending


def _write(session: Session, books: Sequence[Book], pending: Mapping[uuid.UUID, Pending]) -> None:
    write_books(session, books)
    mark_booked(session, pending)


def _purchases_granted(commands: Iterable[Command]) -> set[uuid.UUID]:
    """The purchases that commands credit: no other entry is wanted for them."""
    return {
        each.transaction_id
        for each in commands
        if isinstance(each, Grant) and each.transaction_id is not None
    }


def book_pending(session: Session) -> None:
    """Book what the document's own code changed (rule 10), as far as it was flushed.

    Raises:
        Conflict: BALANCE_CHANGE_AMBIGUOUS.
        InsufficientCredits: the effective balance is smaller than what was taken.
    """
    if has_pending(session):
        _book(session, read_pending(session))


def install(adopt_reversals: AdoptReversals) -> None:
    """Have every session of this process keep the books (rule 10)."""
    _Installed.adopt_reversals = adopt_reversals
    install_listeners()
    if not event.contains(Session, "before_commit", _before_commit):
        event.listen(Session, "before_commit", _before_commit)
        event.listen(Session, "after_flush_postexec", _after_flush)
        event.listen(Session, "after_transaction_end", _after_end)


def _book(
    session: Session,
    pending: Mapping[uuid.UUID, Pending],
    *,
    is_final: bool = False,
    now: dt.datetime | None = None,
) -> None:
    books, _ = decide(session, [], pending, is_final=is_final, now=now)
    _write(session, books, pending)
    bought = [each for one in pending.values() for each in one.reversed_purchases]
    if bought:
        _Installed.adopt_reversals(session, bought, now=now)


def _book_at_commit(session: Session) -> None:
    _book(session, read_pending(session, is_final=True), is_final=True)
    # A balance that was changed without an entry has one at COMMIT, though it is what it was.
    write_missing_openings(session, read_cancelled(session))


def _before_commit(session: Session) -> None:
    if session.get_nested_transaction() is None:
        session.info.pop(_COMMITTING, None)  # an earlier attempt was refused
        if not book_with_commit(session):
            session.flush()
            _book_at_commit(session)
        session.info[_COMMITTING] = True


def _after_flush(session: Session, _context: UOWTransaction) -> None:
    """Book at once what other listeners change in a commit, after ours has booked the rest."""
    if session.info.get(_COMMITTING):
        _book_at_commit(session)


def _after_end(session: Session, ended: SessionTransaction) -> None:
    if ended.parent is None:
        session.info.pop(_COMMITTING, None)
