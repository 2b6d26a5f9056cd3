"""One user's books in memory: balance, lots in burn order, holds, debts, new entries.

A book is read under the user's row lock (`storage.py`) as a `StoredBook`, into which nothing can be
written. `rules.settle` brings it to the present and makes the `Book` of it that `rules.py` changes
and that is written back. It does no I/O and knows no rule but the arithmetic of an entry.
"""

import datetime as dt
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from src.common.credits.domain.commands import LEDGER_ACTOR, Result
from src.common.credits.domain.digest import digest_of
from src.common.credits.domain.own_commands import entry_key
from src.common.models.credit_entry import EntryKind
from src.common.models.credit_hold import HoldStatus
from src.common.models.credit_lot import LotSource

_NEVER = dt.datetime.max.replace(tzinfo=dt.UTC)
BEFORE_ALL = dt.datetime.min.replace(tzinfo=dt.UTC)
"""For those who have no entry yet: when their last one counted."""

Answer = tuple[bytes, Result]
"""The digest of the request that has a key, and what it was answered."""


class Lot(msgspec.Struct, array_like=True, gc=False):
    """Credits that came in together; its fields in the order of `lot_rows.lot_json`."""

    seq: int
    """The `seq` of the entry that made it."""
    source: LotSource
    priority: int
    """The lowest is spent first."""
    granted: int
    """Whole credits that came in, 1 or more."""
    expires_at: dt.datetime | None
    """From this instant on nothing of it may be spent; None is never."""
    remaining: int
    """Whole credits left, 0 to `granted`."""
    last_seq: int
    """The newest entry that changed `remaining`."""
    transaction_id: uuid.UUID | None = None
    """The purchase that paid for it."""

    @property
    def burn_order(self) -> tuple[int, dt.datetime, int]:
        """The smallest is spent first: by priority, expiry, age (rule 6)."""
        return burn_order(self)

    def is_dead(self, instant: dt.datetime) -> bool:
        """Whether nothing of it may be spent any more."""
        return self.expires_at is not None and self.expires_at <= instant


def burn_order(lot: Lot) -> tuple[int, dt.datetime, int]:
    """`Lot.burn_order`, for sorting."""
    return (lot.priority, lot.expires_at or _NEVER, lot.seq)


class Hold(msgspec.Struct, gc=False):
    """Credits set aside, and which lots they came from."""

    seq: int
    """The `seq` of the entry that opened it."""
    amount: int
    """Whole credits set aside, 1 or more."""
    captured: int
    """Whole credits kept so far, 0 to `amount`."""
    status: HoldStatus
    expires_at: dt.datetime
    allocations: Mapping[int, int]
    """Credits taken, by lot; loaded where the hold is due or asked for."""
    retaken: int = 0
    """What of `captured` came from other lots, after the hold had expired; loaded where what was
    captured is asked to be reversed."""

    @property
    def uncaptured(self) -> int:
        """What would go back."""
        return self.amount - self.captured

    @property
    def captured_in_time(self) -> int:
        """What was kept of the credits that the hold set aside."""
        return self.captured - self.retaken


class Posting(msgspec.Struct, frozen=True, gc=False):
    """A line of an entry."""

    lot_seq: int
    """The lot, by the `seq` of the entry that made it."""
    amount: int
    """Whole credits into (+) or out of (-) the lot; never 0."""
    remaining_after: int
    """Whole credits the lot had left right after."""


class Original(msgspec.Struct, frozen=True, gc=False):
    """An entry that somebody asks to undo."""

    seq: int
    kind: EntryKind
    amount: int
    actor: str
    moved: Mapping[int, int]
    """Whole credits into (+) or out of (-) each lot."""


class Entry(msgspec.Struct, gc=False):
    """An entry the rules have decided on and nobody has written yet."""

    seq: int
    kind: EntryKind
    amount: int
    balance_after: int
    result_balance: int
    captured: int | None
    related_seq: int | None
    hold_expires_at: dt.datetime | None
    key: str
    digest: bytes
    reference: str | None
    actor: str
    effective_at: dt.datetime
    created_at: dt.datetime
    postings: list[Posting]
    metadata: Mapping[str, Any] | None = None
    spent: int | None = None
    """As `Result.spent`."""
    entry_hash: bytes | None = None
    """Known once its row is made; None of a user who is not chained."""


class StoredBook(msgspec.Struct, gc=False):
    """A user's balance, lots, holds and debts as the database has them.

    What fell due since is not booked, so nothing can be appended: `rules.settle` comes first.
    """

    user_id: uuid.UUID
    balance: int
    version: int
    is_active: bool
    now: dt.datetime
    """The instant every decision counts from, in UTC; never before the last entry's."""
    last_effective_at: dt.datetime = BEFORE_ALL
    """When the last entry counts from, in UTC; no entry counts from before it (rule 8)."""
    lots: dict[int, Lot] = {}
    holds: dict[int, Hold] = {}
    debts: dict[int, int] = {}
    """What could not be taken back, by the payment's lot, or by the opening entry."""
    answers: dict[str, Answer] = {}
    """By key: what the operations answered that are asked for again, and those just done."""
    originals: dict[int, Original | None] = {}
    """The booked entries that are asked to be undone; None where there is none of that number."""
    undone: dict[int, dict[int, int]] = {}
    """By entry, and by lot: what reversals have moved so far, of those that are asked for and those
    just done."""
    last_hash: bytes | None = None
    """What the hash of the next entry follows: the last one's, or the ledger's id where there is no
    entry. None where the last entry has none; then the next ones get none either."""


