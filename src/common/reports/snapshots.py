"""What all figures of a report are of: one snapshot, its instant, and what was due by then.

Rule 8: what expired counts from its own instant, whether or not anybody has booked it. Lots that
expired are told by one statement. Users with an overdue hold are settled by the rules
themselves, so many at a time: where credits return, debts are repaid and dead lots expire.
"""

import datetime as dt
import tempfile
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Integer,
    Result,
    Text,
    TextClause,
    Uuid,
    bindparam,
    func,
    select,
    text,
)
from sqlalchemy.orm import Session

from src.common.credits.domain import rules
from src.common.credits.persistence.storage import load_books, reading_connection_of
from src.common.models.credit_hold import CreditHold, HoldStatus
from src.common.postgres.group_readings import seeing_group
from src.common.postgres.routes import is_sharded, route_of
from src.common.postgres.silent_servers import lift_time_limits
from src.common.reports.runs import Run, merge_runs, write_run
from src.common.settings import get_settings
from src.common.sharding.groups import ready_groups
from src.common.sharding.refusals import refuse_undivided

BATCH_USERS = 500
"""Settled at a time."""

ROWS_A_FETCH = 1_000
"""Of what may be long, at a time."""

EVER = dt.datetime(9999, 1, 1, tzinfo=dt.UTC)
"""After everything that is booked, and everything that has fallen due."""


Tell = Callable[[int, int], None]
"""Is told how many groups of users were read, and of how many."""

_COLUMNS = ("due_users", "due_seqs", "due_lots", "due_amounts", "due_kinds", "due_instants")


