"""Sign-in links and sessions, on the caller's open session, never committing.

A session is 256 random bits in a cookie and their SHA-256 in a row: whoever signs out, or loses
every role, is out at once, whatever becomes of the cookie.
"""

import datetime as dt
import hashlib
import secrets
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from src.common.models.console_session import SESSION_HOURS, ConsolePerson, ConsoleSession
from src.console.permissions import Role

LINK_MINUTES = 60
KEPT_DAYS = 30
LOCAL_ISSUER = "local"


@dataclass(frozen=True)
class Identity:
    """Who the identity provider, or a link, says has come."""

    issuer: str
    subject: str
    name: str
    roles: frozenset[Role]
    person_id: uuid.UUID


@dataclass(frozen=True)
class Known:
    """A session that is valid now."""

    person_id: uuid.UUID
    name: str
    roles: frozenset[Role]
    confirmed_at: dt.datetime
    issuer: str


def local_identity(subject: str, roles: Iterable[Role] = (Role.ADMIN,)) -> Identity:
    """Somebody at a developer's machine."""
    return Identity(
        LOCAL_ISSUER, subject, subject, frozenset(roles), person_id_of(LOCAL_ISSUER, subject)
    )


def person_id_of(issuer: str, subject: str) -> uuid.UUID:
    """The id of the provider's person: the same at every sign-in, and nobody's customer's."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"flashslides-console:{issuer}#{subject}")


def make_link(session: Session, identity: Identity) -> str:
    """The secret of a link that signs this person in, once, within the hour."""
    return _add(session, identity, dt.timedelta(minutes=LINK_MINUTES), is_link=True)


def use_link(session: Session, secret: str) -> str | None:
    """The secret of the session that the link becomes; None where it is none, used or too old.

    One UPDATE decides: of two who follow the link at once, one comes in.
    """
    fresh = secrets.token_urlsafe(32)
    used = session.execute(
        update(ConsoleSession)
        .where(
            ConsoleSession.secret_hash == _hash(secret),
            ConsoleSession.is_link,
            ConsoleSession.expires_at > func.clock_timestamp(),
        )
        .values(
            secret_hash=_hash(fresh),
            is_link=False,
            confirmed_at=func.clock_timestamp(),
            expires_at=func.clock_timestamp() + dt.timedelta(hours=SESSION_HOURS),
        )
        .returning(ConsoleSession.person_id, ConsoleSession.roles)
    ).one_or_none()
    if used is None:
        return None
    _note_sign_in(session, used.person_id, used.roles)
    return fresh


def begin(session: Session, identity: Identity) -> str:
    """The secret of a new session, of somebody whom the provider has just confirmed."""
    secret = _add(session, identity, dt.timedelta(hours=SESSION_HOURS), is_link=False)
    _note_sign_in(session, identity.person_id, sorted(identity.roles))
    return secret


def find(session: Session, secret: str) -> Known | None:
    """The session of this secret while it is valid."""
    return _known(session, _of_secret(secret))


def find_to_end(session: Session, secret: str) -> Known | None:
    """As `find`, and whoever ends it at the same time finds it ended."""
    return _known(session, _of_secret(secret).with_for_update(of=ConsoleSession))


def _of_secret(secret: str) -> Select[ConsoleSession, ConsolePerson]:
    return (
        select(ConsoleSession, ConsolePerson)
        .join(ConsolePerson, ConsolePerson.person_id == ConsoleSession.person_id)
        .where(
            ConsoleSession.secret_hash == _hash(secret),
            ~ConsoleSession.is_link,
            ConsoleSession.ended_at.is_(None),
            ConsoleSession.expires_at > func.clock_timestamp(),
        )
    )


def _known(session: Session, statement: Select[ConsoleSession, ConsolePerson]) -> Known | None:
    found = session.execute(statement).one_or_none()
    if found is None:
        return None
    row, person = found
    roles = frozenset(map(Role, row.roles))
    return Known(row.person_id, person.name, roles, row.confirmed_at, person.issuer)


def confirm(session: Session, secret: str, identity: Identity) -> bool:
    """Note that the provider says again who this session's person is, and as what they work.

    False where the session has ended, or is another person's.
    """
    confirmed = session.execute(
        update(ConsoleSession)
        .where(
            ConsoleSession.secret_hash == _hash(secret),
            ConsoleSession.person_id == identity.person_id,
            ~ConsoleSession.is_link,
            ConsoleSession.ended_at.is_(None),
            ConsoleSession.expires_at > func.clock_timestamp(),
        )
        .values(confirmed_at=func.clock_timestamp(), roles=sorted(identity.roles))
        .returning(ConsoleSession.person_id)
    ).one_or_none()
    if confirmed is None:
        return False
    _note_roles(session, identity.person_id, sorted(identity.roles))
    return True


def end_all(session: Session, person_id: uuid.UUID) -> None:
    """Note that the provider names no role of this person any more: nobody is in as them."""
    session.execute(
        update(ConsoleSession)
        .where(ConsoleSession.person_id == person_id, ConsoleSession.ended_at.is_(None))
        .values(ended_at=func.clock_timestamp())
    )
    _note_roles(session, person_id, [])


def end(session: Session, secret: str) -> None:
    """Sign out: the cookie, whoever has a copy, opens nothing any more."""
    session.execute(
        update(ConsoleSession)
        .where(ConsoleSession.secret_hash == _hash(secret), ConsoleSession.ended_at.is_(None))
        .values(ended_at=func.clock_timestamp())
    )


def _add(session: Session, identity: Identity, lasts: dt.timedelta, *, is_link: bool) -> str:
    secret = secrets.token_urlsafe(32)
    facts = {"issuer": identity.issuer, "subject": identity.subject, "name": identity.name}
    session.execute(
        insert(ConsolePerson)
        .values(person_id=identity.person_id, **facts)
        .on_conflict_do_update(index_elements=[ConsolePerson.person_id], set_=facts)
    )
    session.execute(
        insert(ConsoleSession).values(
            secret_hash=_hash(secret),
            person_id=identity.person_id,
            roles=sorted(identity.roles),
            is_link=is_link,
            confirmed_at=func.clock_timestamp(),
            expires_at=func.clock_timestamp() + lasts,
        )
    )
    return secret


def _note_roles(session: Session, person_id: uuid.UUID, roles: list[str]) -> None:
    """What they asked for is done only while they may ask for it (`approvals.askers`)."""
    session.execute(
        update(ConsolePerson).where(ConsolePerson.person_id == person_id).values(roles=roles)
    )


def _note_sign_in(session: Session, person_id: uuid.UUID, roles: list[str]) -> None:
    """Note the time and the roles, and forget sessions that ended long ago."""
    session.execute(
        update(ConsolePerson)
        .where(ConsolePerson.person_id == person_id)
        .values(signed_in_at=func.clock_timestamp(), roles=roles)
    )
    long_ago = func.clock_timestamp() - dt.timedelta(days=KEPT_DAYS)
    session.execute(delete(ConsoleSession).where(ConsoleSession.expires_at < long_ago))


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
