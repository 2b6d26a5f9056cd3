"""Writes the opening entries of all users from before the ledger, in batches, resumable.

It owns short database transactions, one a batch. Killed at any point, or run by several at once, it
opens each user once: who is opened already is not looked at again. A batch that fails is gone
through user by user; whoever cannot be opened is named, and keeps nobody else from it.
"""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import structlog
from sqlalchemy import ColumnElement, and_, exists, func, or_, select, text
from sqlalchemy.orm import Session

from src.common.credits import unbookable
from src.common.credits.domain.book import Book
from src.common.credits.domain.own_commands import OPENING_KEY
from src.common.credits.opening.opening import write_openings
from src.common.credits.persistence.storage import lock_users
from src.common.exceptions import DatabaseBusy, ExceptionWithErrorType
from src.common.models.credit_entry import CreditEntry, EntryKind
from src.common.models.credit_hold import CreditDebt
from src.common.models.transaction import Transaction
from src.common.models.user import CK_USERS_CREDITS_BALANCE, User
from src.common.postgres.errors import concerns_other_rows
from src.common.postgres.kept_errors import LEDGER_UNBALANCED, keep
from src.common.postgres.session_makers import BeginsSessions
from src.common.postgres.silent_servers import lift_time_limits

logger = structlog.get_logger(__name__)

BATCH_SIZE = 500
FIRST_MAX = 100

_PARITY = text("""
SELECT u.user_id, coalesce(j.booked, 0) - coalesce(d.opening_debt, 0) AS expected,
       u.credits_balance - coalesce(d.outstanding, 0) AS found,
       coalesce(j.has_money_back, false)
           OR (u.credits_version = 0 AND u.credits_balance <> 0) AS says_nothing
FROM (SELECT user_id, credits_balance, credits_version FROM users WHERE user_id > :after
      ORDER BY user_id LIMIT :size) AS u
LEFT JOIN LATERAL (
    SELECT sum(amount) FILTER (WHERE kind <> 'debt_repayment') AS booked,
           bool_or(kind IN ('clawback', 'reinstatement')) AS has_money_back
    FROM credit_entries WHERE user_id = u.user_id) AS j ON true
LEFT JOIN LATERAL (
    SELECT sum(opening_debt) AS opening_debt, sum(outstanding) AS outstanding
    FROM credit_debts WHERE user_id = u.user_id) AS d ON true
ORDER BY u.user_id
""")


@dataclass(frozen=True, kw_only=True)
class NotOpened:
    """Whom the import could not open, and why."""

    user_id: uuid.UUID
    error_type: str
    message: str


@dataclass(kw_only=True)
class ImportReport:
    """What was opened so far, and how the books compare with the column of before."""

    opened: int = 0
    """Users whose opening entry was written, or would be in a dry run."""
    credits: int = 0
    """What their positive balances add up to."""
    debt: int = 0
    """What their negative balances add up to, positive."""
    compared: int = 0
    """Users whose `credits_balance - debt` was compared with the old column and all since."""
    not_compared: int = 0
    """Users with clawbacks since, whose debts do not follow from the journal alone; and whoever has
    a balance and still no entry."""
    differences: int = 0
    first_difference: uuid.UUID | None = None
    expected: int | None = None
    found: int | None = None
    not_opened: int = 0
    """Users whose opening entry could not be written; the next run tries them again."""
    first_not_opened: list[NotOpened] = field(default_factory=list[NotOpened])
    """At most `FIRST_MAX` of them."""


def import_openings(
    sessions: BeginsSessions,
    *,
    batch_size: int = BATCH_SIZE,
    dry_run: bool = False,
    report: ImportReport | None = None,
) -> Iterator[ImportReport]:
    """Write the opening entry of all who lack one; yields the report after each batch.

    What is done is added to `report`, that of other groups of users, where there is one.

    Whoever cannot be opened is noted as unbookable (`unbookable.py`), but not for a row that
    somebody has locked.

    Raises:
        DatabaseBusy: the database cannot serve this now; run it again.
    """
    report = report or ImportReport()
    after = uuid.UUID(int=0)
    while batch := _next_batch(sessions, after, batch_size):
        try:
            _open(sessions, batch, report, dry_run=dry_run)
        except Exception as error:
            if concerns_other_rows(error):
                raise
            logger.warning("A batch cannot be opened", error_type=keep(error).error_type)
            for user_id in batch:
                _open_alone(sessions, user_id, report, dry_run=dry_run)
        after = batch[-1]
        yield report


def compare(
    sessions: BeginsSessions, report: ImportReport, *, batch_size: int = BATCH_SIZE
) -> Iterator[ImportReport]:
    """Compare every user's `credits_balance - debt` with the old column and all booked since.

    The opening entry and its debt remember the old column.
    """
    after = uuid.UUID(int=0)
    while True:
        with sessions.begin() as session:
            lift_time_limits(session)
            rows = session.execute(_PARITY, {"after": after, "size": batch_size}).all()
        if not rows:
            return
        for user_id, expected, found, says_nothing in rows:
            if says_nothing:
                report.not_compared += 1
                continue
            report.compared += 1
            if expected != found:
                report.differences += 1
                if report.first_difference is None:
                    report.first_difference = user_id
                    report.expected, report.found = expected, found
        after = rows[-1].user_id
        yield report


