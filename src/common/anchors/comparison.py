"""Compares what checkpoints say with the entries of today, whose hashes are all made again."""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import psycopg
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from src.common.anchors.expectations import Expectations, Expected
from src.common.anchors.findings import AnchorReport, Finding, FindingKind
from src.common.anchors.notes import PublicKey
from src.common.anchors.replay import Replay
from src.common.anchors.sinks import Sink
from src.common.anchors.standings import newest_number
from src.common.credits.verification.chained import Link, links, recompute_chain
from src.common.credits.verification.reading import (
    begin_snapshot,
    fetch_hashed,
    portions_of,
    read_ledger,
    versions_of,
)
from src.common.models.anchor_checkpoint import AnchorCheckpoint
from src.common.models.anchor_sink import AnchorSink
from src.common.postgres.routes import is_sharded, routed_to_schema
from src.common.sharding.directory import groups_of

_BATCH_USERS = 1_000


class AnchorVerification:
    """One comparison of a sink with the database; `report` grows while it is iterated."""

    def __init__(
        self, sessions: sessionmaker[Session], sink: Sink, keys: Sequence[PublicKey]
    ) -> None:
        self._sessions = sessions
        self._sink = sink
        self._keys = keys
        self.report = AnchorReport()
        self.users = 0
        """How many users there are to compare; known once all checkpoints are read."""
        self._is_sharded = False
        """Whether groups of users have schemas."""

    def run(self, user_ids: Sequence[uuid.UUID] | None = None) -> Iterator[None]:
        """Read all checkpoints, then compare these users, or everybody; yields many times.

        It owns short database transactions, one a batch of users.

        Raises:
            DatabaseBusy: a passing condition of the database.
            SinkUnavailable: the sink cannot be read.
        """
        with Expectations() as expectations:
            with self._sessions() as session:
                ledger = read_ledger(session)
                self._is_sharded = is_sharded(session.connection())
            replay = Replay(self._keys, ledger.ledger_id, expectations)
            yield from replay.read(self._sink, self.report)
            with self._sessions() as session:
                self._compare_checkpoints(session, replay.hashes)
            wanted = None if user_ids is None else set(user_ids)
            self.users = expectations.count_users() if wanted is None else len(wanted)
            expected = (
                each for each in expectations.by_user() if wanted is None or each[0] in wanted
            )
            while batch := dict(islice(expected, _BATCH_USERS)):
                self._compare(batch)
                yield

    def _compare_checkpoints(self, session: Session, hashes: dict[int, bytes]) -> None:
        """The checkpoints that were read with those that the database closed."""
        report = self.report
        newest = newest_number(session)
        report.newest_in_database = newest
        for number, hashed in hashes.items():
            if number > (newest or 0):
                self._add(
                    number,
                    FindingKind.DATABASE_SET_BACK,
                    f"The database knows no checkpoint after {newest or 0}.",
                )
                break
            row = session.get(AnchorCheckpoint, number)
            if row is None or row.checkpoint_hash != hashed:
                self._add(number, FindingKind.ANCHOR_IS_ANOTHER, "The database closed another one.")
                break
        had = session.scalars(
            select(AnchorSink.number).where(AnchorSink.sink == self._sink.name)
        ).one_or_none()
        last = report.last_checkpoint or 0
        if had is not None and had > last and not report.findings:
            explanation = f"{self._sink.name} had checkpoint {had}, and now ends at {last}."
            self._add(last + 1, FindingKind.ANCHORS_SHORTENED, explanation)
        if not hashes and not report.findings:
            # The wrong file, or an emptied one under another name. Nobody may take it for one that
            # fits.
            explanation = f"{self._sink.name} has no checkpoint: nothing was compared."
            self._add(None, FindingKind.ANCHORS_MISSING, explanation)

    def _add(self, checkpoint: int | None, kind: FindingKind, explanation: str) -> None:
        self.report.add(Finding(checkpoint=checkpoint, kind=kind, explanation=explanation))

    def _compare(self, expected: dict[uuid.UUID, list[Expected]]) -> None:
        """Compare these users, each where it is; who is nowhere is missing."""
        for group, user_ids in self._by_group(list(expected)).items():
            with routed_to_schema(group):
                self._compare_in_group(expected, user_ids)
        for user_id, mine in expected.items():
            self.report.users += 1
            self.report.add(
                Finding(
                    checkpoint=mine[0].checkpoint,
                    kind=FindingKind.USER_MISSING,
                    user_id=user_id,
                    explanation="The user, who was there, is not there any more.",
                )
            )

    def _by_group(self, user_ids: list[uuid.UUID]) -> dict[str | None, list[uuid.UUID]]:
        if not self._is_sharded:
            return {None: user_ids}
        with self._sessions() as session:
            groups = groups_of(session.connection(), user_ids)
        found: dict[str | None, list[uuid.UUID]] = {}
        for user_id, group in groups.items():
            found.setdefault(group, []).append(user_id)
        return found

    def _compare_in_group(
        self, expected: dict[uuid.UUID, list[Expected]], user_ids: list[uuid.UUID]
    ) -> None:
        """Take those of these users out of `expected` who are there."""
        with self._sessions() as session:
            begin_snapshot(session)
            versions = session.execute(versions_of(user_ids)).all()
            portions, too_long = portions_of(versions)
            ledger_id = read_ledger(session).ledger_id
            alone = [portion[0] for portion in portions if len(portion) == 1]
            for portion in portions:
                if len(portion) == 1:
                    continue
                self._compare_portion(session, ledger_id, {it: expected.pop(it) for it in portion})
            for user_id in (*alone, *too_long):  # a few thousand entries at a time
                mine = expected.pop(user_id)
                until = mine[-1].version
                self._judge(user_id, mine, recompute_chain(session, user_id, until=until))

    def _compare_portion(
        self, session: Session, ledger_id: bytes, expected: dict[uuid.UUID, list[Expected]]
    ) -> None:
        try:
            found = fetch_hashed(session, list(expected))
        except psycopg.DataError as error:
            # What a driver cannot read: each is asked for alone.
            if len(expected) > 1:
                for user_id, mine in expected.items():
                    self._compare_portion(session, ledger_id, {user_id: mine})
                return
            [(user_id, mine)] = expected.items()
            self.report.users += 1
            self.report.add(_unreadable(user_id, mine, error))
            return
        for user_id, mine in expected.items():
            rows = found.get(user_id.bytes)
            chained = () if rows is None else links(user_id, ledger_id, rows)
            self._judge(user_id, mine, chained)

    def _judge(
        self, user_id: uuid.UUID, expected: Sequence[Expected], chained: Iterable[Link]
    ) -> None:
        self.report.users += 1
        try:
            finding = first_unfitting(user_id, expected, chained)
        except psycopg.DataError as error:  # of a long chain, which is read as it is compared
            finding = _unreadable(user_id, expected, error)
        if finding is not None:
            self.report.add(finding)


