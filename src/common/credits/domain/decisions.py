"""A result or a refusal for each command, and the answer of a key's replay: pure.

Commands come one after the other. A single operation, several in one call and the batch engine all
decide here. So a batch gives what the same commands would give one by one.
"""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import cast

from src.common.credits.domain import errors, rules
from src.common.credits.domain.book import Book, StoredBook
from src.common.credits.domain.commands import Capture, Command, Release, Renew, Result, Reverse
from src.common.credits.domain.own_commands import ApprovedRelease, ApprovedReversal
from src.common.exceptions import ExceptionWithErrorType

OPEN_HOLDS_MAX = 100
"""How many open holds one user may have."""

Outcome = Result | ExceptionWithErrorType


def decide_each(
    stored: Mapping[uuid.UUID, StoredBook], commands: Iterable[Command]
) -> tuple[list[Outcome], list[Book]]:
    """A result or a refusal for each command, in their order, and the books to write.

    Those are of users for whom something succeeded. A user not among `stored` does not exist.
    """
    settled = [rules.settle(book) for book in stored.values()]
    books = cast("Mapping[uuid.UUID, Book]", stored)  # the same ones: a UUID is slow to hash
    outcomes = [_outcome(books.get(command.user_id), command) for command in commands]
    return outcomes, [book for book in settled if book.is_changed]


def holds_named(commands: Iterable[Command]) -> set[int]:
    """The holds the commands act on, which must be read whatever their status."""
    # By their very types: `isinstance` asks a struct's metaclass, which takes ten times as long.
    return {
        each.hold_seq
        for each in commands
        if type(each) is Capture
        or type(each) is Release
        or type(each) is Renew
        or type(each) is ApprovedRelease
    }


def entries_named(commands: Iterable[Command]) -> list[tuple[uuid.UUID, int]]:
    """The entries the commands undo: each user's, each once."""
    return list(
        {
            (each.user_id, each.seq): None
            for each in commands
            if type(each) is Reverse or type(each) is ApprovedReversal
        }
    )


def _outcome(book: Book | None, command: Command) -> Outcome:
    """What one command comes to. A key that was used answers before anything else (rule 2).

    With the same request it is a replay: the first result again. With another it is refused.
    """
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
