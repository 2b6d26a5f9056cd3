"""What makes the sessions of those who read in many database transactions, one after the other."""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy.orm import Session

from src.common.postgres.routes import routed_to_schema


class BeginsSessions(Protocol):
    """A session maker, as `SessionLocal`, or one whose sessions see one group of users."""

    def begin(self) -> AbstractContextManager[Session]:
        """A session in a database transaction, committed at the end of the block."""
        ...


@dataclass(frozen=True)
class SessionsOfGroup:
    """Makes sessions that see one group of users.

    Pickle can name it where it can name the maker: another process has no route of its own.
    """

    sessions: BeginsSessions
    group: str

    @contextmanager
    def begin(self) -> Generator[Session]:
        """As the maker's, routed to the group."""
        with routed_to_schema(self.group), self.sessions.begin() as session:
            yield session
