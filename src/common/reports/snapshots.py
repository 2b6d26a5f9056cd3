"""What all figures of a report are of: one snapshot, its instant, and what was due by then.

Rule 8: what expired counts from its own instant, whether or not anybody has booked it. Lots that
expired are told by one statement. Users with an overdue hold are settled by the rules
themselves, so many at a time: where credits return, debts are repaid and dead lots expire.
"""

import datetime as dt
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from sqlalchemy import (
    ARRAY,
    Boolean,
    DateTime,
    Integer,
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
from src.common.credits.persistence.storage import load_books
from src.common.models.credit_entry import CreditEntry
from src.common.models.credit_hold import CreditHold, HoldStatus
from src.common.models.user import User
from src.common.postgres.silent_servers import lift_time_limits
from src.common.settings import get_settings
from src.common.sharding.refusals import refuse_where_sharded

BATCH_USERS = 500
"""Settled at a time."""

ROWS_A_FETCH = 1_000
"""Of what may be long, at a time."""

EVER = dt.datetime(9999, 1, 1, tzinfo=dt.UTC)
"""After everything that is booked, and everything that has fallen due."""


_COLUMNS = ("due_users", "due_seqs", "due_lots", "due_amounts", "due_kinds", "due_instants")


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The database at one instant, and what no lot's row says of that."""

    now: dt.datetime
    holders: Sequence[uuid.UUID] = ()
    """Users with an overdue hold."""
    lines: Mapping[str, Sequence[Any]] = field(
        default_factory=lambda: {name: [] for name in _COLUMNS}, repr=False
    )
    """What those users' next operations will book before their own, column by column.

    There may be very many, where no worker has booked for long: so no object is kept for each."""

    def parameters(self) -> dict[str, Any]:
        """For `UNBOOKED`."""
        return {"now": self.now, "holders": list(self.holders), **self.lines}


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
    "test_money": Boolean(),
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


def take_snapshot(session: Session, *, now: dt.datetime | None = None) -> Snapshot:
    """What has fallen due as of the session's snapshot.

    `begin_snapshot` comes first wherever others write meanwhile.

    Raises:
        DatabaseBusy: a passing condition of the database.
    """
    session.flush()
    if now is None:
        now = session.scalars(select(func.clock_timestamp(type_=DateTime(timezone=True)))).one()
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
    return Snapshot(now=now.astimezone(dt.UTC), holders=holders, lines=lines)


def first_entry_at(session: Session, until: dt.datetime) -> dt.datetime | None:
    """When the first entry counts from, or is to be written; None where there is none by then.

    Raises:
        DatabaseBusy: a passing condition of the database.
    """
    first = session.scalar(select(func.min(CreditEntry.effective_at)))
    if first is None:
        unopened = select(User.user_id).where(User.credits_version == 0, User.credits_balance > 0)
        first = until if session.scalar(unopened.limit(1)) else None
    return None if first is None or first > until else first


def begin_report(session: Session) -> None:
    """Have the session's database transaction, which is to begin now, see one snapshot only.

    It writes nothing. A report reads much more than a request, so it may take longer, and sort and
    hash in more memory; compiling its expressions would take longer than it saves.

    Raises:
        SettingsError: groups of users have schemas.
    """
    refuse_where_sharded(get_settings(), "a report")
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


def _batches(user_ids: Sequence[uuid.UUID]) -> Iterator[list[uuid.UUID]]:
    rest = iter(user_ids)
    while batch := list(islice(rest, BATCH_USERS)):
        yield batch
