"""Gives entries from before there were hashes theirs, while everything goes on (decision 0061).

Until a user's last entry has a hash, new ones get none; from then on each gets its own. So users
are locked for a moment, a long journal is done in portions, and who was interrupted goes on where
they were. Once all entries of everybody have a hash, the ledger says so.
"""

import time
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    Integer,
    LargeBinary,
    Uuid,
    and_,
    bindparam,
    cast,
    column,
    func,
    select,
    update,
)
from sqlalchemy.orm import Session, aliased
from sqlalchemy.types import TypeEngine

from src.common.credits.verification.chained import (
    ENTRY_HASH_DOES_NOT_FIT,
    Link,
    links,
    recompute_chain,
)
from src.common.credits.verification.reading import fetch_hashed, read_ledger
from src.common.exceptions import Conflict
from src.common.models.credit_entry import CreditEntry
from src.common.models.credit_ledger import CreditLedger
from src.common.models.user import User
from src.common.postgres.session_makers import BeginsSessions

PAGE_USERS = 1_000
"""Users looked at in one statement."""
BATCH_ENTRIES = 2_000
"""Entries in one database transaction, of one user or of several; their rows are locked so long."""
_PAUSE_SECONDS = 0.2
"""Before users are tried again whose rows somebody had locked."""


@dataclass(kw_only=True)
class Chaining:
    """What was done so far."""

    users: int = 0
    """Users looked at, in this pass over all."""
    locked_users: int = 0
    """Of these, those whose rows somebody has locked: the next pass comes back to them."""
    entries: int = 0
    """Entries that were given a hash, in all passes."""
    is_complete: bool = False
    """Whether all entries of everybody have one, and the ledger says so."""

    def add(self, others: "Chaining") -> None:
        """Add what was done for other users."""
        self.users += others.users
        self.locked_users += others.locked_users
        self.entries += others.entries
        self.is_complete = self.is_complete and others.is_complete


_GIVEN: dict[str, TypeEngine[Any]] = {
    "user_ids": Uuid(),
    "seqs": Integer(),
    "hashes": LargeBinary(),
}
_given = (
    func.unnest(*(bindparam(name, type_=ARRAY(type_)) for name, type_ in _GIVEN.items()))
    .table_valued(
        column("user_id", Uuid()), column("seq", Integer()), column("entry_hash", LargeBinary())
    )
    .render_derived(name="given")
)
_GIVE = (
    update(CreditEntry)
    .where(CreditEntry.user_id == _given.c.user_id, CreditEntry.seq == _given.c.seq)
    .values(entry_hash=_given.c.entry_hash)
    .execution_options(synchronize_session=False)
)


class _Unchained(NamedTuple):
    """A user whose last entry has no hash."""

    user_id: uuid.UUID
    version: int


def chain_entries(sessions: BeginsSessions) -> Generator[Chaining]:
    """Give every entry without a hash its own; yields what was done after each batch.

    It goes over all users until it finds nobody, in short database transactions of its own. An
    interruption loses no more than the one that is under way.

    Raises:
        Conflict: ENTRY_HASH_DOES_NOT_FIT, somebody's entries are not what they were when they got
            their hashes; LEDGER_MISSING, the row is gone whose id every chain begins with.
        DatabaseBusy: a passing condition of the database.
    """
    done = Chaining()
    while True:
        before = done.entries
        for count, unchained in _pages(sessions):
            for batch in _batches(unchained):
                yield from _chain(sessions, batch, done)
            done.users += count
            yield done
        if done.entries == before and not done.locked_users:
            return
        if done.locked_users:
            time.sleep(_PAUSE_SECONDS)
        done.users = done.locked_users = 0


def complete_chain(sessions: BeginsSessions) -> Iterator[Chaining]:
    """As `chain_entries`, and then nobody can write an entry without a hash any more.

    No process of a release that writes none may be left.
    """
    done = Chaining()
    for done in chain_entries(sessions):
        yield done
    with sessions.begin() as session:
        session.execute(
            update(CreditLedger)
            .where(CreditLedger.chained_at.is_(None))
            .values(chained_at=func.clock_timestamp())
        )
    done.is_complete = True
    yield done


def chain_users(session: Session, user_ids: Sequence[uuid.UUID]) -> int:
    """Give these users' entries their hashes, whom nobody else has locked; how many they were.

    Raises:
        Conflict: as `chain_entries`.
    """
    return _chain_locked(session, list(_lock(session, user_ids)))


