"""Reading the outbox: a page of notices, one of them, and those that are committed from now on."""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from sqlalchemy import BigInteger, ColumnElement, String, Text, cast, func, literal_column, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from src.common.exceptions import NotFound
from src.common.models.credit_notice import CreditNotice, NoticeStatus, NoticeType
from src.common.notices.ids import parse_notice_id
from src.common.postgres.pagination import Page, decode_number_cursor

NUMBER_MAX = 2**63 - 1
SEEN_AT_FIRST = 1_000
"""Of the notices that are there when `Tail` begins, how many are known by their numbers. Only what
was drawn before these, and is committed after that, is not shown."""
ROWS_MAX = 1_000
"""Of one look."""


def _as_written(status: NoticeStatus) -> ColumnElement[str]:
    """As the partial indexes have it: of a parameter the planner would not know."""
    return literal_column(f"'{NoticeStatus(status)}'", String)


@dataclass(frozen=True, kw_only=True)
class NoticeFilter:
    """Which notices; what is None does not matter."""

    user_id: uuid.UUID | None = None
    endpoint_id: uuid.UUID | None = None
    type: NoticeType | None = None
    status: NoticeStatus | None = None
    since: dt.datetime | None = None
    """Of things that happened from this instant on."""
    until: dt.datetime | None = None
    """Of things that happened before this instant."""

    def conditions(self) -> list[ColumnElement[bool]]:
        """The same as parts of a statement."""
        wanted: list[ColumnElement[bool] | None] = [
            None if self.user_id is None else CreditNotice.user_id == self.user_id,
            None if self.endpoint_id is None else CreditNotice.endpoint_id == self.endpoint_id,
            None if self.type is None else CreditNotice.type == self.type,
            None if self.status is None else CreditNotice.status == _as_written(self.status),
            None if self.since is None else CreditNotice.created_at >= self.since,
            None if self.until is None else CreditNotice.created_at < self.until,
        ]
        return [each for each in wanted if each is not None]


def list_notices(
    session: Session, wanted: NoticeFilter, *, limit: int, cursor: str | None = None
) -> Page[CreditNotice]:
    """A page of notices, those written last first.

    Raises:
        Invalid: VALIDATION_ERROR, naming `cursor`.
    """
    before = decode_number_cursor(cursor, NUMBER_MAX)
    rows = session.scalars(
        select(CreditNotice)
        .where(CreditNotice.number < before, *wanted.conditions())
        .order_by(CreditNotice.number.desc())
        .limit(limit + 1)
    ).all()
    if len(rows) <= limit:
        return Page(rows, None)
    return Page(rows[:limit], str(rows[limit - 1].number))


def get_notice(session: Session, notice_id: str) -> CreditNotice:
    """The notice with this id.

    Raises:
        NotFound: NOTICE_NOT_FOUND, there is none, or none any more.
    """
    key = parse_notice_id(notice_id)
    found = None if key is None else session.get(CreditNotice, key)
    if found is None:
        raise NotFound("There is no such notice, or none any more", "NOTICE_NOT_FOUND")
    return found


@dataclass
class Tail:
    """What is committed from now on, each notice once, in whatever order that is.

    Of different users a lower number may be committed later than a higher one. So a number is
    passed for good only once every database transaction has ended that was open when it was seen:
    whoever drew a lower one was among them.
    """

    wanted: NoticeFilter
    _passed: int | None = None
    """Nothing up to this number is still to come; None before the first look."""
    _seen: set[int] = field(default_factory=set[int])
    """Numbers beyond it that were there already."""
    _pending: tuple[int, int] | None = None
    """The highest number of an earlier look, and the transaction id at which all that were open
    then have ended."""

    @classmethod
    def from_the_first(cls, wanted: NoticeFilter) -> Self:
        """What was committed before is to come, too: the first look finds it."""
        return cls(wanted, _passed=0)

    def look(self, session: Session) -> Sequence[CreditNotice]:
        """What came since the last look; the first look only notes what is there."""
        snapshot = func.pg_current_snapshot()
        newest, oldest_open, next_id = session.execute(
            select(
                select(func.coalesce(func.max(CreditNotice.number), 0)).scalar_subquery(),
                _number_of(func.pg_snapshot_xmin(snapshot)),
                _number_of(func.pg_snapshot_xmax(snapshot)),
            )
        ).one()
        if self._passed is None:
            self._begin(session)
            return []
        rows = session.scalars(
            select(CreditNotice)
            .where(
                CreditNotice.number > self._passed,
                CreditNotice.number != func.all(cast(list(self._seen), ARRAY(BigInteger))),
                *self.wanted.conditions(),
            )
            .order_by(CreditNotice.number)
            .limit(ROWS_MAX)
        ).all()
        self._seen.update(row.number for row in rows)
        if len(rows) < ROWS_MAX:
            self._pass(newest, oldest_open, next_id)
        return rows

    def _begin(self, session: Session) -> None:
        numbers = session.scalars(
            select(CreditNotice.number)
            .where(*self.wanted.conditions())
            .order_by(CreditNotice.number.desc())
            .limit(SEEN_AT_FIRST)
        ).all()
        self._seen.update(numbers)
        self._passed = numbers[-1] if len(numbers) == SEEN_AT_FIRST else 0

    def _pass(self, newest: int, oldest_open: int, next_id: int) -> None:
        if self._pending is not None:
            highest, ended_at = self._pending
            if oldest_open < ended_at:
                return
            self._passed = highest
            self._seen = {number for number in self._seen if number > highest}
        self._pending = newest, next_id


def _number_of(transaction_id: ColumnElement[object]) -> ColumnElement[int]:
    return cast(cast(transaction_id, Text), BigInteger)
