"""How delivery goes, endpoint by endpoint: for metrics, the doctor and the console."""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from sqlalchemy import (
    ColumnElement,
    DateTime,
    ScalarSelect,
    Select,
    String,
    func,
    literal,
    literal_column,
    null,
    select,
    true,
)
from sqlalchemy.orm import Session

from src.common.models.credit_notice import CreditNotice, NoticeStatus
from src.common.models.notice_endpoint import NoticeEndpoint
from src.common.models.notice_endpoint_state import NoticeEndpointState
from src.common.postgres.routes import sees_users


@dataclass(frozen=True, kw_only=True)
class EndpointFigures:
    """One endpoint, and what waits for it."""

    endpoint_id: uuid.UUID
    url: str
    disabled_reason: str | None
    """Why nothing is sent to it; None while it is enabled."""
    pending: int
    dead: int
    """How many notices nobody tries any more."""
    oldest_seconds: float
    """How long ago the oldest happened that waits; 0 where none does."""
    delivered: int
    """How many it has taken, ever."""
    failed: int
    """How many attempts have failed, ever."""
    failures: int
    """How often in a row it was out of reach."""
    paused_until: dt.datetime | None
    """Until when nothing is sent to it; None where it is."""
    last_delivered_at: dt.datetime | None
    last_failed_at: dt.datetime | None
    last_error: str | None

    def beside(self, other: Self) -> Self:
        """The same with what waits for it of other users too."""
        return replace(
            self,
            pending=self.pending + other.pending,
            dead=self.dead + other.dead,
            oldest_seconds=max(self.oldest_seconds, other.oldest_seconds),
        )


def endpoint_figures(session: Session) -> Sequence[EndpointFigures]:
    """All endpoints, the oldest first: there are never many.

    Nothing waits for any where the session sees no user's tables.
    """
    endpoint, state = NoticeEndpoint, NoticeEndpointState
    now = func.clock_timestamp(type_=DateTime(timezone=True))
    oldest = (
        select(CreditNotice.created_at)
        .where(
            CreditNotice.endpoint_id == endpoint.endpoint_id,
            CreditNotice.status == _as_written(NoticeStatus.PENDING),
        )
        .order_by(CreditNotice.number)
        .limit(1)
        .lateral("oldest")
    )
    figures: Select[*tuple[Any, ...]] = (
        select(endpoint, state, now)
        .outerjoin(state, state.endpoint_id == endpoint.endpoint_id)
        .order_by(endpoint.created_at, endpoint.endpoint_id)
        .execution_options(populate_existing=True)
    )
    if sees_users(session.connection()):
        figures = figures.outerjoin(oldest, true()).add_columns(
            _count(NoticeStatus.PENDING),
            _count(NoticeStatus.DEAD),
            func.extract("epoch", now - oldest.c.created_at),
        )
    else:
        figures = figures.add_columns(literal(0), literal(0), null())
    return [
        _figures(of, seen, pending=pending, dead=dead, age=age, now=instant)
        for of, seen, instant, pending, dead, age in session.execute(figures)
    ]


def _figures(
    of: NoticeEndpoint,
    seen: NoticeEndpointState | None,
    *,
    pending: int,
    dead: int,
    age: float | None,
    now: dt.datetime,
) -> EndpointFigures:
    return EndpointFigures(
        endpoint_id=of.endpoint_id,
        url=of.url,
        disabled_reason=of.disabled_reason,
        pending=pending,
        dead=dead,
        oldest_seconds=max(float(age or 0), 0.0),
        delivered=0 if seen is None else seen.delivered,
        failed=0 if seen is None else seen.failed,
        failures=0 if seen is None else seen.failures,
        paused_until=_still(None if seen is None else seen.paused_until, now),
        last_delivered_at=None if seen is None else seen.last_delivered_at,
        last_failed_at=None if seen is None else seen.last_failed_at,
        last_error=None if seen is None else seen.last_error,
    )


def _count(status: NoticeStatus) -> ScalarSelect[int]:
    return (
        select(func.count())
        .where(
            CreditNotice.endpoint_id == NoticeEndpoint.endpoint_id,
            CreditNotice.status == _as_written(status),
        )
        .scalar_subquery()
    )


def _as_written(status: NoticeStatus) -> ColumnElement[str]:
    """As the partial indexes have it: of a parameter the planner would not know."""
    return literal_column(f"'{status}'", String)


def _still(until: dt.datetime | None, now: dt.datetime) -> dt.datetime | None:
    return until if until is not None and until > now else None
