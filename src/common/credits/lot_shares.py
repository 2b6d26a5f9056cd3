"""What became of each lot's credits: spent, held, expired, gone back, or still there.

Opening a hold posts what it takes of each lot, and closing it what goes back; what it keeps has no
postings. So of what the lines of holds took from a lot, that which open ones set aside is held
(`rules.returned`), and the rest was spent.
"""

import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Integer, RowMapping, Uuid, bindparam, text
from sqlalchemy.orm import Session

from src.common.credits.domain import rules
from src.common.credits.domain.arguments import NUMBER_MAX, check_number
from src.common.credits.domain.book import Book
from src.common.credits.domain.reversals import TAKING_KINDS
from src.common.credits.persistence.storage import add_lot, load_books, reading_connection_of
from src.common.credits.queries import settled_book
from src.common.models.credit_entry import EntryKind
from src.common.postgres.pagination import PAGE_SIZE_DEFAULT, Page, decode_number_cursor

_SPENDING_KINDS = frozenset({EntryKind.SPEND, EntryKind.HOLD})
_MAKING_KINDS = frozenset({EntryKind.OPENING, EntryKind.GRANT, EntryKind.ADJUSTMENT})
"""What comes in by these makes a lot."""
_SHARE_OF_KIND: Mapping[str, str] = {
    EntryKind.SPEND: "spent",
    EntryKind.HOLD: "spent",
    EntryKind.CAPTURE: "spent",
    EntryKind.RELEASE: "spent",
    EntryKind.HOLD_EXPIRY: "spent",
    EntryKind.LOT_EXPIRY: "expired",
    **dict.fromkeys(TAKING_KINDS, "gone_back"),
    EntryKind.ADJUSTMENT: "taken_back",
    EntryKind.REVERSAL: "taken_back",
}
"""Where the lines of each kind count; those of holds with what was spent, held credits too."""


_OTHER_SHARES = ("expired", "gone_back", "taken_back")


@dataclass(frozen=True, kw_only=True)
class LotShares:
    """A lot, and what became of its credits: whole numbers, 0 or more, that sum to `granted`."""

    seq: int
    """The `seq` of the entry that made it."""
    source: str
    """A value of `LotSource`."""
    priority: int
    """The lowest is spent first."""
    expires_at: dt.datetime | None
    """From this instant on nothing of it may be spent; None is never."""
    made_at: dt.datetime
    transaction_id: uuid.UUID | None
    """The purchase that paid for it."""
    reference: str | None
    """What whoever gave it says it is for."""
    granted: int
    spent: int
    """By spends and captures, less what was undone of them."""
    held: int
    """Set aside by open holds."""
    expired: int
    gone_back: int
    """Taken for money that went back, debts for it among that, less what was reinstated."""
    taken_back: int
    """Taken by hand, less what was undone of that: by adjustments, and by reversals of the gift."""
    remaining: int


_STATEMENT = text("""
WITH shown AS (
    SELECT * FROM credit_lots
    WHERE user_id = :user_id AND seq < :before AND seq <= :version ORDER BY seq DESC LIMIT :limit
),
sums AS (
    SELECT lines.lot_seq, entries.kind, undone.kind AS undone_kind, lines.amount > 0 AS comes_in,
           sum(lines.amount) AS amount
    FROM credit_postings AS lines
    JOIN credit_entries AS entries ON entries.user_id = :user_id AND entries.seq = lines.seq
    LEFT JOIN credit_entries AS undone
      ON undone.user_id = :user_id AND undone.seq = entries.related_seq
     AND entries.kind = 'reversal'
    WHERE lines.user_id = :user_id AND lines.lot_seq IN (SELECT seq FROM shown)
      AND lines.seq <= :version AND lines.seq >= (SELECT min(seq) FROM shown)
    GROUP BY 1, 2, 3, 4
)
SELECT shown.seq, shown.source, shown.priority, shown.expires_at, shown.transaction_id,
       shown.granted, made.effective_at AS made_at, made.reference, sums.kind, sums.undone_kind,
       sums.comes_in, sums.amount
FROM shown
JOIN credit_entries AS made ON made.user_id = :user_id AND made.seq = shown.seq
JOIN sums ON sums.lot_seq = shown.seq
ORDER BY shown.seq DESC
""").bindparams(
    bindparam("user_id", type_=Uuid()),
    bindparam("version", type_=Integer()),
    bindparam("before", type_=Integer()),
    bindparam("limit", type_=Integer()),
)


