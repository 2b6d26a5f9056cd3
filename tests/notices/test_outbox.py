"""What becomes of the outbox: lists, replays, `tail`, and what is dropped."""

import datetime as dt
import uuid

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from src.common.credits.domain.commands import Grant, Spend
from src.common.database import SessionLocal
from src.common.exceptions import Invalid, NotFound
from src.common.models.credit_notice import CreditNotice, NoticeStatus, NoticeType
from src.common.models.notice_endpoint import NoticeEndpoint
from src.common.notices import queries, replay, retention
from src.common.notices.ids import notice_id, parse_notice_id
from src.common.notices.queries import NoticeFilter, Tail
from src.local_postgres import ConnectionParameters
from tests.credits.ledger import at, do, someone
from tests.notices.outbox import EVERYTHING, add_endpoint, notices_of

EVERY_ONE = NoticeFilter()


def finish(db: Session, *numbers: int, status: str = "delivered", days_ago: float = 0) -> None:
    """Have these, or all, be finished so many days ago."""
    db.execute(
        update(CreditNotice)
        .where(CreditNotice.number.in_(numbers) if numbers else CreditNotice.number > 0)
        .values(
            status=status,
            attempts=3,
            next_attempt_at=None,
            finished_at=func.now() - dt.timedelta(days=days_ago),
        )
        .execution_options(synchronize_session=False)
    )


def granted(db: Session, times: int) -> uuid.UUID:
    """A user with so many grants, told of to one endpoint."""
    user_id = someone(db)
    for second in range(times):
        do(db, Grant, user_id, second, amount=1)
    return user_id


def pending(db: Session) -> set[int]:
    """The numbers of those that wait."""
    waits = CreditNotice.status == "pending"
    return set(db.scalars(select(CreditNotice.number).where(waits)))


def test_an_id_says_which_notice_it_is() -> None:
    """There and back, and nothing else is one."""
    user_id = uuid.UUID("12345678-90ab-cdef-1234-567890abcdef")
    assert notice_id(user_id, 7) == "ntc_1234567890abcdef1234567890abcdef_7"
    assert parse_notice_id(notice_id(user_id, 2**63 - 1)) == (user_id, 2**63 - 1)
    for wrong in ("", "ntc_7", f"ntc_{user_id.hex}_0", f"ntc_{user_id.hex}_{2**63}", f"{user_id}"):
        assert parse_notice_id(wrong) is None


def test_a_page_is_newest_first_and_goes_on(db: Session) -> None:
    """Each once, to the end."""
    add_endpoint(db, NoticeType.GRANTED)
    granted(db, 5)
    seen: list[int | None] = []
    cursor = None
    while True:
        page = queries.list_notices(db, EVERY_ONE, limit=2, cursor=cursor)
        seen += [each.seq for each in page.items]
        if (cursor := page.next_cursor) is None:
            break
    assert seen == [5, 4, 3, 2, 1]
    with pytest.raises(Invalid) as refused:
        queries.list_notices(db, EVERY_ONE, limit=2, cursor="9" * 20)
    assert refused.value.details == {"field": "cursor"}


def test_each_filter_filters(db: Session) -> None:
    """By user, endpoint, type, status and time."""
    first, second = (add_endpoint(db, *EVERYTHING) for _ in range(2))
    ada, bob = granted(db, 2), granted(db, 1)
    do(db, Spend, ada, 60, amount=1)
    finish(db, notices_of(db)[0].number)

    def found(**wanted: object) -> int:
        page = queries.list_notices(db, NoticeFilter(**wanted), limit=99)  # type: ignore[arg-type]
        return len(page.items)

    assert found() == 8
    assert (found(user_id=ada), found(user_id=bob)) == (6, 2)
    assert (found(endpoint_id=first), found(endpoint_id=second)) == (4, 4)
    assert (found(type=NoticeType.SPENT), found(type=NoticeType.LOW)) == (2, 0)
    assert (found(status=NoticeStatus.DELIVERED), found(status=NoticeStatus.PENDING)) == (1, 7)
    assert (found(since=at(1)), found(until=at(1)), found(since=at(1), until=at(60))) == (4, 4, 2)


def test_a_replay_of_one_sends_it_anew(db: Session) -> None:
    """With the same id; also one that waits, at once."""
    add_endpoint(db, NoticeType.GRANTED)
    user_id = granted(db, 2)
    delivered, waiting = notices_of(db)
    finish(db, delivered.number)
    later = func.now() + dt.timedelta(hours=1)
    db.execute(
        update(CreditNotice)
        .where(CreditNotice.number == waiting.number)
        .values(next_attempt_at=later, attempts=2)
    )
    for each in (delivered, waiting):
        replay.replay_notice(db, notice_id(user_id, each.number))
    states = [(each.status, each.attempts, each.finished_at) for each in notices_of(db)]
    assert states == [("pending", 0, None)] * 2
    due = CreditNotice.next_attempt_at <= func.clock_timestamp()
    assert db.scalar(select(func.count()).where(due)) == 2


def test_a_replay_of_none_is_refused(db: Session) -> None:
    """What is no notice, and what nobody is there to be told."""
    with pytest.raises(NotFound) as refused:
        replay.replay_notice(db, "ntc_1")
    assert refused.value.error_type == "NOTICE_NOT_FOUND"
    endpoint_id = add_endpoint(db, NoticeType.GRANTED)
    user_id = granted(db, 1)
    db.delete(db.get_one(NoticeEndpoint, endpoint_id))
    db.flush()
    with pytest.raises(NotFound) as refused:
        replay.replay_notice(db, notice_id(user_id, notices_of(db)[0].number))
    assert refused.value.error_type == "NOTICE_ENDPOINT_NOT_FOUND"


