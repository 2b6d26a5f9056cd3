"""The ledger's operations, on the caller's open session: lock, decide, write, never commit.

One implementation serves the single call, several commands in one call and the batch: `decide`
locks all users in `user_id` order and puts every command to the rules in the order given;
`write_books` writes what was decided. Async callers run the same functions through
`AsyncSession.run_sync`.
"""

import datetime as dt
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace

from sqlalchemy import event
from sqlalchemy.orm import Session

from src.common.credits import errors, rules
from src.common.credits.book import Book
from src.common.credits.commands import Capture, Command, Opening, Release, Renew, Result
from src.common.credits.pending import Pending, has_pending, mark_booked, read_pending
from src.common.credits.pending import install as install_listeners
from src.common.credits.storage import find_entries, load_books, lock_users, write_books
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.credit_entry import CreditEntry
from src.common.models.credit_lot import LotSource

OPEN_HOLDS_MAX = 100
"""How many open holds one user may have."""

Outcome = Result | ExceptionWithErrorType
_Replays = dict[tuple[uuid.UUID, str], tuple[bytes, Result]]


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
    lock_users(session, user_ids)
    books = load_books(session, user_ids, hold_seqs=_holds_named(commands), now=now)
    replays: _Replays = {
        (entry.user_id, entry.idempotency_key): (entry.request_digest, result_of_entry(entry))
        for entry in find_entries(session, [(each.user_id, each.key) for each in commands])
    }
    for book in books.values():
        open_book(book, pending.get(book.user_id, Pending()).delta)
        rules.settle(book)
    succeeded: set[uuid.UUID] = set()
    outcomes: list[Outcome] = []
    for position, command in enumerate(commands):
        outcome = _outcome(books.get(command.user_id), command, replays)
        if position < len(due) and isinstance(outcome, ExceptionWithErrorType):
            raise outcome  # the row has changed already: the caller's database transaction fails
        outcomes.append(outcome)
        if isinstance(outcome, Result) and not outcome.replayed:
            succeeded.add(command.user_id)
            replays[command.user_id, command.key] = (command.digest, outcome)
    # What fell due is booked only with an operation that succeeds (rule 8).
    return [books[user_id] for user_id in sorted(succeeded)], outcomes[len(due) :]


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


def install() -> None:
    """Have every session of this process keep the books (DESIGN §4 rule 10)."""
    install_listeners()
    if not event.contains(Session, "before_commit", _before_commit):
        event.listen(Session, "before_commit", _before_commit)


def _before_commit(session: Session) -> None:
    if session.get_nested_transaction() is None:
        session.flush()
        book_pending(session)


def open_book(book: Book, pending_delta: int = 0) -> None:
    """Take the book back to before the pending changes; give a balance without entries one.

    A user from before the ledger has a balance and no entry: the first operation writes it.
    """
    book.balance -= pending_delta
    if book.version == 0 and book.balance > 0:
        amount, book.balance = book.balance, 0
        command = Opening(
            user_id=book.user_id,
            key="~opening",
            actor="system:ledger",
            amount=amount,
            source=LotSource.OPENING,
        )
        rules.apply(book, command, open_holds_max=OPEN_HOLDS_MAX)


def result_of_entry(entry: CreditEntry) -> Result:
    """What the operation that wrote this entry answered, as a replay."""
    return Result(
        user_id=entry.user_id,
        seq=entry.seq,
        kind=entry.kind,
        amount=entry.amount,
        captured=entry.captured,
        balance=entry.result_balance,
        created_at=entry.created_at,
        expires_at=entry.hold_expires_at,
        replayed=True,
    )


def _outcome(book: Book | None, command: Command, replays: _Replays) -> Outcome:
    """The key decides before state, activity and funds (rule 2)."""
    try:
        if book is None:
            raise errors.user_not_found()
        found = replays.get((command.user_id, command.key))
        if found is None:
            return rules.apply(book, command, open_holds_max=OPEN_HOLDS_MAX)
        digest, result = found
        if digest != command.digest:
            raise errors.key_reused()
        return replace(result, replayed=True)
    except ExceptionWithErrorType as refusal:
        return refusal


def _holds_named(commands: Iterable[Command]) -> set[int]:
    return {each.hold_seq for each in commands if isinstance(each, Capture | Release | Renew)}
