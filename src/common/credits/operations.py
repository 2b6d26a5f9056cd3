"""The ledger's operations, on the caller's open session: lock, decide, write, never commit.

One implementation serves the single call and several commands in one call: `decide` locks all users
in `user_id` order and puts every command to the rules in the order given (`decisions.py`);
`write_books` writes what was decided. Async callers run the same functions through
`AsyncSession.run_sync`.
"""

import datetime as dt
from collections.abc import Sequence

from sqlalchemy import event
from sqlalchemy.orm import Session

from src.common.credits.book import Book
from src.common.credits.commands import Command, Result
from src.common.credits.decisions import Outcome, decide_each, holds_named
from src.common.credits.opening import write_missing_openings
from src.common.credits.pending import (
    Pending,
    has_pending,
    mark_booked,
    read_cancelled,
    read_pending,
)
from src.common.credits.pending import install as install_listeners
from src.common.credits.storage import lock_books, write_books
from src.common.exceptions import ExceptionWithErrorType


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
    books, outcomes = decide(session, commands, now=now)
    results: list[Result] = []
    for outcome in outcomes:
        if not isinstance(outcome, Result):
            raise outcome
        results.append(outcome)
    _write(session, books)
    return results


def execute_each(
    session: Session, commands: Sequence[Command], *, now: dt.datetime | None = None
) -> list[Outcome]:
    """Do each of `commands` on its own, in one database transaction: a result or a refusal each."""
    books, outcomes = decide(session, commands, now=now)
    _write(session, books)
    return outcomes


def decide(
    session: Session, commands: Sequence[Command], *, now: dt.datetime | None
) -> tuple[list[Book], list[Outcome]]:
    """Lock, load and decide; nothing is written. The books returned hold what is to be written."""
    session.flush()
    pending = read_pending(session)
    due = [command for user_id, each in pending.items() for command in each.commands(user_id)]
    commands = [*due, *commands]
    user_ids = sorted({command.user_id for command in commands})
    keys = [(command.user_id, command.key) for command in commands]
    books = lock_books(session, user_ids, keys=keys, hold_seqs=holds_named(commands), now=now)
    for book in books.values():
        # The row is ahead of its entries by what is pending: the book begins before that.
        book.balance -= pending.get(book.user_id, Pending()).delta
    outcomes, changed = decide_each(books, commands)
    for outcome in outcomes[: len(due)]:
        if isinstance(outcome, ExceptionWithErrorType):
            raise outcome  # the row has changed already: the caller's database transaction fails
    return changed, outcomes[len(due) :]


def _write(session: Session, books: Sequence[Book]) -> None:
    write_books(session, books)
    mark_booked(session, {book.user_id for book in books})


def book_pending(session: Session) -> None:
    """Book what the document's own code changed (rule 10); part of every commit.

    Raises:
        Conflict: BALANCE_CHANGE_AMBIGUOUS.
        InsufficientCredits: the effective balance is smaller than what was taken.
    """
    if has_pending(session):
        execute(session, [])
    # A balance that was changed without an entry has one at COMMIT, though it is what it was.
    write_missing_openings(session, read_cancelled(session))


def install() -> None:
    """Have every session of this process keep the books (DESIGN §4 rule 10)."""
    install_listeners()
    if not event.contains(Session, "before_commit", _before_commit):
        event.listen(Session, "before_commit", _before_commit)


def _before_commit(session: Session) -> None:
    if session.get_nested_transaction() is None:
        session.flush()
        book_pending(session)
