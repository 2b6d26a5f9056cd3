"""What delivery reads and writes: claims with a lease, what came of them, how endpoints are.

What is claimed is a user's first pending notice for an endpoint. Whoever has it has all that user's
notices for that endpoint, so nobody sends a later one beside it. A worker that ends meanwhile
leaves it to whoever comes once the lease is over. All functions take the caller's open session and
never commit.
"""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    DateTime,
    Double,
    Integer,
    String,
    Uuid,
    bindparam,
    func,
    or_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from src.common.models.notice_endpoint import NoticeEndpoint
from src.common.models.notice_endpoint_state import NoticeEndpointState
from src.common.notices import endpoints
from src.common.notices.delivery.messages import Notice

LEASE_SECONDS = 60.0
"""How long whoever claims a user's notices has them to itself; longer than an attempt takes."""
TOGETHER_MAX = 25
"""How many notices of a user are sent one after the other under one claim."""
_LOOKS_MAX = 2_000
"""How many users one statement looks at in search of those whose notices are due."""
_FIRST = uuid.UUID(int=0)


@dataclass(frozen=True, kw_only=True)
class Target:
    """An endpoint that may be sent to now."""

    endpoint_id: uuid.UUID
    url: str
    failures: int
    """How often in a row it was out of reach."""


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """What a claim found."""

    notices: Sequence[Sequence[Notice]]
    """The notices of each user, in order."""
    after: uuid.UUID
    """Behind which user the next claim goes on to look."""
    has_more: bool
    """Whether users behind it were not looked at."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What becomes of a notice that was sent, or was claimed and not sent."""

    notice: Notice
    status: str
    """A value of `NoticeStatus`."""
    attempts: int
    """How often it was sent by now."""
    delay_seconds: float | None = None
    """When it is sent next; None where it is not."""
    response_status: int | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What attempts have shown of an endpoint since the last time."""

    failures: int
    """How often in a row it was out of reach."""
    delivered: int
    failed: int
    """Attempts that failed."""
    pause_seconds: float | None
    """For how long to leave it alone from now on; None: not at all."""
    error: str | None
    """What the newest failure was; None where nothing failed."""


def targets(session: Session) -> list[Target]:
    """The endpoints that may be sent to now."""
    state = NoticeEndpointState
    rows = session.execute(
        select(NoticeEndpoint.endpoint_id, NoticeEndpoint.url, state.failures)
        .outerjoin(state, state.endpoint_id == NoticeEndpoint.endpoint_id)
        .where(
            NoticeEndpoint.disabled_at.is_(None),
            or_(state.paused_until.is_(None), state.paused_until <= func.statement_timestamp()),
        )
        .order_by(NoticeEndpoint.endpoint_id)
    )
    return [
        Target(endpoint_id=endpoint_id, url=url, failures=failures or 0)
        for endpoint_id, url, failures in rows
    ]


_FIRSTS = """
SELECT notice.user_id, notice.number, notice.next_attempt_at <= statement_timestamp() AS is_due
FROM credit_notices AS notice
WHERE notice.endpoint_id = :endpoint_id AND notice.status = 'pending' AND notice.user_id > {after}
ORDER BY notice.user_id, notice.number LIMIT 1
"""

# Somebody may have disabled, deleted or moved it, or another worker have been told to wait.
_MAY_BE_SENT_TO = """
SELECT FROM notice_endpoints AS endpoint
LEFT JOIN notice_endpoint_states AS state ON state.endpoint_id = endpoint.endpoint_id
WHERE endpoint.endpoint_id = :endpoint_id AND endpoint.url = :url
  AND endpoint.disabled_at IS NULL
  AND (state.paused_until IS NULL OR state.paused_until <= statement_timestamp())
