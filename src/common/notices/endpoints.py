"""Endpoints: made, changed, switched off and on, deleted; their secrets, made and rotated."""

import base64
import datetime as dt
import secrets
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, delete, func, or_, select, text, update
from sqlalchemy.orm import Session

from src.common.exceptions import Conflict, NotFound
from src.common.models.credit_notice import NoticeType
from src.common.models.notice_endpoint import NoticeEndpoint, NoticeSecret
from src.common.models.notice_endpoint_state import NoticeEndpointState
from src.common.notices.rules import Subscription, invalid, subscription

ENDPOINTS_MAX = 20
"""Every write of the ledger looks at all of them."""
SECRETS_MAX = 5
"""Of one endpoint, valid at once: each is a signature in every request."""
SECRET_PREFIX = "whsec_"  # noqa: S105  what Standard Webhooks begins a secret with
SECRET_BYTES = 32
OVERLAP_SECONDS = 86_400
"""How long an older secret goes on signing beside a new one, unless somebody says otherwise."""
OVERLAP_SECONDS_MAX = 30 * 86_400
DISABLED_BY_HAND = "Disabled by an operator"


@dataclass(frozen=True)
class IssuedSecret:
    """An endpoint and its new secret, at the one moment it is shown."""

    endpoint: NoticeEndpoint
    secret: str = field(repr=False)
    """`whsec_` and 32 random bytes in base64."""


def create_endpoint(session: Session, wanted: Subscription) -> IssuedSecret:
    """An endpoint that is told of all that is committed from now on.

    Raises:
        Conflict: TOO_MANY_NOTICE_ENDPOINTS.
    """
    # Nobody adds another meanwhile. Readers, the ledger's writes among them, are not held up.
    session.execute(text("LOCK TABLE notice_endpoints IN SHARE ROW EXCLUSIVE MODE"))
    count = session.scalars(select(func.count()).select_from(NoticeEndpoint)).one()
    if count >= ENDPOINTS_MAX:
        raise Conflict(
            f"There are {count} endpoints, and no more than {ENDPOINTS_MAX} may be: delete one",
            "TOO_MANY_NOTICE_ENDPOINTS",
        )
    endpoint = NoticeEndpoint()
    _subscribe(endpoint, wanted)
    session.add(endpoint)
    session.flush()
    return IssuedSecret(endpoint, _add_secret(session, endpoint.endpoint_id))


def update_endpoint(
    session: Session,
    endpoint_id: uuid.UUID,
    *,
    url: str | None = None,
    types: Iterable[str] | None = None,
    low_threshold: int | None = None,
    expiring_lead_seconds: int | None = None,
    is_local: bool,
) -> NoticeEndpoint:
    """Change what is given; the rest stays, but for what other types no longer need.

    Raises:
        NotFound: NOTICE_ENDPOINT_NOT_FOUND.
        Invalid: VALIDATION_ERROR, naming the field, as `rules.subscription`.
    """
    endpoint = _locked(session, endpoint_id)
    kinds = set(endpoint.types if types is None else types)
    if low_threshold is None and NoticeType.LOW in kinds:
        low_threshold = endpoint.low_threshold
    if expiring_lead_seconds is None and NoticeType.EXPIRING in kinds:
        expiring_lead_seconds = endpoint.expiring_lead_seconds
    wanted = subscription(
        url=endpoint.url if url is None else url,
        types=kinds,
        low_threshold=low_threshold,
        expiring_lead_seconds=expiring_lead_seconds,
        is_local=is_local,
    )
    if wanted.url != endpoint.url:
        _end_pause(session, endpoint_id)
    _subscribe(endpoint, wanted)
    session.flush()
    return endpoint


def rotate_secret(
    session: Session, endpoint_id: uuid.UUID, *, overlap_seconds: int = OVERLAP_SECONDS
) -> IssuedSecret:
    """A new secret. The older ones sign beside it for `overlap_seconds` at most; 0 ends them now.

    Raises:
        NotFound: NOTICE_ENDPOINT_NOT_FOUND.
        Invalid: VALIDATION_ERROR, naming `overlap_seconds`.
        Conflict: TOO_MANY_NOTICE_SECRETS, others are still valid.
    """
    if not 0 <= overlap_seconds <= OVERLAP_SECONDS_MAX:
        raise invalid("overlap_seconds", f"must be an integer, 0 to {OVERLAP_SECONDS_MAX}")
    endpoint = _locked(session, endpoint_id)
    until = func.statement_timestamp() + dt.timedelta(seconds=overlap_seconds)
    of_endpoint = NoticeSecret.endpoint_id == endpoint_id
    session.execute(
        update(NoticeSecret)
        .where(of_endpoint, or_(NoticeSecret.expires_at.is_(None), NoticeSecret.expires_at > until))
        .values(expires_at=until)
    )
    session.execute(delete(NoticeSecret).where(of_endpoint, ~_is_valid()))
    valid = session.scalars(select(func.count()).where(of_endpoint)).one()
    if valid >= SECRETS_MAX:
        raise Conflict(
            f"{valid} secrets of this endpoint are valid: wait until one expires, or rotate with"
            " an overlap of 0",
            "TOO_MANY_NOTICE_SECRETS",
        )
    return IssuedSecret(endpoint, _add_secret(session, endpoint_id))


