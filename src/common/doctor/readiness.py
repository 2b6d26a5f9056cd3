"""Whether the database takes writes, and which revision it is at: for `/readyz`."""

from sqlalchemy import false, update
from sqlalchemy.orm import Session

from src.common.models.stripe_event import StripeEvent
from src.common.postgres.migrations import current_revision


def find_revision_of_writable(session: Session) -> str | None:
    """The revision of a database that takes writes; None before the first migration.

    Raises:
        DatabaseBusy: it only reads, as a standby does, is closed, or is out of reach.
    """
    found = current_revision(session.connection())
    if found is not None:
        # A change of no row, in a table about everybody. It is refused where the server only reads,
        # or the database is closed; connections are dropped with that answer.
        session.execute(update(StripeEvent).where(false()).values(status=StripeEvent.status))
    return found
