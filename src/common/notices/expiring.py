"""Telling endpoints of credits that will expire: one notice a lot and endpoint.

Nothing happens when a lot comes within an endpoint's lead, so rounds look for it: through all open
lots that expire within the lead, some at a time, in the order in which they expire. Each round
finds what the one before could not: a lot made meanwhile, or one whose user was locked.
"""

import datetime as dt
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from sqlalchemy import DateTime, Uuid, exists, func, literal, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from src.common.models.credit_lot import CreditLot
from src.common.models.credit_notice import CreditNotice, NoticeType
from src.common.models.notice_endpoint import NoticeEndpoint
from src.common.models.notice_triggers import INSTANT
from src.common.models.user import User

STEP_LOTS = 500
ROUND_SECONDS = 300.0
"""How long after a round began the next one begins."""

Place = tuple[dt.datetime, uuid.UUID, int]
"""When a lot expires, whose it is, its `seq`."""
T = TypeVar("T")


class InTransaction(Protocol):
    """Runs work in one database transaction."""

    def __call__(self, work: Callable[[Session], T], /) -> T:
        """What the work returned."""
        ...


@dataclass
class Rounds:
    """One worker's rounds. Where it was is forgotten with the process: the next begins anew."""

    clock: Callable[[], float] = time.monotonic
    _began: float | None = None
    _places: dict[uuid.UUID, Place | None] = field(default_factory=dict[uuid.UUID, Place | None])
    """How far this round has come, by endpoint that it still has to look for."""

    def step(self, in_transaction: InTransaction) -> tuple[int, bool]:
        """Look at the next lots for one endpoint.

        Returns:
            How many notices were written, and whether there is more to do in this round.
        """
        if not self._places:
            if self._began is not None and self.clock() < self._began + ROUND_SECONDS:
                return 0, False
            self._began = self.clock()
            self._places = dict.fromkeys(in_transaction(_interested))
            if not self._places:
                return 0, False
        endpoint_id, after = next(iter(self._places.items()))
        written, place = in_transaction(partial(tell, endpoint_id=endpoint_id, after=after))
        if place is None:
            del self._places[endpoint_id]
        else:
            self._places[endpoint_id] = place
        return written, bool(self._places)


def tell(
    session: Session,
    *,
    endpoint_id: uuid.UUID,
    after: Place | None = None,
    now: dt.datetime | None = None,
    limit: int = STEP_LOTS,
) -> tuple[int, Place | None]:
    """Tell an endpoint of the next lots that expire within its lead, once of each.

    Users whose row somebody has locked are left to the next round. `now` replaces the database's
    clock, in tests.

    Returns:
        How many notices were written, and after which lot to go on; None where that were all.
    """
    lead = session.scalars(
        select(NoticeEndpoint.expiring_lead_seconds).where(
            NoticeEndpoint.endpoint_id == endpoint_id, NoticeEndpoint.disabled_at.is_(None)
        )
    ).one_or_none()
    if lead is None:
        return 0, None
    instant = now or session.scalars(select(func.statement_timestamp())).one()
    rows = _page(
        session, endpoint_id, (instant, instant + dt.timedelta(seconds=lead)), after, limit
    )
    untold = [(user_id, seq) for _, user_id, seq, is_told in rows if not is_told]
    written = _write(session, endpoint_id, untold, instant) if untold else 0
    if len(rows) < limit:
        return written, None
    expires_at, user_id, seq, _ = rows[-1]
    return written, (expires_at, user_id, seq)


def _interested(session: Session) -> Sequence[uuid.UUID]:
    return session.scalars(
        select(NoticeEndpoint.endpoint_id).where(
            NoticeEndpoint.expiring_lead_seconds.is_not(None), NoticeEndpoint.disabled_at.is_(None)
        )
    ).all()


def _page(
    session: Session,
    endpoint_id: uuid.UUID,
    window: tuple[dt.datetime, dt.datetime],
    after: Place | None,
    limit: int,
) -> list[tuple[dt.datetime, uuid.UUID, int, bool]]:
    """The next lots that expire in the window, and of each whether the endpoint was told."""
    place = (CreditLot.expires_at, CreditLot.user_id, CreditLot.seq)
    lots = (
        select(*place)
        .where(CreditLot.is_open, CreditLot.expires_at > window[0])
        .where(CreditLot.expires_at <= window[1])
        .order_by(*place)
        .limit(limit)
    )
    if after is not None:
        lots = lots.where(CreditLot.expires_at >= after[0], tuple_(*place) > after)
    found = lots.subquery()
    is_told = exists().where(
        CreditNotice.type == NoticeType.EXPIRING,
        CreditNotice.endpoint_id == endpoint_id,
        CreditNotice.user_id == found.c.user_id,
        CreditNotice.seq == found.c.seq,
    )
    rows = session.execute(
        select(found.c.expires_at, found.c.user_id, found.c.seq, is_told).order_by(
            found.c.expires_at, found.c.user_id, found.c.seq
        )
    )
    return [(expires_at, user_id, seq, told) for expires_at, user_id, seq, told in rows]


def _write(
    session: Session,
    endpoint_id: uuid.UUID,
    lots: Sequence[tuple[uuid.UUID, int]],
    instant: dt.datetime,
) -> int:
    """Tell of those of these lots that still hold credits, under their users' row locks.

    The lock gives the notice its place among the user's others, and what it says of the lot is so
    until whoever waits for the lock comes.
    """
    locked = set(
        session.scalars(
            select(User.user_id)
            .where(User.user_id.in_({user_id for user_id, _ in lots}))
            .order_by(User.user_id)
            .with_for_update(key_share=True, skip_locked=True)
        )
    )
    free = [lot for lot in lots if lot[0] in locked]
    told = (
        select(
            CreditLot.user_id,
            literal(endpoint_id, Uuid),
            literal(str(NoticeType.EXPIRING)),
            CreditLot.seq,
            func.jsonb_build_object(
                *("user_id", CreditLot.user_id, "lot_seq", CreditLot.seq),
                *("source", CreditLot.source, "transaction_id", CreditLot.transaction_id),
                *("remaining", CreditLot.remaining),
                *("expires_at", func.to_char(func.timezone("UTC", CreditLot.expires_at), INSTANT)),
            ),
            literal(instant, DateTime(timezone=True)),
        )
        .where(tuple_(CreditLot.user_id, CreditLot.seq).in_(free), CreditLot.is_open)
        .order_by(CreditLot.user_id, CreditLot.seq)
    )
    columns = ["user_id", "endpoint_id", "type", "seq", "data", "created_at"]
    written = session.scalars(
        insert(CreditNotice)
        .from_select(columns, told)
        .on_conflict_do_nothing()
        .returning(CreditNotice.number)
    ).all()
    return len(written)
