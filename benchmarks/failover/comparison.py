"""Compares what was acknowledged with the books: what is lost, and what is there twice."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import psycopg

from benchmarks.failover.operations import PURCHASE, Asked

SEEDED = "seed:"
"""How the keys begin of what was there before the load."""

_ENTRIES = "SELECT user_id::text, idempotency_key, seq FROM credit_entries"
_PURCHASES = """
    SELECT stripe_session_id, count(*) FROM transactions GROUP BY stripe_session_id
"""


@dataclass(frozen=True)
class Comparison:
    """What one event did to a load."""

    acknowledged: int
    lost: list[str]
    """Keys that were acknowledged and are not in the books, or not as they were acknowledged."""
    doubled: list[str]
    """Keys that are in the books more than once, or that nobody asked for."""
    refused: list[str]
    """What was refused for good, with the reason."""
    unanswered: int
    """Operations nobody was ever told of: they may be there or not."""
    gap_seconds: float
    """The longest time in which one way in acknowledged nothing."""
    gap_of: str
    """Which way that was."""
    by_way: Counter[str]


def compare(
    asked: Sequence[Asked], before: Sequence[Asked], books: psycopg.Connection
) -> Comparison:
    """Compare a record, and those `before` it in the same database, with the books of now.

    What was acknowledged earlier has to be there as well; only this record's is counted.
    """
    found: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for user_id, key, seq in books.execute(_ENTRIES).fetchall():
        found[user_id, key].append(seq)
    purchases: dict[str, int] = dict(books.execute(_PURCHASES).fetchall())
    everything = [*before, *asked]
    wanted = {(each.operation.user_id, each.operation.entry_key) for each in everything}
    acknowledged = [each for each in asked if each.acknowledged_at is not None]
    strangers = [
        key for user, key in found if (user, key) not in wanted and not key.startswith(SEEDED)
    ]
    repeated = [key for (_, key), seqs in found.items() if len(seqs) > 1]
    repeated += [session for session, number in purchases.items() if number > 1]
    gap_seconds, gap_of = longest_gap(acknowledged)
    return Comparison(
        acknowledged=len(acknowledged),
        lost=[
            f"{each.operation.way} {each.operation.kind} {each.operation.key}"
            for each in everything
            if each.acknowledged_at is not None and not _is_there(each, found, purchases)
        ],
        doubled=strangers + repeated,
        refused=[f"{each.operation.way}: {each.refusal}" for each in asked if each.refusal],
        unanswered=len(asked) - len(acknowledged),
        gap_seconds=gap_seconds,
        gap_of=gap_of,
        by_way=Counter(each.operation.way for each in acknowledged),
    )


def _is_there(
    asked: Asked, found: dict[tuple[str, str], list[int]], purchases: dict[str, int]
) -> bool:
    """Whether the books have it, under the number that was told.

    Another number means that it was lost, and came in again by somebody's later try.
    """
    seqs = found.get((asked.operation.user_id, asked.operation.entry_key), [])
    if not seqs or (asked.operation.kind == PURCHASE and asked.operation.key not in purchases):
        return False
    return asked.seq is None or asked.seq in seqs


def longest_gap(acknowledged: Iterable[Asked]) -> tuple[float, str]:
    """The longest time between two acknowledgements by the same way in, and which way it was."""
    instants: defaultdict[str, list[float]] = defaultdict(list)
    for each in acknowledged:
        assert each.acknowledged_at is not None  # noqa: S101  that is what acknowledged means
        instants[each.operation.way].append(each.acknowledged_at)
    gaps = [
        (later - earlier, way)
        for way, moments in instants.items()
        for earlier, later in pairwise(sorted(moments))
    ]
    return max(gaps, default=(0.0, ""))
