"""What becomes of commands put to users' books one after the other: pure, for one or a thousand.

The single operation, several in one call and the batch engine all decide here, so that a batch
gives what the same commands one by one would.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from src.common.credits import errors, rules
from src.common.credits.book import Book
from src.common.credits.commands import Capture, Command, Release, Renew, Result
from src.common.credits.storage import Replays
from src.common.exceptions import ExceptionWithErrorType

OPEN_HOLDS_MAX = 100
"""How many open holds one user may have."""

Outcome = Result | ExceptionWithErrorType


def decide_each(
    books: Mapping[uuid.UUID, Book], commands: Sequence[Command], replays: Replays
) -> list[Outcome]:
    """A result or a refusal for each command, in their order; the books change accordingly.

    `books` are opened and settled; a user not among them does not exist. `replays` holds what the
    commands' keys stand for already, and gains what they come to stand for.
    """
    outcomes: list[Outcome] = []
    for command in commands:
        outcome = _outcome(books.get(command.user_id), command, replays)
        outcomes.append(outcome)
        if isinstance(outcome, Result) and not outcome.replayed:
            replays[command.user_id, command.key] = (command.digest, outcome)
    return outcomes


def changed_books(
    books: Mapping[uuid.UUID, Book], commands: Iterable[Command], outcomes: Iterable[Outcome]
) -> list[Book]:
    """The books to write: those of users for whom something succeeded.

    What fell due is booked only with an operation that succeeds (rule 8).
    """
    succeeded = {
        command.user_id: books[command.user_id]
        for command, outcome in zip(commands, outcomes, strict=True)
        if isinstance(outcome, Result) and not outcome.replayed
    }
    return list(succeeded.values())


def holds_named(commands: Iterable[Command]) -> set[int]:
    """The holds the commands act on, which must be read whatever their status."""
    return {each.hold_seq for each in commands if isinstance(each, Capture | Release | Renew)}


def _outcome(book: Book | None, command: Command, replays: Replays) -> Outcome:
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
