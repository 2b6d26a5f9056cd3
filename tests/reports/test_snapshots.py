"""What is due and not booked is in every report, and takes little memory however much it is."""

import datetime as dt
import tracemalloc

from sqlalchemy.orm import Session

from src.common.credits.operations import execute
from src.common.reports.snapshots import take_snapshot
from tests.credits import books

HOLDS_EACH = 40
BYTES_A_LINE_MAX = 450
"""A million holds that no worker has booked would be some hundred megabytes, and no gigabytes."""


def test_what_is_due_of_holds_takes_little_memory(db: Session) -> None:
    """A line's cells are kept, and no object for each entry (they take three times as much)."""
    users = [books.make_user(db).user_id for _ in range(8)]
    execute(db, [books.grant(user_id, 100) for user_id in users])
    for _ in range(HOLDS_EACH):
        execute(db, [books.open_hold(user_id, 1, 60) for user_id in users])
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    take_snapshot(db, now=later)  # whatever is made once is there
    tracemalloc.start()
    try:
        snapshot = take_snapshot(db, now=later)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    [due] = snapshot.parts
    lines = len(due.lines["due_seqs"])
    assert lines == HOLDS_EACH * len(users)
    assert set(due.lines["due_kinds"]) == {"hold_expiry"}
    assert kept / lines < BYTES_A_LINE_MAX
