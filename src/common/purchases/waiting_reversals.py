"""What the ledger calls when it has booked purchases that application code wrote.

Most processes never do, so what it takes is loaded when the first is there.
"""

import datetime as dt
import uuid
from collections.abc import Sequence

from sqlalchemy.orm import Session


def adopt_reversals_of(
    session: Session, transaction_ids: Sequence[uuid.UUID], *, now: dt.datetime | None = None
) -> None:
    """As of `money_back.py`: take up what waited for these purchases."""
    from src.common.purchases import money_back

    money_back.adopt_reversals_of(session, transaction_ids, now=now)
