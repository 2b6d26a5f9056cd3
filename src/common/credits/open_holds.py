"""Lists everybody's open holds, for operators; nothing here locks or writes."""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from src.common.credits.domain.book import Hold
from src.common.credits.domain.views import HoldState
from src.common.credits.entries import read_opening_entries
from src.common.models.credit_hold import CreditHold, HoldStatus
from src.common.postgres.pagination import (
    Page,
    decode_cursor,
    decode_number_cursor,
    encode_cursor,
    merge_pages,
)


@dataclass(frozen=True, kw_only=True)
class OpenHold:
    """An open hold and whose it is."""

    user_id: uuid.UUID
    state: HoldState


def open_holds(session: Session, *, cursor: str | None, limit: int) -> Page[OpenHold]:
    """One page of them; first those that would stay open the longest. A range of an index.

    Three statements, of however many users they are.

    Raises:
        Invalid: VALIDATION_ERROR, the cursor is not one of ours.
    """
    place = tuple_(CreditHold.expires_at, CreditHold.user_id, CreditHold.seq)
    statement = (
        select(
            CreditHold.user_id,
            CreditHold.seq,
            CreditHold.amount,
            CreditHold.captured,
            CreditHold.expires_at,
        )
        .where(
            CreditHold.status == HoldStatus.OPEN,
            CreditHold.expires_at > func.statement_timestamp(),
        )
        .order_by(CreditHold.expires_at.desc(), CreditHold.user_id.desc(), CreditHold.seq.desc())
        .limit(limit + 1)
    )
    if cursor is not None:
        statement = statement.where(place < tuple_(*_read_cursor(cursor)))
    found = [
        (
            user_id,
            Hold(
                seq=seq,
                amount=amount,
                captured=captured,
                status=HoldStatus.OPEN,
                expires_at=expires_at,
                allocations={},
            ),
        )
        for user_id, seq, amount, captured, expires_at in session.execute(statement)
    ]
    items = _with_entries(session, found[:limit])
    if len(found) <= limit:
        return Page(items, None)
    user_id, last = found[limit - 1]
    return Page(items, _write_cursor(last.expires_at, user_id, last.seq))


def merge_holds(pages: Sequence[Page[OpenHold]], limit: int) -> Page[OpenHold]:
    """One page of the open holds of several groups of users."""
    return merge_pages(
        pages,
        limit,
        lambda found: (found.state.hold.expires_at, found.user_id, found.state.hold.seq),
        read_cursor=_read_cursor,
        write_cursor=_write_cursor,
    )


def _read_cursor(cursor: str) -> tuple[dt.datetime, uuid.UUID, int]:
    begun, _, seq = cursor.rpartition(".")
    return *decode_cursor(begun), decode_number_cursor(seq)


def _write_cursor(expires_at: dt.datetime, user_id: uuid.UUID, seq: int) -> str:
    return f"{encode_cursor(expires_at, user_id)}.{seq}"


def _with_entries(session: Session, holds: Sequence[tuple[uuid.UUID, Hold]]) -> list[OpenHold]:
    entries = read_opening_entries(session, [(user_id, hold.seq) for user_id, hold in holds])
    return [
        OpenHold(user_id=user_id, state=HoldState(hold=hold, entry=entries[user_id, hold.seq]))
        for user_id, hold in holds
    ]
