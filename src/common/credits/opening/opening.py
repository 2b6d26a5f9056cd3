"""Writes the opening entries of users from before the ledger (decision 0010).

The first operation on such a user writes it; `flashslides credits import-opening-balances` does for
the rest. On the caller's open session: the caller holds the users' locks, and nothing commits.
"""

import uuid
from collections.abc import Collection

from sqlalchemy.orm import Session

from src.common.credits.domain import rules
from src.common.credits.domain.book import Book
from src.common.credits.persistence.storage import load_books, write_books


def settle_books(session: Session, user_ids: Collection[uuid.UUID]) -> list[Book]:
    """Write what is due, and the opening entry of those who have a balance and no entry.

    Their books. Nobody's row is ahead of its entries.
    """
    return _written(session, _settled(session, user_ids))


def write_openings(session: Session, user_ids: Collection[uuid.UUID]) -> list[Book]:
    """Write the opening entry, perhaps of 0, of users who have none; their books.

    What fell due before comes first, where the ledger has begun to book already.
    """
    books = _settled(session, user_ids)
    for book in books:
        if book.opening_seq is None:
            rules.write_late_opening(book)
    return _written(session, books)


def _settled(session: Session, user_ids: Collection[uuid.UUID]) -> list[Book]:
    return [rules.settle(book) for book in load_books(session, user_ids).values()]


def write_missing_openings(session: Session, user_ids: Collection[uuid.UUID]) -> None:
    """Write the opening entry, perhaps of 0, of those who have no entry at all."""
    if user_ids:
        books = load_books(session, user_ids)
        write_openings(session, [book.user_id for book in books.values() if book.version == 0])


def _written(session: Session, books: Collection[Book]) -> list[Book]:
    opened = [book for book in books if book.entries]
    write_books(session, opened)
    return opened
