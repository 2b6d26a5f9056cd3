"""Writing down what is asked for, and finding what was asked for before with the same key."""

import datetime as dt
import uuid
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from src.common.approvals import forms, rules
from src.common.approvals.forms import Form
from src.common.approvals.rules import Limits
from src.common.credits.domain import errors
from src.common.exceptions import NotFound
from src.common.models.approval import Approval


@dataclass(frozen=True)
class Asked:
    """Another person has to consent; nothing was done yet."""

    approval: Approval
    replayed: bool
    """Whether it was asked before with this key."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be written down."""

    user_id: uuid.UUID | None
    """None where it is about no user."""
    form: Form
    reason: str
    requester: str
    key: str
    digest: bytes
    transaction_id: uuid.UUID | None = None


def find_request(session: Session, user_id: uuid.UUID, key: str) -> Approval | None:
    """What was asked for about this user with this key, whatever became of it."""
    return session.scalars(
        select(Approval).where(Approval.user_id == user_id, Approval.idempotency_key == key)
    ).one_or_none()


def find_asked(session: Session, user_id: uuid.UUID, key: str, digest: bytes) -> Asked | None:
    """The very same, asked for before.

    Raises:
        Conflict: IDEMPOTENCY_KEY_REUSED. APPROVAL_DECIDED, APPROVAL_EXPIRED, nothing comes of it.
    """
    found = find_request(session, user_id, key)
    if found is None:
        return None
    if found.request_digest != digest:
        raise errors.key_reused()
    rules.check_not_over(found, clock(session))
    return Asked(found, replayed=True)


def ask(session: Session, request: Request, limits: Limits) -> Asked:
    """Write a request down."""
    now = clock(session)
    written = session.scalars(
        insert(Approval)
        .values(
            user_id=request.user_id,
            transaction_id=request.transaction_id,
            command=forms.written(request.form),
            reason=request.reason,
            requester=request.requester,
            idempotency_key=request.key,
            request_digest=request.digest,
            created_at=now,
            expires_at=now + limits.lifetime,
        )
        .returning(Approval)
    ).one()
    return Asked(written, replayed=False)


def clock(session: Session) -> dt.datetime:
    """The database's, read after the locks: never before this database transaction began."""
    now: dt.datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return now


def approval_not_found() -> NotFound:
    """APPROVAL_NOT_FOUND: nobody asked for this."""
    return NotFound("There is no such request", "APPROVAL_NOT_FOUND")
