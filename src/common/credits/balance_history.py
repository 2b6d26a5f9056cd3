"""A user's balance over time, lot by lot, and what happened meanwhile, for a chart.

There are as many instants as a chart can show, however long the journal is. It begins at the lots
as they are and undoes what counted after an instant. So it reads the entries since the beginning of
the time asked for, and no older ones. Where these are too many, it reads the balance alone, and a
few entries for each instant.
"""

import datetime as dt
import uuid
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from sqlalchemy import ARRAY, DateTime, Integer, Row, Uuid, bindparam, text
from sqlalchemy.orm import Session

from src.common.credits.domain.arguments import check_instant, invalid
from src.common.credits.domain.book import Book
from src.common.credits.journal_samples import Sample, samples_at
from src.common.credits.persistence.storage import reading_connection_of
from src.common.credits.queries import settled_book

POINTS_MAX = 402
"""Instants of a history at most."""
_SPANS = POINTS_MAX - 2
ENTRIES_MAX = 20_000
"""So many entries are read lot by lot; a time that has more is sampled."""
LOTS_MAX = 12
"""So many lots are told apart; where more are concerned their sources are."""
_TICK = dt.timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class Series:
    """What one lot, or all lots of one source, held at each of the history's instants."""

    lot_seq: int | None
    """None where it is all lots of the source."""
    source: str | None
    """A value of `LotSource`; None where it is the whole balance."""
    expires_at: dt.datetime | None
    """Of the lot."""
    credits: Sequence[int]
    """Whole credits, 0 or more, at each instant."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What happened between two instants of a history, the later one included."""

    at: dt.datetime
    """The later one, by which all of it counts."""
    kind: str
    """A value of `EntryKind`."""
    entries: int
    """How many entries, 1 or more."""
    amount: int
    """Credits into (+) or out of (-) the balance by all of them."""
    first_seq: int
    last_seq: int


@dataclass(frozen=True, kw_only=True)
class BalanceHistory:
    """A user's effective balance between two instants (rule 8).

    At each instant of `instants` it is exactly what `queries.balance` says as of then. From one
    instant to the next nothing happens, or all that happens has happened by the later one.
    """

    instants: Sequence[dt.datetime]
    """In order, at most `POINTS_MAX`: the beginning, the end, and between them the last entry of
    each of equal spans that has any."""
    series: Sequence[Series]
    """The oldest lot first. Lots that were empty all the time are left out."""
    balances: Sequence[int]
    """The sums of `series`."""
    marks: Sequence[Mark]
    """In order of time; none where it is sampled."""
    is_sampled: bool = False
    """Whether there are too many entries to tell lots apart, and what happened."""


_STATEMENT = text("""
WITH entries AS (
    SELECT seq, kind, amount, effective_at,
           width_bucket(effective_at, CAST(:bounds AS timestamptz[])) AS span
    FROM credit_entries
    WHERE user_id = :user_id AND seq <= :version
      AND seq > coalesce((
          SELECT seq FROM credit_entries
          WHERE user_id = :user_id AND seq <= :version AND effective_at <= :since
          ORDER BY seq DESC LIMIT 1), 0)
),
by_lot AS (
    SELECT entries.span, lines.lot_seq, sum(lines.amount) AS amount
    FROM entries JOIN credit_postings AS lines
      ON lines.user_id = :user_id AND lines.seq = entries.seq
    GROUP BY entries.span, lines.lot_seq
),
concerned AS (
    SELECT count(DISTINCT lot_seq) <= :lots_max AS are_few
    FROM (SELECT lot_seq FROM by_lot UNION SELECT unnest(CAST(:open_lots AS integer[]))) AS each
)
SELECT span, CAST(NULL AS text) AS kind, CASE WHEN are_few THEN lots.seq END AS lot_seq,
       lots.source, CASE WHEN are_few THEN lots.expires_at END AS expires_at,
       CAST(sum(by_lot.amount) AS bigint) AS amount, CAST(NULL AS bigint) AS entries,
       CAST(NULL AS timestamptz) AS last_at,
       CAST(NULL AS integer) AS first_seq, CAST(NULL AS integer) AS last_seq
FROM by_lot CROSS JOIN concerned
JOIN credit_lots AS lots ON lots.user_id = :user_id AND lots.seq = by_lot.lot_seq
GROUP BY 1, 3, 4, 5
UNION ALL
SELECT span, kind, NULL, NULL, NULL, CAST(sum(amount) AS bigint), count(*),
       max(effective_at), min(seq), max(seq)
FROM entries GROUP BY span, kind
""").bindparams(
    bindparam("user_id", type_=Uuid()),
    bindparam("version", type_=Integer()),
    bindparam("since", type_=DateTime(timezone=True)),
    bindparam("bounds", type_=ARRAY(DateTime(timezone=True))),
    bindparam("open_lots", type_=ARRAY(Integer())),
    bindparam("lots_max", type_=Integer()),
)


