"""Replaying: what was delivered or given up is sent again, with the same id."""

from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from src.common.models.credit_notice import CreditNotice, NoticeStatus
from src.common.models.notice_endpoint import NoticeEndpoint
from src.common.notices.endpoints import get_endpoint
from src.common.notices.queries import NoticeFilter, get_notice

STEP_ROWS = 1_000
_ANEW = {
    CreditNotice.status: NoticeStatus.PENDING,
    CreditNotice.attempts: 0,
    CreditNotice.next_attempt_at: func.statement_timestamp(),
    CreditNotice.lease_expires_at: None,
    CreditNotice.finished_at: None,
}


@dataclass(frozen=True)
class Step:
    """A step of a replay."""

    replayed: int
    """How many notices wait to be sent again."""
    next_number: int | None
    """Where the next step begins; None where this was the last."""


def replay_notice(session: Session, notice_id: str) -> CreditNotice:
    """Have one notice sent again, or at once where it waits.

    Raises:
        NotFound: NOTICE_NOT_FOUND, or NOTICE_ENDPOINT_NOT_FOUND, nobody is there to be told.
    """
    notice = get_notice(session, notice_id)
    get_endpoint(session, notice.endpoint_id)
    session.execute(
        update(CreditNotice)
        .where(CreditNotice.user_id == notice.user_id, CreditNotice.number == notice.number)
        .values(_ANEW)
        .execution_options(synchronize_session=False)
    )
    session.refresh(notice)
    return notice


def replay_matching(session: Session, wanted: NoticeFilter, *, after: int = 0) -> Step:
    """Have the next of these notices sent again that were delivered or given up, oldest first.

    What is replayed may come after newer notices of its user.
    """
    found = (
        select(CreditNotice.number)
        .join(NoticeEndpoint, NoticeEndpoint.endpoint_id == CreditNotice.endpoint_id)
        .where(
            CreditNotice.number > after,
            CreditNotice.status != NoticeStatus.PENDING,
            *wanted.conditions(),
        )
        .order_by(CreditNotice.number)
        .limit(STEP_ROWS)
        .with_for_update(of=CreditNotice)
        .cte("found")
    )
    numbers = session.scalars(
        update(CreditNotice)
        .where(CreditNotice.number == found.c.number)
        .values(_ANEW)
        .returning(CreditNotice.number)
        .execution_options(synchronize_session=False)
    ).all()
    return Step(len(numbers), max(numbers) if len(numbers) == STEP_ROWS else None)
