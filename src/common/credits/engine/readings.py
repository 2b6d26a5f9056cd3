"""What many users have, and pages of their journals, asked for at once by one statement."""

import json
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from src.common.credits.domain import rules
from src.common.credits.domain.views import Balance
from src.common.credits.engine.batches import read_users
from src.common.credits.engine.page_statement import (
    ENTRY_COLUMNS,
    PAGES,
    POSTING_COLUMNS,
    PURCHASE_COLUMNS,
)
from src.common.credits.queries import balance_of
from src.common.postgres.shared_statements import SharedStatement

if TYPE_CHECKING:
    import asyncpg


class Reading(NamedTuple):
    """What a user has now, and whether they may act."""

    balance: Balance
    is_active: bool


class Readings(SharedStatement[uuid.UUID, Reading]):
    """Balances by user; None where there is no such user."""

    async def found(
        self, connection: "asyncpg.Connection", asked: Sequence[uuid.UUID]
    ) -> dict[uuid.UUID, Reading]:
        """What these users have."""
        books = await read_users(connection, asked)
        return {
            user_id: Reading(balance_of(rules.settle(book)), book.is_active)
            for user_id, book in books.items()
        }


class EntriesAsked(NamedTuple):
    """A page of a user's journal: its entries are numbered below `before`, the newest first."""

    user_id: uuid.UUID
    before: int
    limit: int


class EntriesRead(NamedTuple):
    """The page, and whether the user may act."""

    items: list[dict[str, Any]]
    """Plain values by the names and in the order of `HistoryEntry`."""
    next_cursor: str | None
    is_active: bool


class PageReadings(SharedStatement[EntriesAsked, EntriesRead]):
    """Pages of entries, as `queries.history` has them; None where there is no such user."""

    async def found(
        self, connection: "asyncpg.Connection", asked: Sequence[EntriesAsked]
    ) -> dict[EntriesAsked, EntriesRead]:
        """The pages, all as of one snapshot."""
        user_ids, befores, limits = zip(*asked, strict=True)
        counts = [limit + 1 for limit in limits]  # the last only tells that there is a next page
        rows = await connection.fetch(PAGES, user_ids, befores, counts)
        pages: dict[EntriesAsked, EntriesRead] = {}
        for place, entries in _by_place(rows).items():
            page = asked[place - 1]
            items = entries.items[: page.limit]
            is_more = len(entries.items) > page.limit
            cursor = str(items[-1]["seq"]) if is_more else None
            pages[page] = EntriesRead(items, cursor, entries.is_active)
        return pages


def _by_place(rows: Sequence[Any]) -> dict[int, EntriesRead]:
    """The entries of each question, by its place; a row is one posting, or an entry without."""
    found: dict[int, EntriesRead] = {}
    for row in rows:
        place, is_active = row[0], row[1]
        if place not in found:
            found[place] = EntriesRead([], None, is_active)
        items = found[place].items
        if row[_SEQ] is None:  # no entry at all
            continue
        if not items or items[-1]["seq"] != row[_SEQ]:
            items.append(_entry(row))
        if row[_POSTING] is not None:
            line = dict(zip(POSTING_COLUMNS, row[_POSTING:_METADATA], strict=True))
            items[-1]["postings"].append(line)
    return found


_SEQ = 2
_POSTING = _SEQ + len(ENTRY_COLUMNS)
_METADATA = _POSTING + len(POSTING_COLUMNS)
_PURCHASE = _METADATA + 1


def _entry(row: Any) -> dict[str, Any]:
    entry: dict[str, Any] = dict(zip(ENTRY_COLUMNS, row[_SEQ:_POSTING], strict=True))
    metadata: str | None = row[_METADATA]
    entry["postings"] = []
    entry["metadata"] = None if metadata is None else json.loads(metadata)
    entry["purchase"] = None
    if row[_PURCHASE] is not None:
        entry["purchase"] = dict(zip(PURCHASE_COLUMNS, row[_PURCHASE:], strict=True))
    return entry