def first_unfitting(
    user_id: uuid.UUID, expected: Sequence[Expected], chained: Iterable[Link]
) -> Finding | None:
    """The first entry of a user that is not what a checkpoint says it was; None where all fit.

    Each entry's hash is made again from the first on. So where a later one fits, all before it do.
    """
    remaining = iter(chained)
    fitting = seq = 0
    suspect: int | None = None
    computed = b""
    for version, checkpoint, last_hash in expected:
        while seq < version:
            link = next(remaining, None)
            if link is None or link.seq != seq + 1:
                return Finding(
                    checkpoint=checkpoint,
                    kind=FindingKind.ENTRY_MISSING,
                    user_id=user_id,
                    seq=seq + 1,
                    explanation=f"Of {version} entries that there were, {seq + 1} is missing.",
                )
            seq, computed = link.seq, link.computed
            if suspect is None and link.stored != computed:
                suspect = seq
        if version and computed != last_hash:
            return _changed(user_id, checkpoint, suspect, fitting + 1, version)
        fitting, suspect = version, None
    return None


def _unreadable(
    user_id: uuid.UUID, expected: Sequence[Expected], error: psycopg.DataError
) -> Finding:
    return Finding(
        checkpoint=expected[0].checkpoint,
        kind=FindingKind.ENTRY_CHANGED,
        user_id=user_id,
        explanation=f"An entry cannot be read: {error}",
    )


def _changed(
    user_id: uuid.UUID, checkpoint: int, suspect: int | None, first: int, last: int
) -> Finding:
    if suspect is not None:
        explanation = "It is not what it was: its own hash does not fit either."
    else:
        explanation = (
            f"One of the entries {first} to {last} is not what it was, and all hashes were made "
            "anew."
        )
    return Finding(
        checkpoint=checkpoint,
        kind=FindingKind.ENTRY_CHANGED,
        user_id=user_id,
        seq=suspect or first,
        explanation=explanation,
    )
