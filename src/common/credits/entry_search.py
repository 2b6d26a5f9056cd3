"""Finding entries in a user's journal: by what they are, moved, were for, and when they count.

No page reads the whole journal. An entry's instant is never before the previous one's, so days are
found by halving. What no index tells is looked for among so many entries; the next page goes on.
"""

import datetime as dt
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, exists, func, select, text
from sqlalchemy.orm import Session

from src.common.credits.domain import errors
from src.common.credits.domain.arguments import check_choice, check_user_id
from src.common.credits.domain.views import HistoryEntry
from src.common.credits.entries import read_entries
from src.common.exceptions import Invalid
from src.common.models.credit_entry import CreditEntry, CreditPosting, EntryKind
from src.common.models.credit_lot import CreditLot, LotSource
from src.common.models.user import User
from src.common.postgres.pagination import decode_number_cursor
from src.common.sharding.refusals import refuse_other_groups

LOOKED_AT_MAX = 5_000
"""Entries that one page looks at, where it is not full before."""

_BEFORE = text("""
WITH RECURSIVE halved (low, high) AS (
    SELECT 0, CAST(:version AS integer)
    UNION ALL
    SELECT CASE WHEN entry.effective_at < :instant THEN middle.seq ELSE low END,
        CASE WHEN entry.effective_at < :instant THEN high ELSE middle.seq - 1 END
    FROM halved
    CROSS JOIN LATERAL (SELECT (low + high + 1) / 2 AS seq) AS middle
    CROSS JOIN LATERAL (
        SELECT effective_at FROM credit_entries
        WHERE user_id = :user_id AND seq = middle.seq LIMIT 1
    ) AS entry
    WHERE low < high
)
SELECT low FROM halved WHERE low = high
""")
"""How many of the user's entries count from before an instant: one look-up for each halving."""


@dataclass(frozen=True, kw_only=True)
class EntryFilter:
    """What entries are looked for; of what is not said, all."""

    kind: EntryKind | None = None
    source: LotSource | None = None
    """That moved credits of a lot of this source."""
    lot_seq: int | None = None
    """That moved credits of this lot."""
    actor: str | None = None
    """How its actor begins: `user:`, `key:` or `system:` and an id."""
    since: dt.datetime | None = None
    """That count from this instant on."""
    until: dt.datetime | None = None
    """That count from before this instant."""
    least: int | None = None
    """Whole credits that it moved at least, in or out."""
    most: int | None = None
    text: str | None = None
    """A part of what it was for, small or large letters; or a whole idempotency key."""


@dataclass(frozen=True)
class FoundEntries:
    """A page of entries, the newest first."""

    items: Sequence[HistoryEntry]
    next_cursor: str | None
    looked_back_to: int | None
    """The oldest entry that was looked at, where the page is not full and there are older ones."""


def search_entries(
    session: Session,
    user_id: uuid.UUID,
    wanted: EntryFilter,
    *,
    cursor: str | None = None,
    limit: int,
) -> FoundEntries:
    """One page of the entries that are asked for.

    Args:
        session: May be in a database transaction or not; it is not committed.
        user_id: Whose entries.
        wanted: Which.
        cursor: `next_cursor` of the page before; None is the first page.
        limit: How many entries at most, 1 or more.

    Raises:
        NotFound: USER_NOT_FOUND.
        Invalid: VALIDATION_ERROR, the cursor is not one of ours, or a filter is none.
    """
    check_user_id(user_id)
    _check(wanted)
    before = decode_number_cursor(cursor)
    session.flush()
    version = session.scalar(select(User.credits_version).where(User.user_id == user_id))
    if version is None:
        refuse_other_groups(session.connection(), [user_id])
        raise errors.user_not_found()
    if wanted.text is not None and (seq := _seq_of_key(session, user_id, wanted.text)):
        return FoundEntries([read_entries(session, user_id, [seq])[seq]], None, None)
    first, last = _range(session, user_id, wanted, version)
    last = min(last, before - 1)
    floor = max(first, last - LOOKED_AT_MAX + 1)
    found = _seqs(session, user_id, wanted, floor, last, limit + 1)
    seqs = found[:limit]
    entries = read_entries(session, user_id, seqs) if seqs else {}
    items = [entries[seq] for seq in seqs]
    if len(found) > limit:
        return FoundEntries(items, str(seqs[-1]), None)
    is_more = first < floor
    return FoundEntries(items, str(floor) if is_more else None, floor if is_more else None)


def _check(wanted: EntryFilter) -> None:
    if wanted.kind is not None:
        check_choice("kind", wanted.kind, list(EntryKind))
    if wanted.source is not None:
        check_choice("source", wanted.source, list(LotSource))
    for name in ("actor", "text"):
        written = getattr(wanted, name)
        if written is not None and "\x00" in written:
            raise Invalid(f"{name}: no NUL", "VALIDATION_ERROR", field=name)


def _seq_of_key(session: Session, user_id: uuid.UUID, key: str) -> int | None:
    """The entry that has this very idempotency key."""
    return session.scalar(
        select(CreditEntry.seq).where(
            CreditEntry.user_id == user_id, CreditEntry.idempotency_key == key
        )
    )


def _range(
    session: Session, user_id: uuid.UUID, wanted: EntryFilter, version: int
) -> tuple[int, int]:
    """The first and the last entry that can be meant."""

    def before(instant: dt.datetime) -> int:
        facts = {"user_id": user_id, "version": version, "instant": instant}
        found: int = session.execute(_BEFORE, facts).scalar_one()
        return found

    first = 1 if wanted.since is None else before(wanted.since) + 1
    if wanted.lot_seq is not None:
        first = max(first, wanted.lot_seq)
    return first, version if wanted.until is None else before(wanted.until)


def _seqs(
    session: Session, user_id: uuid.UUID, wanted: EntryFilter, first: int, last: int, limit: int
) -> Sequence[int]:
    return session.scalars(
        select(CreditEntry.seq)
        .where(
            CreditEntry.user_id == user_id,
            CreditEntry.seq.between(first, last),
            *_conditions(wanted),
            *_movements(user_id, wanted, first, last),
        )
        .order_by(CreditEntry.seq.desc())
        .limit(limit)
    ).all()


def _conditions(wanted: EntryFilter) -> Iterator[ColumnElement[bool]]:
    if wanted.kind is not None:
        yield CreditEntry.kind == wanted.kind
    if wanted.actor is not None:
        yield func.starts_with(CreditEntry.actor, wanted.actor)
    if wanted.least is not None:
        yield func.abs(CreditEntry.amount) >= wanted.least
    if wanted.most is not None:
        yield func.abs(CreditEntry.amount) <= wanted.most
    if wanted.text is not None:
        part = func.lower(wanted.text)
        yield func.strpos(func.lower(CreditEntry.reference), part) > 0


def _movements(
    user_id: uuid.UUID, wanted: EntryFilter, first: int, last: int
) -> Iterator[ColumnElement[bool]]:
    """What the entry's lines say; the range is said again, so that no more of them are read."""
    moved = (
        CreditPosting.user_id == user_id,
        CreditPosting.seq == CreditEntry.seq,
        CreditPosting.seq.between(first, last),
    )
    if wanted.lot_seq is not None:
        yield exists().where(*moved, CreditPosting.lot_seq == wanted.lot_seq)
    if wanted.source is not None:
        yield exists().where(
            *moved,
            CreditLot.user_id == user_id,
            CreditLot.seq == CreditPosting.lot_seq,
            CreditLot.source == wanted.source,
        )
