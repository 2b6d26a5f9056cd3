"""Whether the database takes writes, and which revision it is at: for `/readyz`."""

from sqlalchemy import false, select
from sqlalchemy.orm import Session

from src.common.models.user import User
from src.common.postgres.migrations import current_revision


def find_revision_of_writable(session: Session) -> str | None:
    """The revision of a database that takes writes; None before the first migration.

    Raises:
        DatabaseBusy: it only reads, as a standby does, or is out of reach.
    """
    found = current_revision(session.connection())
    if found is not None:
        # A lock of no row, refused where the server only reads; its connections are dropped with
        # that answer.
        session.execute(select(User.user_id).where(false()).with_for_update(key_share=True))
    return found
