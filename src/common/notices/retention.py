"""Dropping notices that nobody needs any more, some at a time."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, DateTime, cast, delete, func, or_, select, text
from sqlalchemy.orm import InstrumentedAttribute, Session

from src.common.models.credit_notice import CreditNotice, NoticeType
from src.common.models.notice_endpoint import NoticeSecret

STEP_ROWS = 1_000
# Each step of the recursion looks up the next endpoint that anything waits for: a few look-ups in
# the index, however much waits.
_WAITING_IN_VAIN = text("""
    WITH RECURSIVE waiting AS (
        (SELECT endpoint_id FROM credit_notices WHERE status = 'pending'
          ORDER BY endpoint_id LIMIT 1)
        UNION ALL
        SELECT (SELECT n.endpoint_id FROM credit_notices n
          WHERE n.status = 'pending' AND n.endpoint_id > w.endpoint_id
          ORDER BY n.endpoint_id LIMIT 1)
        FROM waiting w WHERE w.endpoint_id IS NOT NULL
    )
    SELECT w.endpoint_id FROM waiting w
    LEFT JOIN notice_endpoints e ON e.endpoint_id = w.endpoint_id
    WHERE w.endpoint_id IS NOT NULL
      AND (e.endpoint_id IS NULL OR e.disabled_at < statement_timestamp() - CAST(:kept AS interval))
""")


def drop_old(session: Session, *, kept_days: int, limit: int = STEP_ROWS) -> int:
    """Drop some of what was finished longer ago, or waits for an endpoint that will not take it.

    That is one that was deleted, or disabled longer ago. What an endpoint was told of a lot is kept
    until the lot expires: it says that it was told.

    Returns:
        How many notices were dropped; `limit` where there may be more.
    """
    kept = dt.timedelta(days=kept_days)
    session.execute(
        delete(NoticeSecret).where(NoticeSecret.expires_at < func.statement_timestamp())
    )
    old = CreditNotice.finished_at < func.statement_timestamp() - kept
    dropped = _drop(session, [old, _is_told_for_good()], CreditNotice.finished_at, limit)
    if dropped < limit:
        for endpoint_id in session.scalars(_WAITING_IN_VAIN, {"kept": kept}).all():
            waits = CreditNotice.status == "pending", CreditNotice.endpoint_id == endpoint_id
            dropped += _drop(session, waits, CreditNotice.number, limit - dropped)
    return dropped


def _is_told_for_good() -> ColumnElement[bool]:
    expires_at = cast(CreditNotice.data["expires_at"].astext, DateTime(timezone=True))
    return or_(CreditNotice.type != NoticeType.EXPIRING, expires_at <= func.statement_timestamp())


def _drop(
    session: Session,
    conditions: Sequence[ColumnElement[bool]],
    order: InstrumentedAttribute[Any],
    limit: int,
) -> int:
    found = (
        select(CreditNotice.user_id, CreditNotice.number)
        .where(*conditions)
        .order_by(order)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("found")
    )
    numbers = session.scalars(
        delete(CreditNotice)
        .where(CreditNotice.user_id == found.c.user_id, CreditNotice.number == found.c.number)
        .returning(CreditNotice.number)
        .execution_options(synchronize_session=False)
    ).all()
    return len(numbers)
