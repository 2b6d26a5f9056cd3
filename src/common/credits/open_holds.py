"""Everybody's open holds, for operators; nothing here locks or writes."""

import datetime as dt
import uuid
from dataclasses import dataclass

from sqlalchemy import and_, func, select, tuple_
from sqlalchemy.orm import Session

from src.common.models.credit_entry import CreditEntry
from src.common.models.credit_hold import CreditHold, HoldStatus
from src.common.postgres.pagination import Page, decode_cursor, decode_number_cursor, encode_cursor


@dataclass(frozen=True, kw_only=True)
class OpenHold:
    """An open hold, and who opened it when for what."""

    user_id: uuid.UUID
    seq: int
    amount: int
    captured: int
    expires_at: dt.datetime
    opened_at: dt.datetime
    reference: str | None
    actor: str


def open_holds(session: Session, *, cursor: str | None, limit: int) -> Page[OpenHold]:
    """One page of them; first those that would stay open the longest. A range of an index.

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
            CreditEntry.effective_at.label("opened_at"),
            CreditEntry.reference,
            CreditEntry.actor,
        )
        .join(
            CreditEntry,
            and_(CreditEntry.user_id == CreditHold.user_id, CreditEntry.seq == CreditHold.seq),
        )
        .where(
            CreditHold.status == HoldStatus.OPEN,
            CreditHold.expires_at > func.statement_timestamp(),
        )
        .order_by(CreditHold.expires_at.desc(), CreditHold.user_id.desc(), CreditHold.seq.desc())
        .limit(limit + 1)
    )
    if cursor is not None:
        begun, _, seq = cursor.rpartition(".")
        statement = statement.where(
            place < tuple_(*decode_cursor(begun), decode_number_cursor(seq))
        )
    rows = [OpenHold(**row) for row in session.execute(statement).mappings()]
    if len(rows) <= limit:
        return Page(rows, None)
    last = rows[limit - 1]
    return Page(rows[:limit], f"{encode_cursor(last.expires_at, last.user_id)}.{last.seq}")
