"""One batch of commands on an asyncpg connection: read, decide, write.

What `operations.execute_each` does on a session, without SQLAlchemy in between: the same
statements, compiled once, the same rules. A batch is tried without locks first: two round trips,
the write checking for itself that nobody came between. Otherwise it is one database transaction
that locks the users before it reads them.
"""

import uuid
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cache, lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.sql import ClauseElement

from src.common.credits.domain.book import Book, StoredBook
from src.common.credits.domain.commands import Command, Result
from src.common.credits.domain.decisions import Outcome, decide_each, entries_named, holds_named
from src.common.credits.persistence.changed_rows import rows_of
from src.common.credits.persistence.reading import Locking, books_statement, lock_statement
from src.common.credits.persistence.storage import (
    has_originals,
    read_parameters,
    read_rows,
    unchained,
)
from src.common.credits.persistence.writing import (
    SHAPES_MAX,
    Shape,
    shape_and_arrays,
    write_statement,
)
from src.common.postgres.async_confirmed_commits import NOT_ASYNCPG_S_SECONDS

if TYPE_CHECKING:
    import asyncpg

    from src.common.postgres.async_confirmed_commits import AsyncConfirmingConnection

_BY_INT = attrgetter("int")
"""The order in which the database sorts users, by a comparison that costs nothing."""
_NOTHING_WRITTEN = "UPDATE 0"
_EXISTING_USERS = "SELECT user_id FROM users WHERE user_id = ANY($1::uuid[])"


class Skipped(Enum):
    """What becomes of a command whose user's row somebody else has locked: nothing yet."""

    SKIPPED = "skipped"


class Prepared(NamedTuple):
    """A batch that was decided on books read without locks, and is still to be written."""

    outcomes: list[Outcome]
    changed: list[Book]
    sql: str
    """The guarded write; empty where nothing changes."""
    arguments: list[Any]


async def read_unlocked(
    connection: "asyncpg.Connection", commands: Sequence[Command]
) -> dict[uuid.UUID, StoredBook]:
    """What a guarded write is decided on: users' books as somebody may change them any moment."""
    user_ids = [command.user_id for command in commands]  # some twice, which does no harm here
    rows = await _fetch(connection, Locking.NONE, _parameters(commands, user_ids))
    return read_rows(rows)[0]


async def read_users(
    connection: "asyncpg.Connection", user_ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, StoredBook]:
    """The books of these users as of one snapshot; unknown users are missing."""
    rows = await _fetch(connection, Locking.NONE, read_parameters(user_ids))
    return read_rows(rows)[0]


def follow(
    books: Mapping[uuid.UUID, StoredBook], left: Mapping[uuid.UUID, Book]
) -> dict[uuid.UUID, StoredBook] | None:
    """These books, but of users to whom a batch is just being written what that leaves: `left`.

    Unless it was written before they were read. `left` is used up. None where it does not say all
    that the rules need, or what was read is older than what that batch was decided on, or what is
    written of somebody has to be read under a lock.
    """
    if unchained(books):
        return None
    followed = dict(books)
    for user_id in books.keys() & left.keys():
        read, after = books[user_id], left[user_id]
        if read.version == after.version_before:
            if any(hold.expires_at <= read.now for hold in after.open_holds):
                return None  # the lots it came from were read as they were before
            if read.originals:
                return None  # what was undone of them may be more by now
            followed[user_id] = after.succeeded_by(read)
        elif read.version < after.version_before:
            return None
    return followed


def prepare(books: Mapping[uuid.UUID, StoredBook], commands: Sequence[Command]) -> Prepared:
    """Decide, and word the statement that writes it, guarded."""
    outcomes, changed = decide_each(books, commands)
    if not changed:
        return Prepared(outcomes, changed, "", [])
    guard = {
        "users_count": len(changed),
        "inactive_ids": [book.user_id for book in changed if not book.is_active],
    }
    return Prepared(outcomes, changed, *_worded(changed, guard))


async def write_guarded(connection: "AsyncConfirmingConnection", prepared: Prepared) -> bool:
    """Write by one statement that is its own database transaction.

    Where there is nothing to write, what was replayed is what somebody wrote, perhaps just now.

    False where it finds a user locked, written to or deactivated since the read: then nothing was
    done.
    """
    if not prepared.changed:
        if any(isinstance(each, Result) for each in prepared.outcomes):
            await connection.confirm_what_was_found()
        return True
    writing = connection.execute(prepared.sql, *prepared.arguments, timeout=NOT_ASYNCPG_S_SECONDS)
    return await connection.confirmed(writing) != _NOTHING_WRITTEN


