"""Remembers requests that an endpoint charged for, so that each is done and charged once.

On the caller's open session, never committing; the user's row is locked. A row of
`charged_requests` has the newest try of a request, and its answer, for a while. The journal says
for ever which requests were charged: the keys of a charge's hold and capture name the request.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, and_, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from src.common.credits import queries
from src.common.credits.domain import errors
from src.common.models.charged_request import ChargedRequest
from src.common.models.credit_entry import CreditEntry
from src.common.models.credit_hold import HoldStatus

CLAIM_SECONDS = 86_400
"""How long a try is remembered after its hold: longer than it matters to anybody."""


@dataclass(frozen=True)
class Answer:
    """What a request was answered."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes


@dataclass(frozen=True)
class Claim:
    """One try of a request."""

    user_id: uuid.UUID
    key: bytes
    """SHA-256 of the key it came with."""
    request: bytes
    """SHA-256 of what was asked, and by whom."""
    claim_id: uuid.UUID = field(default_factory=uuid.uuid4)

    @property
    def hold_key(self) -> str:
        """What the keys of this try's holds begin with."""
        return f"{self._request_key}{self.claim_id.hex}"

    @property
    def capture_key(self) -> str:
        """The key of the charge: one, whichever try is charged."""
        return f"charge:{self.key.hex()}:capture"

    def is_of_this_request(self, hold_key: str) -> bool:
        """Whether a hold was a try of the same request, not of another with its key."""
        return hold_key.startswith(self._request_key)

    @property
    def _request_key(self) -> str:
        return f"charge:{self.key.hex()}:{self.request.hex()}:"


def find_answer(session: Session, claim: Claim) -> Answer | None:
    """What the request was answered; None where it is still to be done.

    Raises:
        Conflict: IDEMPOTENCY_KEY_REUSED, the key belongs to another request; REQUEST_IN_PROGRESS;
            ALREADY_CHARGED, and its answer was not kept, or is no longer.
    """
    found = session.scalars(
        select(ChargedRequest)
        .where(_is_row_of(claim))
        .where(ChargedRequest.status.is_(None) | (ChargedRequest.expires_at > _now()))
        .execution_options(populate_existing=True)
    ).one_or_none()
    if found is not None and found.claim_id == claim.claim_id:
        return None  # its COMMIT was lost on the way to us
    if found is not None and (found.status is not None or _is_under_way(session, found)):
        if found.request_digest != claim.request:
            raise errors.key_reused()
        if found.status is None or found.headers is None or found.body is None:
            raise errors.request_in_progress()
        pairs = zip(found.headers[::2], found.headers[1::2], strict=True)
        return Answer(found.status, list(pairs), found.body)
    charged = _charged_hold_key(session, claim)
    if charged is None:
        return None
    raise errors.already_charged() if claim.is_of_this_request(charged) else errors.key_reused()


def take(session: Session, claim: Claim, hold_seq: int, hold_seconds: int) -> None:
    """Note that this try is at the request, in place of any before it."""
    values = {
        "request_digest": claim.request,
        "claim_id": claim.claim_id,
        "hold_seq": hold_seq,
        "status": None,
        "headers": None,
        "body": None,
        "expires_at": _in(hold_seconds + CLAIM_SECONDS),
    }
    taken = insert(ChargedRequest).values(user_id=claim.user_id, key_digest=claim.key, **values)
    instead = {name: taken.excluded[name] for name in values}  # Citus evaluates no function there
    session.execute(
        taken.on_conflict_do_update(index_elements=["user_id", "key_digest"], set_=instead)
    )


def confirm(session: Session, claim: Claim) -> None:
    """Refuse to charge a try whose hold expired, and that another has begun in place of.

    Raises:
        Conflict: REQUEST_IN_PROGRESS.
    """
    newest = session.scalar(select(ChargedRequest.claim_id).where(_is_row_of(claim)))
    charged = _charged_hold_key(session, claim)
    is_charged_to_another = charged is not None and not charged.startswith(claim.hold_key)
    if newest not in {None, claim.claim_id} or is_charged_to_another:
        raise errors.request_in_progress()


def keep_answer(session: Session, claim: Claim, answer: Answer, seconds: int) -> None:
    """Keep what the request is answered; not where its user was erased meanwhile."""
    session.execute(
        update(ChargedRequest)
        .where(_is_row_of(claim), ChargedRequest.claim_id == claim.claim_id)
        .values(
            status=answer.status,
            headers=[part for header in answer.headers for part in header],
            body=answer.body,
            expires_at=_in(seconds),
        )
        .execution_options(synchronize_session=False)
    )


def drop_expired(session: Session, limit: int = 1_000) -> int:
    """Remove rows that say nothing any more, the oldest first; how many those were."""
    expired = (
        select(ChargedRequest.user_id, ChargedRequest.key_digest)
        .where(ChargedRequest.expires_at <= func.now())
        .order_by(ChargedRequest.expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("expired")
    )
    dropped = session.execute(
        delete(ChargedRequest)
        .where(
            ChargedRequest.user_id == expired.c.user_id,
            ChargedRequest.key_digest == expired.c.key_digest,
        )
        .returning(ChargedRequest.user_id)
        .execution_options(synchronize_session=False)
    )
    return len(dropped.all())


def _is_row_of(claim: Claim) -> ColumnElement[bool]:
    return and_(ChargedRequest.user_id == claim.user_id, ChargedRequest.key_digest == claim.key)


def _is_under_way(session: Session, found: ChargedRequest) -> bool:
    hold = queries.get_hold(session, found.user_id, found.hold_seq).hold
    return hold.status is HoldStatus.OPEN


def _charged_hold_key(session: Session, claim: Claim) -> str | None:
    """The key of the hold that a request with this key was charged from, if one was."""
    charge, hold = aliased(CreditEntry), aliased(CreditEntry)
    return session.scalar(
        select(hold.idempotency_key)
        .join(charge, and_(charge.user_id == hold.user_id, charge.related_seq == hold.seq))
        .where(charge.user_id == claim.user_id, charge.idempotency_key == claim.capture_key)
    )


def _now() -> ColumnElement[object]:
    return func.statement_timestamp()


def _in(seconds: int) -> ColumnElement[object]:
    return func.statement_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)
