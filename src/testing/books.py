"""Asserts that users' books balance, by all that `flashslides verify` looks at."""

import uuid

from sqlalchemy.orm import Session

from src.common.credits.operations import book_pending
from src.common.credits.verification.recompute import EVERYBODY, find_orphans, recompute
from src.common.credits.verification.report import Difference, Report
from src.common.models.user import User

_SHOWN_MAX = 20


def assert_books_balance(session: Session, user: User | uuid.UUID | None = None) -> None:
    """Assert that every row of a user's books is what the ledger's rules would have written.

    What the session has changed and not written yet is written first, as its commit would do. What
    others have not committed is not seen.

    Args:
        session: In a database transaction of the caller's; it is not committed.
        user: The user, or their `user_id`. None is everybody.

    Raises:
        AssertionError: The books differ; the message names each row, what it should say and what it
            says. Or there is no such user.
        ExceptionWithErrorType: What the commit of the session's changes would be refused with.
    """
    session.flush()
    book_pending(session)
    report = Report()
    if user is None:
        recompute(session, report, EVERYBODY)
        find_orphans(session, report, EVERYBODY)
    else:
        user_id = user.user_id if isinstance(user, User) else user
        recompute(session, report, [user_id])
        if not report.users:
            raise AssertionError(f"There is no user {user_id}")
    if report.differences:
        raise AssertionError(_told(report))


def _told(report: Report) -> str:
    lines = [f"The books of {report.differing_users} of {report.users} users do not balance:"]
    lines += map(_line, report.first[:_SHOWN_MAX])
    if report.differences > _SHOWN_MAX:
        lines.append(f"… and {report.differences - _SHOWN_MAX} differences more")
    return "\n".join(lines)


def _line(each: Difference) -> str:
    place = f"user {each.user_id}" + ("" if each.seq is None else f", entry {each.seq}")
    return f"- {place}: {each.kind} should be {each.expected}, and is {each.found}"