def _pages(sessions: BeginsSessions) -> Iterator[tuple[int, list[_Unchained]]]:
    """How many users come next in the order of `user_id`, and who of them is not chained."""
    last = aliased(CreditEntry)
    users = (
        select(
            User.user_id,
            User.credits_version,
            last.seq.is_not(None) & last.entry_hash.is_(None),
        )
        .outerjoin(last, and_(last.user_id == User.user_id, last.seq == User.credits_version))
        .order_by(User.user_id)
        .limit(PAGE_USERS)
    )
    after: uuid.UUID | None = None
    while True:
        following = users if after is None else users.where(User.user_id > after)
        with sessions.begin() as session:
            page = session.execute(following).all()
        if not page:
            return
        yield len(page), [_Unchained(user_id, version) for user_id, version, is_ in page if is_]
        after = page[-1][0]


def _batches(unchained: Iterable[_Unchained]) -> Iterator[list[_Unchained]]:
    """Those who together have so many entries, or one who alone has more."""
    batch: list[_Unchained] = []
    room = BATCH_ENTRIES
    for each in unchained:
        if each.version > room and batch:
            yield batch
            batch, room = [], BATCH_ENTRIES
        batch.append(each)
        room -= each.version
    if batch:
        yield batch


def _chain(
    sessions: BeginsSessions, batch: Sequence[_Unchained], done: Chaining
) -> Iterator[Chaining]:
    """Give these users' entries their hashes; of one alone a portion after the other."""
    user_ids = [each.user_id for each in batch]
    if len(user_ids) == 1:
        yield from _chain_portions(sessions, user_ids[0], done)
        return
    with sessions.begin() as session:
        locked = list(_lock(session, user_ids))
        entries = _chain_locked(session, locked)
    done.entries += entries
    done.locked_users += len(user_ids) - len(locked)
    yield done


def _chain_portions(
    sessions: BeginsSessions, user_id: uuid.UUID, done: Chaining
) -> Iterator[Chaining]:
    after, previous = 0, None
    while True:
        with sessions.begin() as session:
            version = _lock(session, [user_id]).get(user_id)
            if version is None:
                done.locked_users += 1
                return
            until = min(version, after + BATCH_ENTRIES)
            if previous is None:
                previous = _ledger_id(session)
            portion = list(
                recompute_chain(session, user_id, after=after, previous=previous, until=until)
            )
            entries = _write(session, {user_id: portion})
        done.entries += entries
        yield done
        if until == version or not portion:
            return
        after, previous = until, portion[-1].computed


def _lock(session: Session, user_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, int]:
    """Lock those whom nobody else has locked, and how many entries each has."""
    rows = session.execute(
        select(User.user_id, User.credits_version)
        .where(User.user_id == func.any(cast(user_ids, ARRAY(Uuid()))))
        .order_by(User.user_id)
        .with_for_update(key_share=True, skip_locked=True)
    )
    return dict(rows.all())


def _chain_locked(session: Session, locked: list[uuid.UUID]) -> int:
    ledger_id = _ledger_id(session)
    chains: dict[uuid.UUID, Iterable[Link]] = {}
    for whose, rows in fetch_hashed(session, locked).items():
        user_id = uuid.UUID(bytes=whose)
        chains[user_id] = links(user_id, ledger_id, rows)
    return _write(session, chains)


def _ledger_id(session: Session) -> bytes:
    """What first entries follow; a hash that was made without it could not be changed any more."""
    ledger_id = read_ledger(session).ledger_id
    if not ledger_id:
        raise Conflict(
            "The row of credit_ledgers is missing: run `flashslides doctor chain`", "LEDGER_MISSING"
        )
    return ledger_id


def _write(session: Session, chains: Mapping[uuid.UUID, Iterable[Link]]) -> int:
    """Write the hashes that lack; how many."""
    lacking: list[tuple[uuid.UUID, int, bytes]] = []
    for user_id, chained in chains.items():
        for seq, stored, computed in chained:
            if stored is None:
                lacking.append((user_id, seq, computed))
            elif stored != computed:
                raise Conflict(
                    f"Entry {seq} of user {user_id} is not what it was when it got its hash: run "
                    f"`flashslides verify --user {user_id}`",
                    ENTRY_HASH_DOES_NOT_FIT,
                )
    if lacking:
        session.execute(
            _GIVE, dict(zip(_GIVEN, map(list, zip(*lacking, strict=True)), strict=True))
        )
    return len(lacking)
