"""What becomes of commands put to users' books one after the other: pure, for one or a thousand.

The single operation, several in one call and the batch engine all decide here, so that a batch
gives what the same commands one by one would.
"""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace

from src.common.credits import errors, rules
from src.common.credits.book import Book
from src.common.credits.commands import Command, HoldCommand, Result
from src.common.exceptions import ExceptionWithErrorType

OPEN_HOLDS_MAX = 100
"""How many open holds one user may have."""

Outcome = Result | ExceptionWithErrorType


def decide_each(books: Mapping[uuid.UUID, Book], commands: Iterable[Command]) -> list[Outcome]:
    """A result or a refusal for each command, in their order; the books change accordingly.

    `books` are opened and settled; a user not among them does not exist.
    """
    return [_outcome(books.get(command.user_id), command) for command in commands]


def changed_books(books: Mapping[uuid.UUID, Book]) -> list[Book]:
    """The books to write: those of users for whom something succeeded."""
    return [book for book in books.values() if book.is_changed]


def holds_named(commands: Iterable[Command]) -> set[int]:
    """The holds the commands act on, which must be read whatever their status."""
    return {each.hold_seq for each in commands if isinstance(each, HoldCommand)}


def _outcome(book: Book | None, command: Command) -> Outcome:
    """The key decides before state, activity and funds (rule 2)."""
    try:
        if book is None:
            raise errors.user_not_found()
        found = book.answers.get(command.key)
        if found is None:
            return rules.apply(book, command, open_holds_max=OPEN_HOLDS_MAX)
        digest, result = found
        if digest != command.digest:
            raise errors.key_reused()
        return replace(result, replayed=True)
    except ExceptionWithErrorType as refusal:
        return refusal