@dataclass(frozen=True)
class _Key:
    """What a series is of."""

    lot_seq: int | None
    source: str


@dataclass(kw_only=True)
class _Changes:
    """By span, what moved and what happened."""

    amounts: defaultdict[_Key, defaultdict[int, int]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(int))
    )
    expiries: dict[_Key, dt.datetime | None] = field(default_factory=dict[_Key, dt.datetime | None])
    marks: dict[tuple[int, str], Mark] = field(default_factory=dict[tuple[int, str], Mark])

    def mark(self, span: int, mark: Mark) -> None:
        """Add what happened later than all that was added before."""
        before = self.marks.get((span, mark.kind))
        if before is not None:
            mark = replace(
                mark,
                entries=before.entries + mark.entries,
                amount=before.amount + mark.amount,
                first_seq=before.first_seq,
            )
        self.marks[span, mark.kind] = mark


def balance_history(
    session: Session,
    user_id: uuid.UUID,
    *,
    since: dt.datetime,
    until: dt.datetime | None = None,
    now: dt.datetime | None = None,
) -> BalanceHistory:
    """What a user could spend from `since` to `until`, and what happened after `since`.

    Two statements, whatever the journal holds; three where it has more than `ENTRIES_MAX` entries.

    Args:
        session: May be in a database transaction or not; it is not committed.
        user_id: Whose balance.
        since: The beginning, with a time zone.
        until: The end, not before `since`; None is now.
        now: Replaces the database's clock, in tests.

    Raises:
        NotFound: USER_NOT_FOUND.
        Invalid: VALIDATION_ERROR, an instant has no time zone, `until` lies in the future or before
            `since`.
    """
    check_instant("since", since)
    if until is not None:
        check_instant("until", until)
    book = settled_book(session, user_id, now=now)
    end = book.now if until is None else until
    if end > book.now:
        raise invalid("until", "lies in the future")
    if since > end:
        raise invalid("since", "must not be after the end")
    bounds = [since + (end - since) * place / _SPANS for place in range(_SPANS + 1)]
    if book.version_before > ENTRIES_MAX:
        samples = samples_at(session, user_id, book.version_before, bounds)
        if book.version_before - samples[0].seq > ENTRIES_MAX:
            return _sampled(book, samples, bounds)
    lots = sorted({lot.seq for lot in book.live_lots()} | _moved(book))
    parameters = {
        "user_id": user_id,
        "version": book.version_before,
        "since": since,
        "bounds": [bound + _TICK for bound in bounds],
        "open_lots": lots,
        "lots_max": LOTS_MAX,
    }
    rows = reading_connection_of(session).execute(_STATEMENT, parameters).all()
    lines = [row for row in rows if row.kind is None]
    are_few = len(lots) <= LOTS_MAX if not lines else lines[0].lot_seq is not None
    changes = _booked(rows)
    at_last: defaultdict[_Key, int] = defaultdict(int)
    for seq in lots:
        lot, key = book.lots[seq], _key(book, seq, are_few=are_few)
        at_last[key] += lot.remaining
        changes.expiries[key] = lot.expires_at if are_few else None
    _add_due(changes, book, bounds, are_few=are_few)
    return _history(changes, at_last, since, end)


