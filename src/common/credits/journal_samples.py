"""Where in a long journal some instants are: a few entries are read for each, never all.

Entries count in the order of their numbers, so the one that an instant is right after is found by
halving, a look-up of the primary key each time.
"""

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import ARRAY, DateTime, Integer, Uuid, bindparam, text
from sqlalchemy.orm import Session

from src.common.credits.persistence.storage import reading_connection_of


class Sample(NamedTuple):
    """The newest entry that counts by an instant."""

    seq: int
    """0 where none does."""
    effective_at: dt.datetime | None
    balance_after: int


_STATEMENT = text("""
WITH RECURSIVE search AS (
    SELECT place, bound, 0 AS low, CAST(:version AS integer) AS high
    FROM unnest(CAST(:bounds AS timestamptz[])) WITH ORDINALITY AS each (bound, place)
    UNION ALL
    SELECT place, bound, CASE WHEN counts THEN middle ELSE low END,
           CASE WHEN counts THEN high ELSE middle - 1 END
    FROM (
        SELECT place, bound, low, high, (low + high + 1) / 2 AS middle,
               (SELECT effective_at <= bound FROM credit_entries
                WHERE user_id = :user_id AND seq = (low + high + 1) / 2) AS counts
        FROM search WHERE low < high
    ) AS halved
)
SELECT low AS seq, entries.effective_at, coalesce(entries.balance_after, 0) AS balance_after
FROM search
LEFT JOIN credit_entries AS entries ON entries.user_id = :user_id AND entries.seq = low
WHERE low = high ORDER BY place
""").bindparams(
    bindparam("user_id", type_=Uuid()),
    bindparam("version", type_=Integer()),
    bindparam("bounds", type_=ARRAY(DateTime(timezone=True))),
)


def samples_at(
    session: Session, user_id: uuid.UUID, version: int, instants: Sequence[dt.datetime]
) -> list[Sample]:
    """For each instant the newest of the first `version` entries that counts by then."""
    parameters = {"user_id": user_id, "version": version, "bounds": list(instants)}
    rows = reading_connection_of(session).execute(_STATEMENT, parameters)
    return [Sample(row.seq, row.effective_at, row.balance_after) for row in rows]
