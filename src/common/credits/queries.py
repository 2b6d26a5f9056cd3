"""Reading the ledger; nothing here locks or writes.

Every answer counts from one snapshot of the user's book, brought to the present in memory by the
same rules that writes use (`settled`), so it is exact without a worker (DESIGN §4 rule 8). What a
second statement reads besides are rows up to that snapshot's newest entry, which never change.
"""

import datetime as dt
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ARRAY, Integer, cast, exists, func, select
from sqlalchemy.orm import Session

from src.common.credits import errors, rules
from src.common.credits.book import Book, Entry, Hold, Lot, Posting
from src.common.credits.commands import Capture, Command, Release, Renew, Result
from src.common.credits.operations import OPEN_HOLDS_MAX
from src.common.credits.storage import load_books
from src.common.exceptions import Invalid
from src.common.models.credit_entry import CreditEntry, CreditEntryMetadata, CreditPosting
from src.common.models.credit_hold import CreditHold
from src.common.models.user import User
from src.common.pagination import Page

_SEQ = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)
_SEQ_MAX = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Balance:
    """What a user has; all but `version` as they would be after `settle(now)`."""

    balance: int
    """Credits that may be spent."""
    held: int
    """Credits out of the balance that may come back from open holds."""
    debt: int | None
    """What is still owed; None for a past instant, of which it is not kept."""
    lots: Sequence[Lot]
    """Lots with something left, in burn order."""
    next_expiry: dt.datetime | None
    """When the next of these lots dies."""
    version: int
    """The `seq` of the newest entry booked."""


@dataclass(frozen=True, kw_only=True)
class HistoryEntry:
    """An entry of the journal, with its lines and the caller's metadata."""

    seq: int
    kind: str
    amount: int
    balance_after: int
    captured: int | None
    related_seq: int | None
    idempotency_key: str
    reference: str | None
    actor: str
    effective_at: dt.datetime
    created_at: dt.datetime
    postings: Sequence[Posting]
    metadata: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class HoldState:
    """A hold as it is now, and the entry that opened it."""

    hold: Hold
    entry: HistoryEntry


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What a command would answer and write; nothing of it was."""

    result: Result
    entries: Sequence[Entry]
    """With their postings; what is due would be booked before the command's own."""


def balance(
    session: Session,
    user_id: uuid.UUID,
    *,
    as_of: dt.datetime | None = None,
    now: dt.datetime | None = None,
) -> Balance:
    """The effective balance, now or as of a past instant.

    As of T everything counts whose `effective_at` is at most T, booked yet or not.

    Raises:
        NotFound: USER_NOT_FOUND.
        Invalid: VALIDATION_ERROR, `as_of` has no time zone or lies in the future.
    """
    book = settled(session, user_id, now=now)
    if as_of is not None:
        from src.common.credits.past import balance_as_of

        return balance_as_of(session, book, as_of)
    return balance_of(book)


def history(session: Session, user_id: uuid.UUID, *, cursor: str | None, limit: int) -> Page[HistoryEntry]:
    """One page of a user's journal, newest first; a primary-key range scan at any depth.

    Raises:
        NotFound: USER_NOT_FOUND.
        Invalid: VALIDATION_ERROR, the cursor is not one of ours.
    """
