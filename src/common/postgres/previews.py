"""Dry runs: an operation done in a savepoint that is undone, to show what it would do."""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.orm import Session

T = TypeVar("T")


def preview(session: Session, work: Callable[[Session], T]) -> T:
    """What `work` returns, plain values, with nothing of it done; its errors are the same."""
    savepoint = session.begin_nested()
    try:
        return work(session)
    finally:
        if savepoint.is_active:
            savepoint.rollback()
        session.expire_all()