def forbid_negative_balances(sessions: BeginsSessions) -> None:
    """Add the CHECK where adoption left it out, for new rows first, and validate it.

    Before, it would have refused every change of a row with a negative balance.
    """
    with sessions.begin() as session:
        if _is_validated(session):
            return
        # One import at a time, however long the others take; nobody else waits for this lock.
        lift_time_limits(session)
        session.execute(text("SET LOCAL lock_timeout = 0"))
        session.execute(text("LOCK TABLE users IN SHARE UPDATE EXCLUSIVE MODE"))
        if _is_validated(session) is None:
            session.execute(text("SET LOCAL lock_timeout = '3s'"))
            session.execute(
                text(
                    f"ALTER TABLE users ADD CONSTRAINT {CK_USERS_CREDITS_BALANCE}"
                    " CHECK (credits_balance >= 0) NOT VALID"
                )
            )
    with sessions.begin() as session:
        lift_time_limits(session)
        session.execute(text("SET LOCAL lock_timeout = 0"))
        session.execute(text(f"ALTER TABLE users VALIDATE CONSTRAINT {CK_USERS_CREDITS_BALANCE}"))


def _is_validated(session: Session) -> bool | None:
    """Whether the CHECK has looked at every row; None where there is none."""
    found: bool | None = session.scalar(
        text("SELECT convalidated FROM pg_constraint WHERE conname = :name"),
        {"name": CK_USERS_CREDITS_BALANCE},
    )
    return found


def _lacks_opening() -> ColumnElement[bool]:
    """Who has a balance and no entry, or purchases from before the ledger and no opening entry."""
    opening = exists().where(
        CreditEntry.user_id == User.user_id, CreditEntry.idempotency_key == OPENING_KEY
    )
    historic = exists().where(Transaction.user_id == User.user_id, Transaction.predates_ledger)
    return or_(and_(User.credits_version == 0, User.credits_balance != 0), and_(historic, ~opening))


def _next_batch(sessions: BeginsSessions, after: uuid.UUID, batch_size: int) -> Sequence[uuid.UUID]:
    with sessions.begin() as session:
        return session.scalars(
            select(User.user_id)
            .where(_lacks_opening(), User.user_id > after)
            .order_by(User.user_id)
            .limit(batch_size)
        ).all()


def _open_alone(
    sessions: BeginsSessions, user_id: uuid.UUID, report: ImportReport, *, dry_run: bool
) -> None:
    """Open one user, or say in the report that it failed, and note what is wrong with the user."""
    try:
        _open(sessions, [user_id], report, dry_run=dry_run)
    except Exception as error:
        if concerns_other_rows(error):
            raise
        kept = keep(error)
        is_contention = isinstance(error, DatabaseBusy)
    else:
        return
    logger.error(
        "A user cannot be opened",
        user_id=str(user_id),
        error_type=kept.error_type,
        reason=kept.message,
    )
    if not is_contention and not dry_run:
        with sessions.begin() as session:
            unbookable.note(session, user_id, kept)
    report.not_opened += 1
    if len(report.first_not_opened) < FIRST_MAX:
        report.first_not_opened.append(
            NotOpened(user_id=user_id, error_type=kept.error_type, message=kept.message)
        )


def _open(
    sessions: BeginsSessions,
    user_ids: Sequence[uuid.UUID],
    report: ImportReport,
    *,
    dry_run: bool,
) -> None:
    """Open these in one database transaction, and count them once it is committed."""
    with sessions.begin() as session:
        before = _open_batch(session, user_ids, dry_run=dry_run)
    report.opened += len(before)
    report.credits += sum(net for net in before.values() if net > 0)
    report.debt -= sum(net for net in before.values() if net < 0)


def _open_batch(
    session: Session, batch: Sequence[uuid.UUID], *, dry_run: bool
) -> dict[uuid.UUID, int]:
    """Write the opening entries that lack; balance less debt of these users, as it was before."""
    if not dry_run:
        lock_users(session, batch)
    # Once locked: somebody else, an operation or another import, may have opened some meanwhile.
    lacking = session.scalars(
        select(User.user_id).where(User.user_id.in_(batch), _lacks_opening())
    ).all()
    before = _net(session, lacking)
    if not dry_run:
        books = write_openings(session, lacking)
        after = _net(session, lacking)
        for book in books:
            if after[book.user_id] != before[book.user_id] + _due(book):
                raise ExceptionWithErrorType(
                    f"The opening entry would change what user {book.user_id} has",
                    LEDGER_UNBALANCED,
                )
        unbookable.forget(session, lacking)
    return before


def _due(book: Book) -> int:
    """What fell due before the opening entry changes balance less debt by; repayments do not."""
    unchanging = {EntryKind.OPENING, EntryKind.DEBT_REPAYMENT}
    return sum(entry.amount for entry in book.entries if entry.kind not in unchanging)


def _net(session: Session, user_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, int]:
    """Balance less debt."""
    debt = (
        select(func.coalesce(func.sum(CreditDebt.outstanding), 0))
        .where(CreditDebt.user_id == User.user_id)
        .scalar_subquery()
    )
    rows = session.execute(
        select(User.user_id, User.credits_balance - debt).where(User.user_id.in_(user_ids))
    )
    return {user_id: int(net) for user_id, net in rows}