class Book(StoredBook, gc=False):
    """A user's book at the present, and the entries that led there since it was read."""

    settled_at: dt.datetime | None = None
    """The instant `rules.settle` has brought it to; nothing is written but at that instant."""
    opening_seq: int | None = None
    """The opening entry, where it is being written or was asked for."""
    opening_debt: int = 0
    """What the user owed when the ledger began; with `opening_seq`."""
    is_changed: bool = False
    """Whether an operation succeeded: what fell due is booked only with one (rule 8)."""
    entries: list[Entry] = []
    new_lots: frozenset[int] = frozenset()
    new_holds: frozenset[int] = frozenset()
    changed_holds: frozenset[int] = frozenset()
    changed_debts: frozenset[int] = frozenset()

    @property
    def next_seq(self) -> int:
        """The number the next entry gets."""
        return self.version + 1

    @property
    def version_before(self) -> int:
        """The version the entries to be written follow."""
        return self.version - len(self.entries)

    def entry(self, seq: int) -> Original | None:
        """The entry of this number, booked or to be written; None where there is none.

        A booked one is there where it was asked for.
        """
        place = seq - self.version_before - 1
        if place < 0:
            return self.originals.get(seq)
        if place >= len(self.entries):
            return None
        entry = self.entries[place]
        moved = {line.lot_seq: line.amount for line in entry.postings}
        return Original(seq, entry.kind, entry.amount, entry.actor, moved)

    @property
    def open_holds(self) -> list[Hold]:
        """Holds that may still be captured or released."""
        return [hold for hold in self.holds.values() if hold.status is HoldStatus.OPEN]

    @property
    def held(self) -> int:
        """Credits out of the balance that may come back from open holds."""
        return sum(hold.uncaptured for hold in self.open_holds) if self.holds else 0

    @property
    def debt(self) -> int:
        """What could not be taken back and is still owed."""
        return sum(self.debts.values())

    def succeeded_by(self, later: StoredBook) -> StoredBook:
        """This book once its entries are written, as of the instant at which `later` was read.

        `later` was read before that: it knows only what no entry changes. This book is used up: its
        rows have been made.
        """
        answers = {
            entry.key: self.answers[entry.key]
            for entry in self.entries
            if entry.key in self.answers
        }
        return Book(
            self.user_id,
            self.balance,
            self.version,
            later.is_active,
            max(self.now, later.now),
            self.last_effective_at,
            {lot.seq: lot for lot in self.lots.values() if lot.remaining},
            self.holds,
            self.debts,
            answers=later.answers | answers,
            last_hash=self.entries[-1].entry_hash,
        )

    def live_lots(self) -> list[Lot]:
        """Lots with something left, in burn order."""
        lots = [lot for lot in self.lots.values() if lot.remaining]
        if len(lots) > 1:
            lots.sort(key=burn_order)
        return lots

    def write(  # noqa: PLR0913  the columns of an entry
        self,
        kind: EntryKind,
        lines: Iterable[tuple[Lot, int]],
        *,
        effective_at: dt.datetime | None = None,
        key: str | None = None,
        digest: bytes | None = None,
        actor: str = LEDGER_ACTOR,
        captured: int | None = None,
        related_seq: int | None = None,
        hold_expires_at: dt.datetime | None = None,
        reference: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Append an entry with these lines; the lots and the balance follow.

        Without a key the entry is the ledger's own (`own_commands.entry_key`).

        Raises:
            RuntimeError: a bug of ours: the book is not settled, or the entry would count from
                before the last one or from the future. No later entry could follow it.
        """
        now = self.now
        instant = effective_at or now
        # The very instant, mostly: then there is nothing to compare.
        is_settled = self.settled_at is now or self.settled_at == now
        is_past = instant is now or instant <= now
        if not (is_settled and is_past and self.last_effective_at <= instant):
            raise RuntimeError(f"An entry at {instant} does not follow: settle the book first")
        self.last_effective_at = instant
        self.version = seq = self.version + 1
        total = 0
        postings: list[Posting] = []
        for lot, amount in lines:
            lot.remaining += amount
            lot.last_seq = seq
            total += amount
            postings.append(Posting(lot.seq, amount, lot.remaining))
        self.balance += total
        own_key = key or entry_key(kind, seq)
        entry = Entry(
            seq,
            kind,
            total,
            self.balance,
            self.balance,
            captured,
            related_seq,
            hold_expires_at,
            own_key,
            digest or digest_of(actor, "", kind, own_key),
            reference,
            actor,
            instant,
            now,
            postings,
            metadata,
        )
        self.entries.append(entry)
        return entry
