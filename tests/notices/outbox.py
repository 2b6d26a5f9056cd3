"""Endpoints for tests, and what the outbox has for them."""

import uuid
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.models.credit_notice import CreditNotice, NoticeType
from src.common.models.notice_endpoint import NoticeEndpoint

EVERYTHING = tuple(NoticeType)
ALL_BUT_SPENT = tuple(each for each in NoticeType if each is not NoticeType.SPENT)


def add_endpoint(
    session: Session,
    *types: NoticeType,
    low_threshold: int | None = None,
    expiring_lead_seconds: int | None = None,
) -> uuid.UUID:
    """An endpoint that wants to be told of these types; `low` at 10, `expiring` a day before."""
    if low_threshold is None and NoticeType.LOW in types:
        low_threshold = 10
    if expiring_lead_seconds is None and NoticeType.EXPIRING in types:
        expiring_lead_seconds = 86_400
    endpoint = NoticeEndpoint(
        url="https://example.com/hook",
        types=[str(each) for each in types],
        low_threshold=low_threshold,
        expiring_lead_seconds=expiring_lead_seconds,
    )
    session.add(endpoint)
    session.flush()
    return endpoint.endpoint_id


def notices_of(
    session: Session, user_id: uuid.UUID | None = None, endpoint_id: uuid.UUID | None = None
) -> list[CreditNotice]:
    """What is in the outbox, in its order, perhaps of one user or for one endpoint."""
    statement = select(CreditNotice).order_by(CreditNotice.number)
    if user_id is not None:
        statement = statement.where(CreditNotice.user_id == user_id)
    if endpoint_id is not None:
        statement = statement.where(CreditNotice.endpoint_id == endpoint_id)
    return list(session.scalars(statement.execution_options(populate_existing=True)))


def told(
    session: Session, user_id: uuid.UUID | None = None, endpoint_id: uuid.UUID | None = None
) -> list[tuple[str, int | None]]:
    """Type and entry of each."""
    return [(each.type, each.seq) for each in notices_of(session, user_id, endpoint_id)]


def data_of(session: Session, type_: NoticeType) -> list[dict[str, Any]]:
    """What notices of one type say."""
    return [each.data for each in notices_of(session) if each.type == type_]