def _sampled(
    book: Book, samples: Sequence[Sample], bounds: Sequence[dt.datetime]
) -> BalanceHistory:
    """The balance after the last entry of each span that has any, and at both ends."""
    ends = {
        span: here.effective_at
        for span, (before, here) in enumerate(pairwise(samples), start=1)
        if here.effective_at is not None and here.seq > before.seq
    }
    for due in book.entries:  # later than all that is booked
        span = bisect_left(bounds, due.effective_at)
        if 0 < span <= _SPANS:
            ends[span] = due.effective_at
    places = sorted(ends.items())
    if not places or places[-1][1] != bounds[-1]:
        places.append((_SPANS, bounds[-1]))
    places.insert(0, (0, bounds[0]))
    balances = [
        samples[span].balance_after
        + sum(due.amount for due in book.entries if due.effective_at <= instant)
        for span, instant in places
    ]
    return BalanceHistory(
        instants=[instant for _, instant in places],
        series=[Series(lot_seq=None, source=None, expires_at=None, credits=balances)],
        balances=balances,
        marks=[],
        is_sampled=True,
    )


def _moved(book: Book) -> set[int]:
    """The lots that what has fallen due moves."""
    return {line.lot_seq for entry in book.entries for line in entry.postings}


def _booked(rows: Iterable[Row[*tuple[Any, ...]]]) -> _Changes:
    changes = _Changes()
    for row in rows:
        if row.kind is None:
            key = _Key(row.lot_seq, row.source)
            changes.amounts[key][row.span] += row.amount
            changes.expiries[key] = row.expires_at
        else:
            changes.mark(
                row.span,
                Mark(
                    at=row.last_at,
                    kind=row.kind,
                    entries=row.entries,
                    amount=row.amount,
                    first_seq=row.first_seq,
                    last_seq=row.last_seq,
                ),
            )
    return changes


def _add_due(
    changes: _Changes, book: Book, bounds: Sequence[dt.datetime], *, are_few: bool
) -> None:
    """What counts already and is not booked yet."""
    for entry in book.entries:
        span = bisect_left(bounds, entry.effective_at)
        if span == 0:  # from before the beginning
            continue
        for line in entry.postings:
            key = _key(book, line.lot_seq, are_few=are_few)
            changes.amounts[key][span] += line.amount
        changes.mark(
            span,
            Mark(
                at=entry.effective_at,
                kind=str(entry.kind),
                entries=1,
                amount=entry.amount,
                first_seq=entry.seq,
                last_seq=entry.seq,
            ),
        )


def _key(book: Book, lot_seq: int, *, are_few: bool) -> _Key:
    return _Key(lot_seq if are_few else None, str(book.lots[lot_seq].source))


def _history(
    changes: _Changes, at_last: dict[_Key, int], since: dt.datetime, end: dt.datetime
) -> BalanceHistory:
    """The series, from what there is now back to the beginning."""
    ends: dict[int, dt.datetime] = {}
    for (span, _), mark in changes.marks.items():
        if span <= _SPANS:
            ends[span] = max(mark.at, ends.get(span, mark.at))
    marks = sorted(
        (replace(mark, at=ends[span]) for (span, _), mark in changes.marks.items() if span in ends),
        key=lambda mark: (mark.at, mark.first_seq),
    )
    places = sorted(ends.items())
    if not places or places[-1][1] != end:
        places.append((_SPANS, end))
    series = [
        Series(
            lot_seq=key.lot_seq,
            source=key.source,
            expires_at=changes.expiries.get(key),
            credits=_credits(
                at_last.get(key, 0), changes.amounts[key], [0, *(s for s, _ in places)]
            ),
        )
        for key in at_last.keys() | changes.amounts.keys()
    ]
    shown = sorted(
        (each for each in series if any(each.credits)),
        key=lambda each: (each.lot_seq or 0, each.source),
    )
    instants = [since, *(instant for _, instant in places)]
    return BalanceHistory(
        instants=instants,
        series=shown,
        balances=[sum(each.credits[place] for each in shown) for place in range(len(instants))],
        marks=marks,
    )


def _credits(at_last: int, amounts: Mapping[int, int], spans: Sequence[int]) -> list[int]:
    """What there was at the end of each of `spans`, which are in order."""
    held = at_last - sum(amounts.values())
    found: list[int] = []
    changed = iter(sorted(amounts.items()))
    following = next(changed, None)
    for span in spans:
        while following is not None and following[0] <= span:
            held += following[1]
            following = next(changed, None)
        found.append(held)
    return found