def lot_shares(
    session: Session,
    user_id: uuid.UUID,
    *,
    cursor: str | None = None,
    limit: int = PAGE_SIZE_DEFAULT,
    now: dt.datetime | None = None,
) -> Page[LotShares]:
    """One page of a user's lots, the newest first, closed ones too.

    It adds up all that was done to the lots of the page: it is for a person who asks. Three
    statements at most.

    Args:
        session: May be in a database transaction or not; it is not committed.
        user_id: Whose lots.
        cursor: `next_cursor` of the page before; None is the first page.
        limit: How many lots at most, 1 or more.
        now: Replaces the database's clock, in tests.

    Raises:
        NotFound: USER_NOT_FOUND.
        Invalid: VALIDATION_ERROR, the cursor is not one of ours.
    """
    before = decode_number_cursor(cursor)
    check_number("limit", limit, NUMBER_MAX - 1)
    book = settled_book(session, user_id, now=now)
    parameters = {
        "user_id": user_id,
        "version": book.version_before,
        "before": before,
        "limit": limit + 1,
    }
    lots = _booked(reading_connection_of(session).execute(_STATEMENT, parameters).mappings())
    if cursor is None:
        lots = _not_booked(book) | lots
    _add_due(lots, book)
    held = _held(session, book, now)
    shown = [each.shares(held[seq]) for seq, each in list(lots.items())[:limit]]
    return Page(shown, str(shown[-1].seq) if len(lots) > limit else None)


@dataclass(kw_only=True)
class _Sums:
    """A lot, and what its lines add up to."""

    lot: Mapping[str, Any]
    by_share: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, kind: str, amount: int, undone_kind: str | None = None) -> None:
        """Count what an entry of this kind took (-) or gave (+)."""
        if kind in _MAKING_KINDS and amount > 0:
            return
        undoes_use = amount > 0 and undone_kind in _SPENDING_KINDS
        share = "spent" if undoes_use else _SHARE_OF_KIND[kind]
        self.by_share[share] -= amount

    def shares(self, held: int) -> LotShares:
        """With what of it open holds have set aside."""
        shares: dict[str, Any] = {name: self.by_share[name] for name in _OTHER_SHARES}
        shares |= {"spent": self.by_share["spent"] - held, "held": held}
        remaining = self.lot["granted"] - sum(shares.values())
        return LotShares(**self.lot, **shares, remaining=remaining)


def _booked(rows: Iterable[RowMapping]) -> dict[int, _Sums]:
    lots: dict[int, _Sums] = {}
    for row in rows:
        columns: dict[str, Any] = dict(row)
        lines = [columns.pop(name) for name in ("kind", "amount", "undone_kind")]
        del columns["comes_in"]
        lots.setdefault(row["seq"], _Sums(lot=columns)).add(*lines)
    return lots


def _not_booked(book: Book) -> dict[int, _Sums]:
    """Lots that what is due or not booked yet will make, the newest first."""
    entries = {entry.seq: entry for entry in book.entries}
    return {
        seq: _Sums(
            lot={
                "seq": seq,
                "source": str(lot.source),
                "priority": lot.priority,
                "expires_at": lot.expires_at,
                "transaction_id": lot.transaction_id,
                "granted": lot.granted,
                "made_at": entries[seq].effective_at,
                "reference": entries[seq].reference,
            }
        )
        for seq in sorted(book.new_lots, reverse=True)
        for lot in [book.lots[seq]]
    }


def _add_due(lots: Mapping[int, _Sums], book: Book) -> None:
    """What counts already and is not booked yet."""
    for entry in book.entries:
        for line in entry.postings:
            if line.lot_seq in lots:
                lots[line.lot_seq].add(entry.kind, line.amount)


def _held(session: Session, book: Book, now: dt.datetime | None) -> defaultdict[int, int]:
    """By lot, what open holds have set aside of it."""
    held: defaultdict[int, int] = defaultdict(int)
    open_holds = book.open_holds
    if not open_holds:
        return held
    # What a hold took never changes: it may be read after the book was.
    wanted = [hold.seq for hold in open_holds]
    known = load_books(session, [book.user_id], hold_seqs=wanted, now=now)[book.user_id]
    for lot in known.lots.values():
        add_lot(book, lot)
    for hold in open_holds:
        hold.allocations = known.holds[hold.seq].allocations
        for lot, amount in rules.returned(book, hold):
            held[lot.seq] += amount
    return held
