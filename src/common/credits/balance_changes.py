"""What has changed of many users' balances since somebody saw them: statements for all at once.

A user has changed where the journal has grown, and where something falls due without an entry: a
lot's or a hold's expiry counts before anybody books it (rule 8).
"""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from sqlalchemy import ARRAY, Boolean, DateTime, Integer, Uuid, bindparam, text
from sqlalchemy.orm import Session

from src.common.credits.domain import rules
from src.common.credits.domain.book import Book
from src.common.credits.domain.views import Balance
from src.common.credits.persistence.storage import load_books
from src.common.credits.queries import balance_of

ENTRIES_MAX = 100
"""The most entries that are told of one user at once: the newest."""


class Seen(NamedTuple):
    """What somebody knows of a user's balance."""

    version: int
    """The `seq` of the newest entry that they know."""
    due_at: dt.datetime | None
    """When the balance changes next without an entry; None where it does not."""


class NewEntry(NamedTuple):
    """An entry that somebody has not seen yet."""

    seq: int
    kind: str
    amount: int
    """Credits into (+) or out of (-) the balance."""
    balance_after: int
    related_seq: int | None
    reference: str | None
    effective_at: dt.datetime
    created_at: dt.datetime


@dataclass(frozen=True, kw_only=True)
class CurrentBalance:
    """What a user has now, and how it came about since it was last seen."""

    balance: Balance
    due_at: dt.datetime | None
    """When the balance changes next without an entry; None where it does not."""
    entries: Sequence[NewEntry]
    """What was booked since, in order; of more than `ENTRIES_MAX` the newest."""

    @property
    def seen(self) -> Seen:
        """What somebody knows who was told."""
        return Seen(self.balance.version, self.due_at)


@dataclass(frozen=True, kw_only=True)
class Changed:
    """Whose balance is not what was seen."""

    user_ids: frozenset[uuid.UUID]
    inactive: frozenset[uuid.UUID]
    """Those of all who are deactivated, whatever their balance."""


_CHANGED = (
    text("""
SELECT wanted.user_id, users.is_active,
       users.credits_version <> wanted.version
       OR coalesce(wanted.due_at <= clock_timestamp(), false) AS has_changed
FROM unnest(:user_ids, :versions, :due_ats) AS wanted (user_id, version, due_at)
JOIN users ON users.user_id = wanted.user_id
WHERE users.credits_version <> wanted.version
   OR wanted.due_at <= clock_timestamp()
   OR NOT users.is_active
""")
    .bindparams(
        bindparam("user_ids", type_=ARRAY(Uuid())),
        bindparam("versions", type_=ARRAY(Integer())),
        bindparam("due_ats", type_=ARRAY(DateTime(timezone=True))),
    )
    .columns(user_id=Uuid(), is_active=Boolean(), has_changed=Boolean())
)

_ENTRIES = text("""
SELECT wanted.user_id, entry.*
FROM unnest(:user_ids, :after, :up_to) AS wanted (user_id, after, up_to)
CROSS JOIN LATERAL (
    SELECT seq, kind, amount, balance_after, related_seq, reference, effective_at, created_at
    FROM credit_entries
    WHERE credit_entries.user_id = wanted.user_id
      AND seq > wanted.after AND seq <= wanted.up_to
    ORDER BY seq DESC LIMIT :entries_max
) AS entry
ORDER BY entry.seq
""").bindparams(
    bindparam("user_ids", type_=ARRAY(Uuid())),
    bindparam("after", type_=ARRAY(Integer())),
    bindparam("up_to", type_=ARRAY(Integer())),
    bindparam("entries_max", type_=Integer()),
)


def find_changed(session: Session, seen: Mapping[uuid.UUID, Seen]) -> Changed:
    """Whose balance is not what was seen any more, by one look at all users' rows.

    Args:
        session: May be in a database transaction or not; it is not committed.
        seen: What was last told of each user.
    """
    rows = session.execute(
        _CHANGED,
        {
            "user_ids": list(seen),
            "versions": [each.version for each in seen.values()],
            "due_ats": [each.due_at for each in seen.values()],
        },
    ).all()
    return Changed(
        user_ids=frozenset(row.user_id for row in rows if row.has_changed),
        inactive=frozenset(row.user_id for row in rows if not row.is_active),
    )


def read_current(
    session: Session,
    after: Mapping[uuid.UUID, int | None],
    *,
    now: dt.datetime | None = None,
) -> dict[uuid.UUID, CurrentBalance]:
    """What these users have now; users that there are not are missing.

    Args:
        session: May be in a database transaction or not; it is not committed.
        after: Of each user the entry after which entries are told too; None for none.
        now: Replaces the database's clock, in tests.
    """
    books = {
        user_id: rules.settle(stored)
        for user_id, stored in load_books(session, after, now=now).items()
    }
    entries = _entries(session, books, after)
    return {
        user_id: CurrentBalance(
            balance=balance_of(book), due_at=_due_at(book), entries=entries.get(user_id, ())
        )
        for user_id, book in books.items()
    }


def _entries(
    session: Session,
    books: Mapping[uuid.UUID, Book],
    after: Mapping[uuid.UUID, int | None],
) -> dict[uuid.UUID, list[NewEntry]]:
    """Up to the newest entry that each book was read with: rows that never change."""
    known = {user_id: after[user_id] for user_id in books}
    wanted = {
        user_id: seq
        for user_id, seq in known.items()
        if seq is not None and seq < books[user_id].version_before
    }
    if not wanted:
        return {}
    rows = session.execute(
        _ENTRIES,
        {
            "user_ids": list(wanted),
            "after": list(wanted.values()),
            "up_to": [books[user_id].version_before for user_id in wanted],
            "entries_max": ENTRIES_MAX,
        },
    )
    found: dict[uuid.UUID, list[NewEntry]] = {}
    for user_id, *columns in rows:
        found.setdefault(user_id, []).append(NewEntry(*columns))
    return found


def _due_at(book: Book) -> dt.datetime | None:
    lots = (lot.expires_at for lot in book.live_lots() if lot.expires_at is not None)
    return min(chain(lots, (hold.expires_at for hold in book.open_holds)), default=None)
