"""Who is signed in to the console: people, and a row for each of their sessions."""

import uuid

from sqlalchemy import CheckConstraint, LargeBinary, String, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import PRIVATE, Base, CreatedAt, Instant, text_array

ROLES = ("viewer", "support", "finance", "admin")
SESSION_HOURS = 8
"""How long a session lasts at most."""


class ConsolePerson(Base):
    """Somebody who works in the console; their actor is `user:` and `person_id`."""

    __tablename__ = "console_people"

    person_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    """Made of the issuer's name and its subject: it stays while names and addresses change."""
    issuer: Mapped[str] = mapped_column(String)
    """The identity provider, or `local` for who came by a link."""
    subject: Mapped[str] = mapped_column(String)
    """The provider's id of the person."""
    name: Mapped[str] = mapped_column(String)
    """What colleagues call them: the address at the last sign-in."""
    created_at: Mapped[CreatedAt]
    signed_in_at: Mapped[Instant | None]
    """The last sign-in."""
    roles: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    """As what they work, as the provider said last: empty once it names none. NULL where it has
    said nothing since releases note it."""


class ConsoleSession(Base):
    """A link that signs in, then the session it became; or a session from the provider."""

    __tablename__ = "console_sessions"

    secret_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True, info=PRIVATE)
    """SHA-256 of the 256 random bits that the link or the cookie has."""
    person_id: Mapped[uuid.UUID] = mapped_column(index=True)
    roles: Mapped[list[str]] = mapped_column(ARRAY(Text))
    is_link: Mapped[bool]
    """Whether it is a link still: used once, it is replaced by a session."""
    created_at: Mapped[CreatedAt]
    confirmed_at: Mapped[Instant]
    """When the provider last said that the person has these roles."""
    expires_at: Mapped[Instant]
    ended_at: Mapped[Instant | None]
    """When the person signed out, or lost every role."""

    __table_args__ = (
        CheckConstraint("octet_length(secret_hash) = 32", "secret_hash_is_sha256"),
        CheckConstraint(
            f"cardinality(roles) > 0 AND roles <@ {text_array(ROLES)}", "roles_are_known"
        ),
        CheckConstraint("expires_at > created_at", "expires_later"),
    )