async def run_batch(
    connection: "asyncpg.Connection", commands: Sequence[Command], locking: Locking
) -> tuple[list[Outcome | Skipped], bool]:
    """Do each of `commands` on its own: a result or a refusal each, in their order.

    `connection` is in a database transaction that has just begun, and its caller commits. Under
    `Locking.SKIP` commands of users locked by others come back as skipped. Also: whether others
    wrote while it waited.

    Raises:
        Exception: asyncpg's, or whatever else failed.
    """
    books, was_contended = await _read(connection, commands, locking)
    unknown = {command.user_id for command in commands} - books.keys()
    locked = await _existing(connection, unknown) if unknown and locking is Locking.SKIP else ()
    taken = [command for command in commands if command.user_id not in locked]
    outcomes, changed = decide_each(books, taken)
    if changed:
        sql, arguments = _worded(changed)
        await connection.execute(sql, *arguments)
    if not locked:
        return list(outcomes), was_contended
    remaining = iter(outcomes)
    return [
        Skipped.SKIPPED if command.user_id in locked else next(remaining) for command in commands
    ], was_contended


def _worded(books: Sequence[Book], guard: Mapping[str, Any] | None = None) -> tuple[str, list[Any]]:
    """The one statement that writes all of it, guarded where the guard's parameters are given."""
    shape, arrays = shape_and_arrays(rows_of(books))
    sql, names = _write_sql(shape, is_guarded=guard is not None)
    arrays |= guard or {}
    return sql, [arrays[name] for name in names]


def _parameters(commands: Sequence[Command], user_ids: Sequence[uuid.UUID]) -> dict[str, Any]:
    return read_parameters(
        user_ids,
        keys=[(command.user_id, command.key) for command in commands],
        hold_seqs=holds_named(commands),
        originals=entries_named(commands),
    )


async def _read(
    connection: "asyncpg.Connection", commands: Sequence[Command], locking: Locking
) -> tuple[dict[uuid.UUID, StoredBook], bool]:
    """Books of users locked by then, and whether others wrote to them meanwhile."""
    user_ids = sorted({command.user_id for command in commands}, key=_BY_INT)
    parameters = _parameters(commands, user_ids)
    if locking is Locking.WAIT:
        versions = await connection.fetch(_lock_sql(), parameters["user_ids"])
        books, _ = read_rows(await _fetch(connection, Locking.NONE, parameters))
        return books, any(version != seen for version, seen in versions)
    books, stale = read_rows(await _fetch(connection, locking, parameters))
    if again := stale + unchained(books):
        parameters["user_ids"] = again
        rows = await _fetch(connection, Locking.NONE, parameters)
        books |= read_rows(rows)[0]
    return books, bool(stale)


async def _existing(connection: "asyncpg.Connection", user_ids: set[uuid.UUID]) -> set[uuid.UUID]:
    """Those of `user_ids` that exist: they were skipped, the others are unknown."""
    return {row[0] for row in await connection.fetch(_EXISTING_USERS, list(user_ids))}


async def _fetch(
    connection: "asyncpg.Connection", locking: Locking, parameters: dict[str, Any]
) -> Sequence[Any]:
    sql, names = _read_sql(locking, with_originals=has_originals(parameters))
    return await connection.fetch(sql, *(parameters[name] for name in names))


@cache
def _read_sql(locking: Locking, *, with_originals: bool) -> tuple[str, tuple[str, ...]]:
    return compile_for_driver(books_statement(locking, with_originals=with_originals))


@cache
def _lock_sql() -> str:
    return compile_for_driver(lock_statement())[0]


@lru_cache(SHAPES_MAX)
def _write_sql(shape: Shape, *, is_guarded: bool) -> tuple[str, tuple[str, ...]]:
    return compile_for_driver(write_statement(shape, is_guarded=is_guarded))


def compile_for_driver(statement: ClauseElement) -> tuple[str, tuple[str, ...]]:
    """A statement as asyncpg takes it, and the names of its parameters in their order."""
    compiled: Any = statement.compile(dialect=dialect())  # type: ignore[no-untyped-call]
    return str(compiled), tuple(compiled.positiontup)