def secrets_of(session: Session, endpoint_id: uuid.UUID) -> list[bytes]:
    """The secrets that sign what the endpoint is sent now, the newest first."""
    return list(
        session.scalars(
            select(NoticeSecret.secret)
            .where(NoticeSecret.endpoint_id == endpoint_id, _is_valid())
            .order_by(NoticeSecret.expires_at.desc().nulls_first())
        )
    )


def disable_endpoint(session: Session, endpoint_id: uuid.UUID, *, reason: str) -> NoticeEndpoint:
    """Write nothing more for it, and send nothing; what waits is sent once it is enabled again.

    `reason` is in words of ours. Of an endpoint that is disabled, the first stays.

    Raises:
        NotFound: NOTICE_ENDPOINT_NOT_FOUND.
    """
    endpoint = _locked(session, endpoint_id)
    if endpoint.disabled_at is None:
        endpoint.disabled_at = session.scalars(select(func.statement_timestamp())).one()
        endpoint.disabled_reason = reason
        session.flush()
    return endpoint


def enable_endpoint(session: Session, endpoint_id: uuid.UUID) -> NoticeEndpoint:
    """Tell it again from now on. What happened meanwhile it is not told.

    Raises:
        NotFound: NOTICE_ENDPOINT_NOT_FOUND.
    """
    endpoint = _locked(session, endpoint_id)
    endpoint.disabled_at = endpoint.disabled_reason = None
    _end_pause(session, endpoint_id)
    session.flush()
    return endpoint


def delete_endpoint(session: Session, endpoint_id: uuid.UUID) -> None:
    """Forget the endpoint and its secrets. The worker drops what it was to be told.

    Raises:
        NotFound: NOTICE_ENDPOINT_NOT_FOUND.
    """
    session.delete(_locked(session, endpoint_id))
    session.flush()


def get_endpoint(session: Session, endpoint_id: uuid.UUID) -> NoticeEndpoint:
    """One endpoint.

    Raises:
        NotFound: NOTICE_ENDPOINT_NOT_FOUND.
    """
    endpoint = session.get(NoticeEndpoint, endpoint_id)
    if endpoint is None:
        raise _not_found()
    return endpoint


def list_endpoints(session: Session) -> Sequence[NoticeEndpoint]:
    """All of them, the oldest first."""
    return session.scalars(
        select(NoticeEndpoint).order_by(NoticeEndpoint.created_at, NoticeEndpoint.endpoint_id)
    ).all()


def _subscribe(endpoint: NoticeEndpoint, wanted: Subscription) -> None:
    endpoint.url = wanted.url
    endpoint.types = [str(each) for each in wanted.types]
    endpoint.low_threshold = wanted.low_threshold
    endpoint.expiring_lead_seconds = wanted.expiring_lead_seconds


def _end_pause(session: Session, endpoint_id: uuid.UUID) -> None:
    """Send to it at once: how it was out of reach says nothing of how it is now."""
    session.execute(
        update(NoticeEndpointState)
        .where(NoticeEndpointState.endpoint_id == endpoint_id)
        .values(failures=0, paused_until=None)
    )


def _locked(session: Session, endpoint_id: uuid.UUID) -> NoticeEndpoint:
    endpoint = session.get(
        NoticeEndpoint, endpoint_id, with_for_update=True, populate_existing=True
    )
    if endpoint is None:
        raise _not_found()
    return endpoint


def _add_secret(session: Session, endpoint_id: uuid.UUID) -> str:
    secret = secrets.token_bytes(SECRET_BYTES)
    session.add(NoticeSecret(endpoint_id=endpoint_id, secret=secret))
    session.flush()
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def _is_valid() -> ColumnElement[bool]:
    return or_(
        NoticeSecret.expires_at.is_(None), NoticeSecret.expires_at > func.statement_timestamp()
    )


def _not_found() -> NotFound:
    return NotFound("There is no such endpoint", "NOTICE_ENDPOINT_NOT_FOUND")
