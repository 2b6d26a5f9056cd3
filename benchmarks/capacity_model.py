"""A deployment on paper: what it stores a day, and what it writes to the log a second.

Pure arithmetic over the bytes that `benchmarks.capacity` measures. Users are busy evenly, which is
the dearest there can be: the first change of a page after a checkpoint puts the whole page into the
log, and nobody's pages are changed twice by chance alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

PAGE = 8_192
IMAGE_OVERHEAD = 40
"""Bytes of a record beside the page in it."""
LOTS_OF_A_USER = 3
POSTINGS_OF_A_SPEND = 1.2
"""A fifth of the spends take from two lots, as in the benchmark's workload."""
SECONDS_OF_A_DAY = 86_400


@dataclass(frozen=True)
class Row:
    """Bytes of a row: in its table, and in all of the table's indexes."""

    table: float
    indexes: float


@dataclass(frozen=True)
class Deployment:
    """How much there is, on how many servers."""

    users: float
    spends_a_second: float
    entries_kept: float
    checkpoint_seconds: float
    servers: int = 1


def stored_a_day(deployment: Deployment, rows: Mapping[str, Row]) -> float:
    """Bytes that the journal grows by in a day, on all servers."""
    entry, posting = rows["credit_entries"], rows["credit_postings"]
    of_a_spend = entry.table + entry.indexes
    of_a_spend += POSTINGS_OF_A_SPEND * (posting.table + posting.indexes)
    return of_a_spend * deployment.spends_a_second * SECONDS_OF_A_DAY


def stored_of_users(deployment: Deployment, rows: Mapping[str, Row]) -> float:
    """Bytes of users and their open lots, on all servers."""
    user, lot = rows["users"], rows["credit_lots"]
    each = user.table + user.indexes + LOTS_OF_A_USER * (lot.table + lot.indexes)
    return each * deployment.users


def images_of_a_spend(deployment: Deployment, rows: Mapping[str, Row]) -> float:
    """How many whole pages a spend puts into the log, on average between two checkpoints.

    It changes a page of users, one of lots, and one of each of three indexes by user: two of
    entries, one of postings. What is appended to tables costs hardly any.
    """
    entries = deployment.entries_kept
    pages = [
        deployment.users * rows["users"].table / PAGE,
        deployment.users * LOTS_OF_A_USER * rows["credit_lots"].table / PAGE,
        *[entries * rows["credit_entries"].indexes / 2 / PAGE] * 2,
        entries * POSTINGS_OF_A_SPEND * rows["credit_postings"].indexes / PAGE,
    ]
    spends = deployment.spends_a_second * deployment.checkpoint_seconds
    return sum(each / spends * -math.expm1(-spends / each) for each in pages)


def log_a_second(
    deployment: Deployment, rows: Mapping[str, Row], steady: float, *, image: float = PAGE
) -> float:
    """Bytes of the log a second on each server; `steady` are those of a spend without images."""
    images = images_of_a_spend(deployment, rows) * (image + IMAGE_OVERHEAD)
    return (steady + images) * deployment.spends_a_second / deployment.servers