@dataclass(frozen=True, kw_only=True)
class Due:
    """What no lot's row says of the users of one group, or of all where there are no groups."""

    group: str | None = None
    holders: Sequence[uuid.UUID] = ()
    """Users with an overdue hold."""
    lines: Mapping[str, Sequence[Any]] = field(
        default_factory=lambda: {name: [] for name in _COLUMNS}, repr=False
    )
    """What those users' next operations will book before their own, column by column.

    There may be very many, where no worker has booked for long: so no object is kept for each."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The database at one instant: every group of users, and what has fallen due there."""

    now: dt.datetime
    parts: Sequence[Due]
    tell: Tell | None = None
    """Is told of each group that was read."""

    def read(
        self, session: Session, sql: str, parameters: Mapping[str, Any] | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """A statement's rows of all users: group after group, for the caller to add up.

        Raises:
            DatabaseBusy: a passing condition of the database.
        """
        for due in self._parts():
            with _seeing(session, due):
                rows = self._execute(session, sql, parameters, due).all()
            for row in rows:
                yield tuple(row)

    def read_in_order(
        self,
        session: Session,
        sql: str,
        parameters: Mapping[str, Any],
        *,
        key: Callable[[tuple[Any, ...]], Any],
        rows_a_fetch: int,
    ) -> Iterator[tuple[Any, ...]]:
        """The same where there may be many, and the statement orders them by `key`.

        Of one group they are fetched while they are iterated. Of several they are merged by way of
        a file: to hold a sort for each of hundreds of groups takes the server's memory and locks.

        Raises:
            DatabaseBusy: a passing condition of the database.
        """

        def fetched(due: Due) -> Iterator[tuple[Any, ...]]:
            options = {"yield_per": rows_a_fetch}
            return map(tuple, self._execute(session, sql, parameters, due, **options))

        if [due.group for due in self.parts] == [None]:
            yield from fetched(self.parts[0])
            return
        with tempfile.TemporaryFile() as file:
            runs: list[Run] = []
            for due in self._parts():
                with _seeing(session, due):
                    runs.append(write_run(file, fetched(due)))
            yield from merge_runs(file, runs, key)

    def _parts(self) -> Iterator[Due]:
        for number, due in enumerate(self.parts, start=1):
            yield due
            if self.tell is not None:
                self.tell(number, len(self.parts))

    def _execute(
        self,
        session: Session,
        sql: str,
        parameters: Mapping[str, Any] | None,
        due: Due,
        **options: Any,
    ) -> Result[Any]:
        asked = statement(sql)
        known = {"now": self.now, "holders": list(due.holders), **due.lines, **(parameters or {})}
        wanted = {name: known[name] for name in asked.compile().params}
        return session.execute(asked, wanted, execution_options=options)


_TYPES: dict[str, Any] = {
    "now": DateTime(timezone=True),
    "holders": ARRAY(Uuid()),
    "due_users": ARRAY(Uuid()),
    "due_seqs": ARRAY(Integer()),
    "due_lots": ARRAY(Integer()),
    "due_amounts": ARRAY(Integer()),
    "due_kinds": ARRAY(Text()),
    "due_instants": ARRAY(DateTime(timezone=True)),
    "since": DateTime(timezone=True),
    "until": DateTime(timezone=True),
    "latest": DateTime(timezone=True),
    "bounds": ARRAY(DateTime(timezone=True)),
    "currencies": ARRAY(Text()),
    "days": ARRAY(Date()),
    "kinds": ARRAY(Text()),
    "sources": ARRAY(Text()),
    "earned_as": ARRAY(Text()),
    "amounts": ARRAY(BigInteger()),
    "cents": ARRAY(BigInteger()),
    "test_money": Boolean(),
    "is_live": Boolean(),
    "with_balance": Boolean(),
    "with_debt": Boolean(),
}

UNBOOKED = """
unbooked AS (
    SELECT * FROM unnest(:due_users, :due_seqs, :due_lots, :due_amounts, :due_kinds, :due_instants)
        AS lines (user_id, seq, lot_seq, amount, kind, effective_at)
    UNION ALL
    SELECT lots.user_id,
           CAST(credits_version + row_number() OVER (
               PARTITION BY lots.user_id ORDER BY lots.expires_at, lots.seq) AS int),
           lots.seq, -lots.remaining, 'lot_expiry', greatest(lots.expires_at, newest.effective_at)
    FROM credit_lots AS lots
    JOIN users USING (user_id)
    JOIN credit_entries AS newest
        ON newest.user_id = users.user_id AND newest.seq = users.credits_version
    WHERE lots.is_open AND lots.expires_at <= :now
        AND lots.user_id NOT IN (SELECT unnest(:holders))
)"""
"""The lines that users' next operations will book before their own: what has fallen due."""

OF_THE_MODE = "coalesce(livemode, true) <> :test_money"
"""Of `transactions`: those of real money, or those of Stripe's test mode where these are asked for.

Who did not say is taken to have moved real money: the document's own pattern does not say."""

UNOPENED = """
unopened AS (
    SELECT user_id, credits_balance AS amount FROM users
    WHERE credits_version = 0 AND credits_balance > 0
)"""
"""Balances from before the ledger whose opening entries the next operations will write."""


def statement(sql: str) -> TextClause:
    """A statement of our own with its parameters' types."""
    asked = text(sql)
    names = asked.compile().params
    return asked.bindparams(*(bindparam(name, type_=_TYPES[name]) for name in names))


def take_snapshot(
    session: Session, *, now: dt.datetime | None = None, tell: Tell | None = None
) -> Snapshot:
    """What has fallen due as of the session's snapshot, in each group of users.

    `begin_report` comes first wherever others write meanwhile. `tell` is told of each group that
    was read, by this and whatever reads the snapshot.

    Raises:
        DatabaseBusy: a passing condition of the database.
    """
    session.flush()
    if now is None:
        now = session.scalars(select(func.clock_timestamp(type_=DateTime(timezone=True)))).one()
    parts: list[Due] = []
    groups = _groups_of(session)
    for number, group in enumerate(groups, start=1):
        with _seeing(session, Due(group=group)):
            parts.append(_read_due(session, group, now))
        if tell is not None:
            tell(number, len(groups))
    return Snapshot(now=now.astimezone(dt.UTC), parts=parts, tell=tell)


def _groups_of(session: Session) -> Sequence[str | None]:
    """The groups that this session is to read; None where it sees all users, or one group's."""
    connection = reading_connection_of(session)
    if not is_sharded(connection) or route_of(connection) is not None:
        return [None]
    return ready_groups(connection)


@contextmanager
def _seeing(session: Session, due: Due) -> Generator[None]:
    if due.group is None:
        yield
        return
    with seeing_group(reading_connection_of(session), due.group):
        yield


def _read_due(session: Session, group: str | None, now: dt.datetime) -> Due:
    holders = session.scalars(
        select(CreditHold.user_id)
        .where(CreditHold.status == HoldStatus.OPEN, CreditHold.expires_at <= now)
        .distinct()
        .order_by(CreditHold.user_id)
    ).all()
    lines: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    columns = list(lines.values())
    for batch in _batches(holders):
        for user_id, stored in load_books(session, batch, now=now).items():
            for entry in rules.settle(stored).entries:
                common = entry.kind.value, entry.effective_at
                for line in entry.postings:
                    cells = (user_id, entry.seq, line.lot_seq, line.amount, *common)
                    for column, cell in zip(columns, cells, strict=True):
                        column.append(cell)
    return Due(group=group, holders=holders, lines=lines)


_FIRST = """
SELECT first, first IS NULL AND EXISTS (
    SELECT FROM users WHERE credits_version = 0 AND credits_balance > 0)
FROM (SELECT min(effective_at) AS first FROM credit_entries) AS entries
"""


def first_entry_at(session: Session, snapshot: Snapshot, until: dt.datetime) -> dt.datetime | None:
    """When the first entry counts from, or is to be written; None where there is none by then.

    Raises:
        DatabaseBusy: a passing condition of the database.
    """
    found = list(snapshot.read(session, _FIRST))
    first = min((instant for instant, _ in found if instant is not None), default=None)
    if first is None:
        first = until if any(is_unopened for _, is_unopened in found) else None
    return None if first is None or first > until else first


def begin_report(session: Session) -> None:
    """Have the session's database transaction, which is to begin now, see one snapshot only.

    It writes nothing. A report reads much more than a request, so it may take longer, and sort and
    hash in more memory; compiling its expressions would take longer than it saves.

    Raises:
        SettingsError: SHARDING is `schemas`, and the database is not divided.
    """
    session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    for setting in (
        "TRANSACTION READ ONLY",
        "LOCAL TimeZone = 'UTC'",
        "LOCAL work_mem = '64MB'",
        "LOCAL jit = off",
        "LOCAL cursor_tuple_fraction = 1",
    ):
        session.execute(text(f"SET {setting}"))
    lift_time_limits(session)
    refuse_undivided(session.connection(), get_settings())


def _batches(user_ids: Sequence[uuid.UUID]) -> Iterator[list[uuid.UUID]]:
    rest = iter(user_ids)
    while batch := list(islice(rest, BATCH_USERS)):
        yield batch
