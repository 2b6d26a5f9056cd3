"""Keys of other services: made once, stored as a hash, checked at every call.

A key is `fsk_` and 256 random bits. The prefix lets scanners find a leaked one; the bits make a
plain SHA-256 as good as a slow hash.
"""

import datetime as dt
import hashlib
import secrets
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from src.common.accounts.rules import storable
from src.common.exceptions import Invalid, NotFound
from src.common.models.api_key import ApiKey

PREFIX = "fsk_"


class Scope(StrEnum):
    """What a key may do; a user of type `admin` has every scope."""

    USERS_READ = "users:read"
    CREDITS_READ = "credits:read"
    CREDITS_SPEND = "credits:spend"
    CREDITS_GRANT = "credits:grant"
    PAYMENTS_REFUND = "payments:refund"
    REPORTS_READ = "reports:read"


MOVING_MONEY = frozenset({Scope.CREDITS_GRANT, Scope.CREDITS_SPEND, Scope.PAYMENTS_REFUND})
"""Scopes with which a service moves credits, or pays money back. Spending is among them: the
service undoes its spends, and whoever makes another key of that name undoes them too."""
SERVICE_NAME_LENGTH_MAX = 200
"""`key:` and the name are the actor in the journal, which has a length of its own."""


@dataclass(frozen=True, kw_only=True)
class KeyFacts:
    """What is written of a key: all but the key itself."""

    key_id: uuid.UUID
    key_hash: bytes = field(repr=False)
    last_four: str
    service_name: str
    scopes: tuple[str, ...]
    """At least one, in order."""
    expires_at: dt.datetime | None


@dataclass(frozen=True)
class IssuedKey:
    """A key at the one moment it is known in clear."""

    record: ApiKey
    key: str = field(repr=False)


def create_api_key(
    session: Session,
    *,
    service_name: str,
    scopes: Iterable[str],
    expires_at: dt.datetime | None = None,
) -> IssuedKey:
    """A new key for `service_name`.

    Raises:
        Invalid: VALIDATION_ERROR, as `new_api_key`.
    """
    facts, key = new_api_key(service_name=service_name, scopes=scopes, expires_at=expires_at)
    return IssuedKey(write_api_key(session, facts), key)


def new_api_key(
    *, service_name: str, scopes: Iterable[str], expires_at: dt.datetime | None
) -> tuple[KeyFacts, str]:
    """What is to be written of a new key, and the key in clear; nothing is written yet.

    Raises:
        Invalid: VALIDATION_ERROR, no service name, too long a one or an address, an unknown scope,
            none at all, or an expiry in the past.
    """
    _check_service_name(service_name)
    wanted = sorted({_known_scope(scope) for scope in scopes})
    if not wanted:
        raise Invalid("scopes: name at least one", "VALIDATION_ERROR", field="scopes")
    _check_expiry(expires_at)
    key = PREFIX + secrets.token_urlsafe(32)
    facts = KeyFacts(
        key_id=uuid.uuid4(),
        key_hash=_hash(key),
        last_four=key[-4:],
        service_name=service_name,
        scopes=tuple(str(scope) for scope in wanted),
        expires_at=expires_at,
    )
    return facts, key


def write_api_key(session: Session, facts: KeyFacts) -> ApiKey:
    """Have a key work from now on.

    Raises:
        Invalid: VALIDATION_ERROR, its time is over.
    """
    _check_expiry(facts.expires_at)
    record = ApiKey(
        key_id=facts.key_id,
        key_hash=facts.key_hash,
        last_four=facts.last_four,
        service_name=facts.service_name,
        scopes=list(facts.scopes),
        expires_at=facts.expires_at,
    )
    session.add(record)
    session.flush()
    return record


def find_valid_api_key(session: Session, key: str) -> ApiKey | None:
    """The record of this key if it was issued by us, not revoked and not expired."""
    return session.scalars(
        select(ApiKey).where(
            ApiKey.key_hash == _hash(key),
            ApiKey.revoked_at.is_(None),
            or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now()),
        )
    ).one_or_none()


def revoke_api_key(session: Session, key_id: uuid.UUID) -> ApiKey:
    """End a key now; doing it again changes nothing.

    Raises:
        NotFound: API_KEY_NOT_FOUND.
    """
    record = session.get(ApiKey, key_id, with_for_update=True)
    if record is None:
        raise NotFound("No API key has this id", "API_KEY_NOT_FOUND")
    if record.revoked_at is None:
        record.revoked_at = func.now()
        session.flush()
        session.refresh(record, ["revoked_at"])
    return record


def list_api_keys(session: Session) -> list[ApiKey]:
    """All keys, newest first, revoked ones included."""
    return list(session.scalars(select(ApiKey).order_by(ApiKey.created_at.desc())))


def _check_service_name(name: str) -> None:
    is_text = name.strip() != "" and name == storable(name) and len(name) <= SERVICE_NAME_LENGTH_MAX
    if not is_text or "@" in name:  # the journal and the audit trail keep it for ever
        raise Invalid(
            f"service: needs a name of at most {SERVICE_NAME_LENGTH_MAX} characters, and no @",
            "VALIDATION_ERROR",
            field="service",
        )


def _check_expiry(expires_at: dt.datetime | None) -> None:
    if expires_at is not None and expires_at <= dt.datetime.now(dt.UTC):
        raise Invalid("expires_at: lies in the past", "VALIDATION_ERROR", field="expires_at")


def _known_scope(scope: str) -> Scope:
    try:
        return Scope(scope)
    except ValueError:
        known = ", ".join(Scope)
        raise Invalid(
            f"scopes: {scope!r} is unknown; known are {known}", "VALIDATION_ERROR", field="scopes"
        ) from None


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