"""

# It goes from user to user by an index, and stops where it has found enough.
_CLAIM_SQL = f"""
WITH RECURSIVE firsts (user_id, number, is_due, found, looks) AS (
  (SELECT one.*, CAST(one.is_due AS integer), 1
   FROM ({_FIRSTS.format(after=":after")}) AS one WHERE EXISTS ({_MAY_BE_SENT_TO}))
  UNION ALL
  SELECT one.*, firsts.found + CAST(one.is_due AS integer), firsts.looks + 1
  FROM firsts CROSS JOIN LATERAL ({_FIRSTS.format(after="firsts.user_id")}) AS one
  WHERE firsts.found < :wanted AND firsts.looks < :looks_max
), due AS MATERIALIZED (
  SELECT notice.user_id, notice.number
  FROM firsts JOIN credit_notices AS notice
    ON notice.user_id = firsts.user_id AND notice.number = firsts.number
  WHERE firsts.is_due AND notice.status = 'pending'
    AND notice.next_attempt_at <= statement_timestamp()
  FOR UPDATE OF notice SKIP LOCKED
), claimed AS (
  UPDATE credit_notices AS notice
  SET attempts = notice.attempts + 1,
      next_attempt_at = statement_timestamp() + CAST(:lease AS interval),
      lease_expires_at = statement_timestamp() + CAST(:lease AS interval)
  FROM due WHERE notice.user_id = due.user_id AND notice.number = due.number
  RETURNING notice.user_id, notice.number
)
SELECT firsts.user_id, firsts.looks, claimed.number
FROM firsts LEFT JOIN claimed ON claimed.user_id = firsts.user_id ORDER BY firsts.user_id
"""  # noqa: S608  our own words
_CLAIM = (
    text(_CLAIM_SQL)
    .bindparams(
        bindparam("endpoint_id", type_=Uuid()),
        bindparam("url", type_=String()),
        bindparam("after", type_=Uuid()),
        bindparam("wanted", type_=Integer()),
        bindparam("looks_max", type_=Integer()),
        bindparam("lease", type_=String()),
    )
    .columns(user_id=Uuid(), looks=Integer(), number=BigInteger())
)

_OF_USERS = (
    text("""
SELECT claim.number AS first, one.*
FROM unnest(:user_ids, :numbers) AS claim (user_id, number)
CROSS JOIN LATERAL (
  SELECT notice.user_id, notice.number, notice.type, notice.data, notice.created_at,
         notice.attempts
  FROM credit_notices AS notice
  WHERE notice.endpoint_id = :endpoint_id AND notice.status = 'pending'
    AND notice.user_id = claim.user_id AND notice.number >= claim.number
  ORDER BY notice.number LIMIT :together_max
) AS one
ORDER BY first, one.number
""")
    .bindparams(
        bindparam("user_ids", type_=ARRAY(Uuid())),
        bindparam("numbers", type_=ARRAY(BigInteger())),
        bindparam("endpoint_id", type_=Uuid()),
        bindparam("together_max", type_=Integer()),
    )
    .columns(
        first=BigInteger(),
        user_id=Uuid(),
        number=BigInteger(),
        type=String(),
        data=JSONB(),
        created_at=DateTime(timezone=True),
        attempts=Integer(),
    )
)


def claim(session: Session, target: Target, *, wanted: int, after: uuid.UUID = _FIRST) -> Claimed:
    """Take notices of up to `wanted` users, for whom it is time and whom nobody else has.

    Users behind `after` are looked at, in their order; so in the end each has a turn. None where
    the endpoint is not to be sent to any more, or is elsewhere.
    """
    rows = session.execute(
        _CLAIM,
        {
            "endpoint_id": target.endpoint_id,
            "url": target.url,
            "after": after,
            "wanted": wanted,
            "looks_max": _LOOKS_MAX,
            "lease": f"{LEASE_SECONDS} seconds",
        },
    ).all()
    claims = [(row.user_id, row.number) for row in rows if row.number is not None]
    # The last row is of a user behind whom nobody was looked for, unless there is nobody.
    has_more = bool(rows) and (len(claims) >= wanted or rows[-1].looks >= _LOOKS_MAX)
    return Claimed(
        notices=_notices_of(session, target.endpoint_id, claims),
        after=rows[-1].user_id if has_more else _FIRST,
        has_more=has_more or after != _FIRST,
    )


def _notices_of(
    session: Session, endpoint_id: uuid.UUID, claims: Sequence[tuple[uuid.UUID, int]]
) -> list[list[Notice]]:
    if not claims:
        return []
    rows = session.execute(
        _OF_USERS,
        {
            "user_ids": [user_id for user_id, _ in claims],
            "numbers": [number for _, number in claims],
            "endpoint_id": endpoint_id,
            "together_max": TOGETHER_MAX,
        },
    )
    found: dict[int, list[Notice]] = {}
    for row in rows:
        is_claimed = row.number == row.first
        notice = Notice(
            user_id=row.user_id,
            number=row.number,
            type=row.type,
            data=row.data,
            created_at=row.created_at,
            attempts=row.attempts - is_claimed,
            is_claimed=is_claimed,
        )
        found.setdefault(row.first, []).append(notice)
    return list(found.values())


_SETTLE = text("""
UPDATE credit_notices AS notice
SET status = result.status, attempts = result.attempts, lease_expires_at = NULL,
    next_attempt_at = result.next_attempt_at, finished_at = result.finished_at,
    response_status = CASE WHEN result.is_sent THEN result.response_status
      ELSE notice.response_status END,
    error = CASE WHEN result.is_sent THEN result.error ELSE notice.error END
