"""Reads every user's leaf in one snapshot, and what the newest checkpoint says of the user."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import column, exists, func, or_, select, table, text
from sqlalchemy.orm import Session

from src.common.anchors.leaves import LEAF_OCTETS, leaf_of
from src.common.credits.verification.reading import begin_snapshot
from src.common.exceptions import Inconsistent
from src.common.models.anchored_user import AnchoredUser
from src.common.models.user import User
from src.common.postgres.group_readings import seeing_group
from src.common.postgres.routes import is_sharded
from src.common.sharding.groups import ready_groups

LAST_ID = uuid.UUID(int=2**128 - 1)
PAGE_USERS = 1_024
"""Users a statement."""

_BY_INDEXES_ALONE = text(
    "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)"
    ", set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)"
    ", set_config('jit', 'off', true), set_config('max_parallel_workers_per_gather', '0', true)"
)
# Entries are looked up of users alone who have more than at the newest checkpoint: whoever has as
# many keeps the leaf that was signed. `fits` is whether what was signed is still there.
_PAGE = text(
    r"""
    WITH page AS MATERIALIZED (
        SELECT user_id, credits_version AS version FROM users
        WHERE user_id >= :first ORDER BY user_id LIMIT :size
    ), judged AS (
        SELECT page.user_id, page.version, anchored.version AS anchored_version,
               anchored.version IS DISTINCT FROM page.version AS is_changed,
               CASE WHEN page.version = 0 THEN decode(repeat('00', 32), 'hex')
                    WHEN anchored.version = page.version THEN anchored.last_hash
                    ELSE last.entry_hash END AS last_hash,
               CASE WHEN anchored.version > page.version THEN false
                    WHEN anchored.version BETWEEN 1 AND page.version - 1
                    THEN coalesce(earlier.entry_hash = anchored.last_hash, false)
                    ELSE true END AS fits
        FROM page
        LEFT JOIN anchored_users AS anchored ON anchored.user_id = page.user_id
        LEFT JOIN credit_entries AS last ON last.user_id = page.user_id AND last.seq
            = CASE WHEN anchored.version IS DISTINCT FROM page.version THEN page.version END
        LEFT JOIN credit_entries AS earlier ON earlier.user_id = page.user_id AND earlier.seq
            = CASE WHEN anchored.version < page.version THEN anchored.version END
    ), leaves AS (
        SELECT *, uuid_send(user_id) || int8send(version) || last_hash AS leaf FROM judged
    )
    SELECT count(*), coalesce(sum(version), 0), count(anchored_version),
           string_agg(leaf, ''::bytea ORDER BY user_id),
           coalesce(string_agg(leaf, ''::bytea ORDER BY user_id) FILTER (WHERE is_changed), ''),
           (array_agg(user_id ORDER BY user_id) FILTER (WHERE last_hash IS NULL))[1],
           (array_agg(user_id ORDER BY user_id) FILTER (WHERE NOT fits))[1]
    FROM leaves
    """
)


class AnchorContradiction(Inconsistent):
    """What the tables say now contradicts the newest checkpoint; nothing may be signed over it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "ANCHOR_CONTRADICTION")


class Page(NamedTuple):
    """Some users, in the order of their ids."""

    leaves: bytes
    changed: bytes
    """The leaves of those who are not as at the newest checkpoint."""


@dataclass
class Counted:
    """What was read so far."""

    users: int = 0
    entries: int = 0
    anchored: int = 0
    """Users who were there at the newest checkpoint."""


def begin_reading(session: Session) -> None:
    """Have the session's database transaction, which is to begin now, see one snapshot.

    It locks nothing and writes nothing.
    """
    begin_snapshot(session)
    session.execute(text("SET TRANSACTION READ ONLY"))
    session.execute(_BY_INDEXES_ALONE)


def groups_to_read(session: Session) -> Sequence[str | None]:
    """The groups of users, which are read one after the other; None where these have no schemas."""
    connection = session.connection()
    return ready_groups(connection) if is_sharded(connection) else [None]


def seeing(session: Session, group: str | None) -> AbstractContextManager[None]:
    """Have the session see this group's tables within the block, in the snapshot that it has."""
    return nullcontext() if group is None else seeing_group(session.connection(), group)


def read_pages(session: Session, counted: Counted) -> Iterator[Page]:
    """Everybody whom the session sees; each page is counted before it is given.

    Raises:
        AnchorContradiction: an entry of the newest checkpoint is not there any more, or is another;
            the sentence names the first one found. It is seen of users who have more or fewer
            entries than then; `comparison.py` looks at everybody.
    """
    first: uuid.UUID | None = uuid.UUID(int=0)
    while first is not None:
        users, entries, anchored, leaves, changed, unhashed, other = session.execute(
            _PAGE, {"first": first, "size": PAGE_USERS}
        ).one()
        if not users:
            return
        if unhashed is not None:
            raise AnchorContradiction(_unhashed(session, unhashed))
        if other is not None:
            raise AnchorContradiction(_no_longer_fits(session, other))
        counted.users += users
        counted.entries += entries
        counted.anchored += anchored
        first = following(leaf_of(leaves[-LEAF_OCTETS:]).user_id)
        yield Page(leaves, changed)


def refuse_removed(session: Session, counted: Counted, groups: Sequence[str | None]) -> None:
    """See that all are there who were, once everybody of these groups is counted.

    Raises:
        AnchorContradiction: a user is not there any more.
    """
    if session.scalars(select(func.count()).select_from(AnchoredUser)).one() != counted.anchored:
        raise AnchorContradiction(_removed(session, groups))


def following(user_id: uuid.UUID) -> uuid.UUID | None:
    """The next id there can be; None after the last."""
    return None if user_id == LAST_ID else uuid.UUID(int=user_id.int + 1)


def _unhashed(session: Session, user_id: uuid.UUID) -> str:
    version = session.scalars(select(User.credits_version).where(User.user_id == user_id)).one()
    return f"Entry {version}, the newest of user {user_id}, is missing, or has no hash"


def _no_longer_fits(session: Session, user_id: uuid.UUID) -> str:
    anchored = session.scalars(
        select(AnchoredUser.version).where(AnchoredUser.user_id == user_id)
    ).one()
    return (
        f"Entry {anchored} of user {user_id}, the newest at the last checkpoint, is missing, or is "
        "another now"
    )


def _removed(session: Session, groups: Sequence[str | None]) -> str:
    users = [table("users", column("user_id"), schema=group) for group in groups]
    are_there = [exists().where(each.c.user_id == AnchoredUser.user_id) for each in users]
    removed = select(AnchoredUser.user_id).where(~or_(*are_there))
    found = session.scalars(removed.order_by(AnchoredUser.user_id).limit(1)).one_or_none()
    return f"User {found}, who was there at the last checkpoint, is missing"