def test_a_replay_of_many_goes_step_by_step(db: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each finished one once, also where a step is smaller than what there is."""
    monkeypatch.setattr(replay, "STEP_ROWS", 2)
    add_endpoint(db, NoticeType.GRANTED)
    granted(db, 5)
    finish(db)
    finish(db, notices_of(db)[0].number, status="dead")
    steps, after = [], 0
    while True:
        step = replay.replay_matching(db, EVERY_ONE, after=after)
        steps.append(step.replayed)
        if step.next_number is None:
            break
        after = step.next_number
    assert steps == [2, 2, 1]
    assert len(pending(db)) == 5
    assert replay.replay_matching(db, EVERY_ONE).replayed == 0


def test_a_replay_takes_only_what_was_chosen(db: Session) -> None:
    """By time, say; what nobody can be told stays as it is."""
    gone = add_endpoint(db, NoticeType.GRANTED)
    granted(db, 3)
    finish(db)
    step = replay.replay_matching(db, NoticeFilter(since=at(1), until=at(2)))
    assert (step.replayed, len(pending(db))) == (1, 1)
    finish(db)
    db.delete(db.get_one(NoticeEndpoint, gone))
    db.flush()
    assert replay.replay_matching(db, EVERY_ONE).replayed == 0


def test_what_is_old_is_dropped_a_step_at_a_time(db: Session) -> None:
    """Delivered or given up longer ago; what waits stays."""
    add_endpoint(db, NoticeType.GRANTED)
    granted(db, 6)
    numbers = [each.number for each in notices_of(db)]
    finish(db, *numbers[:3], days_ago=31)
    finish(db, numbers[3], status="dead", days_ago=31)
    finish(db, numbers[4], days_ago=29)
    assert retention.drop_old(db, kept_days=30, limit=3) == 3
    assert retention.drop_old(db, kept_days=30, limit=3) == 1
    assert retention.drop_old(db, kept_days=30, limit=3) == 0
    assert [each.number for each in notices_of(db)] == numbers[4:]


@pytest.mark.parametrize(("days", "left"), [(29, 2), (31, 0)])
def test_what_waits_for_a_disabled_endpoint_is_dropped_in_time(
    db: Session, days: int, left: int
) -> None:
    """After as many days as everything; of the others nothing."""
    gone = add_endpoint(db, NoticeType.GRANTED)
    other = add_endpoint(db, NoticeType.GRANTED)
    granted(db, 2)
    off = {"disabled_at": func.now() - dt.timedelta(days=days), "disabled_reason": "it is gone"}
    db.execute(update(NoticeEndpoint).where(NoticeEndpoint.endpoint_id == gone).values(**off))
    assert retention.drop_old(db, kept_days=30) == 2 - left
    assert len(notices_of(db, endpoint_id=gone)) == left
    assert len(notices_of(db, endpoint_id=other)) == 2


def test_what_waits_for_a_deleted_endpoint_is_dropped_at_once(db: Session) -> None:
    """Whoever wrote it had not seen yet that the endpoint is gone."""
    endpoints = [add_endpoint(db, NoticeType.GRANTED) for _ in range(3)]
    granted(db, 2)
    for endpoint_id in endpoints[:2]:
        db.delete(db.get_one(NoticeEndpoint, endpoint_id))
    db.flush()
    assert retention.drop_old(db, kept_days=30, limit=3) == 3
    assert retention.drop_old(db, kept_days=30, limit=3) == 1
    assert {each.endpoint_id for each in notices_of(db)} == {endpoints[2]}


def test_tail_shows_what_comes_once(db: Session) -> None:
    """Nothing that was there before, everything since, in order, as far as it is wanted."""
    add_endpoint(db, *EVERYTHING)
    user_id = granted(db, 2)
    tail, of_others = Tail(EVERY_ONE), Tail(NoticeFilter(user_id=uuid.UUID(int=9)))
    assert tail.look(db) == of_others.look(db) == []
    do(db, Spend, user_id, 60, amount=1)
    do(db, Grant, user_id, 61, amount=5)
    assert [each.seq for each in tail.look(db)] == [3, 4]
    assert tail.look(db) == of_others.look(db) == []


def test_tail_misses_nothing_that_is_committed_late(
    fresh_database: ConnectionParameters,
) -> None:
    """A lower number that is committed after a higher one is shown, and none twice."""
    assert fresh_database
    with SessionLocal() as slow, SessionLocal() as quick, SessionLocal() as watching:
        add_endpoint(quick, NoticeType.GRANTED)
        ada, bob = someone(quick), someone(quick)
        quick.commit()
        tail, shown = Tail(EVERY_ONE), list[uuid.UUID]()

        def look() -> None:
            shown.extend(each.user_id for each in tail.look(watching))
            watching.rollback()

        look()
        do(slow, Grant, ada, amount=1)  # draws the lower number
        do(quick, Grant, bob, amount=1)
        quick.commit()
        for _ in range(3):
            look()
        assert shown == [bob]
        slow.commit()
        for _ in range(3):
            look()
        assert shown == [bob, ada]
        do(slow, Grant, ada, amount=1)
        slow.commit()
        look()
        assert shown == [bob, ada, ada]


def test_tail_shows_many_in_several_looks(db: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many came at once."""
    monkeypatch.setattr(queries, "ROWS_MAX", 2)
    monkeypatch.setattr(queries, "SEEN_AT_FIRST", 2)
    add_endpoint(db, NoticeType.GRANTED)
    granted(db, 3)
    tail = Tail(EVERY_ONE)
    tail.look(db)
    granted(db, 5)
    assert [len(tail.look(db)) for _ in range(4)] == [2, 2, 1, 0]