FROM unnest(:user_ids, :numbers, :known, :statuses, :attempts, :next_attempts_at, :finished_at,
    :responses, :errors, :sent)
  AS result (user_id, number, known, status, attempts, next_attempt_at, finished_at,
    response_status, error, is_sent)
WHERE notice.user_id = result.user_id AND notice.number = result.number
  AND notice.status = 'pending' AND notice.attempts = result.known
""").bindparams(
    bindparam("user_ids", type_=ARRAY(Uuid())),
    bindparam("numbers", type_=ARRAY(BigInteger())),
    bindparam("known", type_=ARRAY(Integer())),
    bindparam("statuses", type_=ARRAY(String())),
    bindparam("attempts", type_=ARRAY(Integer())),
    bindparam("next_attempts_at", type_=ARRAY(DateTime(timezone=True))),
    bindparam("finished_at", type_=ARRAY(DateTime(timezone=True))),
    bindparam("responses", type_=ARRAY(Integer())),
    bindparam("errors", type_=ARRAY(String())),
    bindparam("sent", type_=ARRAY(Boolean())),
)


def settle(session: Session, results: Sequence[Result], now: dt.datetime) -> None:
    """Note what became of notices; what somebody has replayed meanwhile stays as they left it.

    `now` is `read_clock`'s, as below.
    """
    if not results:
        return
    parameters: dict[str, list[Any]] = {
        "user_ids": [each.notice.user_id for each in results],
        "numbers": [each.notice.number for each in results],
        "known": [each.notice.attempts + each.notice.is_claimed for each in results],
        "statuses": [each.status for each in results],
        "attempts": [each.attempts for each in results],
        "next_attempts_at": [_next_attempt_at(each, now) for each in results],
        "finished_at": [None if each.status == "pending" else now for each in results],
        "responses": [each.response_status for each in results],
        "errors": [each.error for each in results],
        "sent": [
            each.attempts > each.notice.attempts or each.error is not None for each in results
        ],
    }
    session.execute(_SETTLE, parameters)


def _next_attempt_at(result: Result, now: dt.datetime) -> dt.datetime | None:
    if result.status != "pending" or result.delay_seconds is None:
        return None
    return now + dt.timedelta(seconds=float(result.delay_seconds))


def read_clock(session: Session) -> dt.datetime:
    """By the database's clock, and the same wherever it is written: Citus evaluates it nowhere."""
    now: dt.datetime = session.scalars(select(func.statement_timestamp())).one()
    return now


def disable(session: Session, target: Target, reason: str) -> bool:
    """Disable an endpoint; not where it is elsewhere by now, or deleted: False."""
    is_there = session.scalars(
        select(NoticeEndpoint.endpoint_id)
        .where(NoticeEndpoint.endpoint_id == target.endpoint_id, NoticeEndpoint.url == target.url)
        .with_for_update()
    ).one_or_none()
    if is_there is None:
        return False
    endpoints.disable_endpoint(session, target.endpoint_id, reason=reason)
    return True


_NOTE = text("""
INSERT INTO notice_endpoint_states AS state (endpoint_id, failures, delivered, failed,
  paused_until, last_delivered_at, last_failed_at, last_error)
SELECT endpoint_id, :failures, :delivered, :failed,
  :now + :pause * interval '1 second',
  CASE WHEN :delivered > 0 THEN :now END,
  CASE WHEN :failed > 0 THEN :now END, :error
FROM notice_endpoints WHERE endpoint_id = :endpoint_id
ON CONFLICT (endpoint_id) DO UPDATE SET failures = excluded.failures,
  delivered = state.delivered + excluded.delivered, failed = state.failed + excluded.failed,
  paused_until = greatest(excluded.paused_until, state.paused_until),
  last_delivered_at = coalesce(excluded.last_delivered_at, state.last_delivered_at),
  last_failed_at = coalesce(excluded.last_failed_at, state.last_failed_at),
  last_error = coalesce(excluded.last_error, state.last_error)
""").bindparams(
    bindparam("endpoint_id", type_=Uuid()),
    bindparam("now", type_=DateTime(timezone=True)),
    bindparam("failures", type_=Integer()),
    bindparam("delivered", type_=Integer()),
    bindparam("failed", type_=Integer()),
    bindparam("pause", type_=Double()),
    bindparam("error", type_=String()),
)


def note_condition(
    session: Session, endpoint_id: uuid.UUID, condition: Condition, now: dt.datetime
) -> None:
    """Note how an endpoint is, unless it is deleted."""
    session.execute(
        _NOTE,
        {
            "now": now,
            "endpoint_id": endpoint_id,
            "failures": condition.failures,
            "delivered": condition.delivered,
            "failed": condition.failed,
            "pause": condition.pause_seconds,
            "error": condition.error,
        },
    )
