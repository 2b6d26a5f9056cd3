"""Reading: exact at any instant, from one snapshot, and without writing anything."""

import datetime as dt
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from src.common.credits import queries
from src.common.credits.domain.commands import (
    Adjust,
    Capture,
    Grant,
    OpenHold,
    Release,
    Renew,
    Spend,
)
from src.common.credits.operations import execute
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.credit_entry import CreditEntry
from src.common.models.credit_hold import HoldStatus
from src.common.models.credit_lot import LotSource
from src.common.models.user import User
from tests.credits.books import owe
from tests.credits.ledger import ask, at, buy, do, someone

if TYPE_CHECKING:
    from src.common.credits.domain.views import Balance

FAR = 10_000


def booked(db: Session, user_id: uuid.UUID) -> tuple[int, int]:
    """The balance and version as the database has them."""
    statement = select(User.credits_balance, User.credits_version).where(User.user_id == user_id)
    balance, version = db.execute(statement).one()
    return balance, version


def error_type(refusal: pytest.ExceptionInfo[ExceptionWithErrorType]) -> str:
    """What programs look at."""
    return refusal.value.error_type


def test_a_user_without_entries_has_nothing(db: Session) -> None:
    """All figures are 0, and nothing expires."""
    user_id = someone(db)
    found = queries.balance(db, user_id, now=at(0))
    assert (found.balance, found.held, found.debt, found.version) == (0, 0, 0, 0)
    assert (found.lots, found.next_expiry) == ([], None)


def test_a_balance_counts_what_has_fallen_due_without_writing_it(db: Session) -> None:
    """A dead lot and an expired hold count from their instants; the books stay as they were."""
    user_id = someone(db)
    do(db, Grant, user_id, amount=30, expires_at=at(50))
    buy(db, user_id, amount=100)
    do(db, OpenHold, user_id, amount=60, expires_in_seconds=20)
    before = booked(db, user_id)
    figures = {
        second: (found.balance, found.held, [lot.seq for lot in found.lots], found.next_expiry)
        for second in (19, 20, 49, 50)
        for found in [queries.balance(db, user_id, now=at(second))]
    }
    assert figures == {
        19: (70, 60, [2], None),
        20: (130, 0, [1, 2], at(50)),
        49: (130, 0, [1, 2], at(50)),
        50: (100, 0, [2], None),
    }
    assert booked(db, user_id) == before == (70, 3)


def test_the_version_is_that_of_the_newest_booked_entry(db: Session) -> None:
    """Expiries that only count in memory do not raise it."""
    user_id = someone(db)
    do(db, Grant, user_id, amount=5, expires_at=at(50))
    assert queries.balance(db, user_id, now=at(60)).version == 1


def test_lots_come_in_burn_order(db: Session) -> None:
    """Priority first, then expiry with never last, then age."""
    user_id = someone(db)
    buy(db, user_id, amount=1)
    do(db, Grant, user_id, amount=2, priority=100, expires_at=at(90))
    buy(db, user_id, amount=3)
    do(db, Grant, user_id, amount=4, priority=0)
    lots = queries.balance(db, user_id, now=at(1)).lots
    assert [lot.remaining for lot in lots] == [4, 2, 1, 3]


def test_a_debt_is_part_of_the_balance(db: Session) -> None:
    """What is owed is shown beside a balance of 0."""
    user_id = someone(db)
    lot = do(db, Grant, user_id, amount=10).seq
    do(db, Spend, user_id, amount=10)
    owe(db, user_id, lot, 4)
    assert queries.balance(db, user_id, now=at(1)).debt == 4


def test_a_past_balance_is_what_reading_then_would_have_answered(db: Session) -> None:
    """Balance, held, lots, next expiry and version as of T equal those read at T, at every T.

    Whether what fell due by then has been booked since, or never.
    """
    user_id = someone(db)
    then: dict[int, Balance] = {}

    def note(*seconds: int) -> None:
        for second in seconds:
            then[second] = queries.balance(db, user_id, now=at(second))

    do(db, Grant, user_id, 0, amount=30, expires_at=at(50))
    buy(db, user_id, 1, amount=100)
    note(1)
    early = do(db, OpenHold, user_id, 2, amount=40, expires_in_seconds=18)
    partly = do(db, OpenHold, user_id, 3, amount=20, expires_in_seconds=FAR)
    note(3, 19, 20)
    do(db, Capture, user_id, 21, hold_seq=partly.seq, amount=5, final=False)
    note(21)
    do(db, Renew, user_id, 22, hold_seq=partly.seq, expires_in_seconds=50)
    do(db, Capture, user_id, 23, hold_seq=early.seq, amount=7, if_expired="retake")
    note(23, 49, 50)
    do(db, Adjust, user_id, 60, amount=-3, reason="counted twice")
    note(60, 71, 72, 80)
    for second, expected in then.items():
        found = queries.balance(db, user_id, as_of=at(second), now=at(100))
        assert found.debt is None
        for figure in ("balance", "held", "next_expiry", "version"):
            if figure == "version" and second in {20, 50}:
                continue  # booked since then, with the very instant
            assert getattr(found, figure) == getattr(expected, figure), (second, figure)
        assert [(lot.seq, lot.remaining) for lot in found.lots] == [
            (lot.seq, lot.remaining) for lot in expected.lots
        ], second


def test_nobody_had_anything_before_their_first_entry(db: Session) -> None:
    """As of an earlier instant, however early, the balance is 0."""
    user_id = someone(db)
    do(db, Grant, user_id, 10, amount=30)
    earliest = dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=14)))
    for instant in (at(9), earliest):
        found = queries.balance(db, user_id, as_of=instant, now=at(20))
        assert (found.balance, found.held, found.version, found.lots) == (0, 0, 0, [])
    assert queries.balance(db, user_id, as_of=at(10), now=at(20)).balance == 30


@pytest.mark.parametrize("as_of", [at(21), dt.datetime(2030, 1, 1)])  # noqa: DTZ001  the point
def test_only_a_past_instant_with_a_time_zone_can_be_asked_for(
    db: Session, as_of: dt.datetime
) -> None:
    """VALIDATION_ERROR, naming the field."""
    user_id = someone(db)
    with pytest.raises(ExceptionWithErrorType) as refusal:
        queries.balance(db, user_id, as_of=as_of, now=at(20))
    assert (error_type(refusal), refusal.value.details) == ("VALIDATION_ERROR", {"field": "as_of"})


def test_a_balance_from_before_the_ledger_reads_as_its_opening(db: Session) -> None:
    """The opening entry the first operation will write counts already, and is not written."""
    user_id = someone(db)
    db.execute(text("SET LOCAL session_replication_role = replica"))
    db.execute(text("UPDATE users SET credits_balance = 70"))
    db.execute(text("SET LOCAL session_replication_role = origin"))
    found = queries.balance(db, user_id, now=at(0))
    assert (found.balance, found.version) == (70, 0)
    assert [(lot.source, lot.remaining) for lot in found.lots] == [(LotSource.OPENING, 70)]
    explained = queries.explain(db, user_id, now=at(0))
    assert (explained.agrees, explained.total_by_kind) == (True, {"opening": 70})
    assert [entry.kind for entry in explained.due] == ["opening"]
    preview = queries.preview(db, ask(Spend, user_id, amount=30), now=at(0))
    assert (preview.result.balance, preview.result.amount) == (40, -30)
    assert booked(db, user_id) == (70, 0)
    db.execute(text("SET LOCAL session_replication_role = replica"))
    db.execute(text("UPDATE users SET credits_balance = 0"))


def test_nobody_unknown_is_read(db: Session) -> None:
    """Every reading of an unknown user is USER_NOT_FOUND."""
    unknown = uuid.uuid4()
    readings: list[Any] = [
        lambda: queries.balance(db, unknown),
        lambda: queries.balance(db, unknown, as_of=at(0)),
        lambda: queries.history(db, unknown, cursor=None, limit=1),
        lambda: queries.holds(db, unknown, cursor=None, limit=1),
        lambda: queries.get_hold(db, unknown, 1),
        lambda: queries.explain(db, unknown),
        lambda: queries.preview(db, ask(Spend, unknown, amount=1)),
    ]
    for reading in readings:
        with pytest.raises(ExceptionWithErrorType) as refusal:
            reading()
        assert error_type(refusal) == "USER_NOT_FOUND"


def test_holds_show_their_status_as_it_is_now(db: Session) -> None:
    """Newest first; one past its expiry is expired although nobody has booked that."""
    user_id = someone(db)
    do(db, Grant, user_id, amount=100)
    opened = [
        do(db, OpenHold, user_id, 1, amount=10, expires_in_seconds=life, reference=f"deck {life}")
        for life in (5, FAR, FAR, FAR)
    ]
    do(db, Capture, user_id, 2, hold_seq=opened[1].seq, amount=4)
    do(db, Release, user_id, 3, hold_seq=opened[2].seq)
    page = queries.holds(db, user_id, cursor=None, limit=3, now=at(6))
    rest = queries.holds(db, user_id, cursor=page.next_cursor, limit=3, now=at(6))
    shown = [
        (state.hold.seq, state.hold.status, state.hold.captured, state.entry.reference)
        for state in (*page.items, *rest.items)
    ]
    assert shown == [
        (opened[3].seq, HoldStatus.OPEN, 0, f"deck {FAR}"),
        (opened[2].seq, HoldStatus.RELEASED, 0, f"deck {FAR}"),
        (opened[1].seq, HoldStatus.CAPTURED, 4, f"deck {FAR}"),
        (opened[0].seq, HoldStatus.EXPIRED, 0, "deck 5"),
    ]
    assert rest.next_cursor is None
    for seq, status, captured, _ in shown:
        hold = queries.get_hold(db, user_id, seq, now=at(6)).hold
        assert (hold.status, hold.captured) == (status, captured)


def test_a_hold_is_its_own_users_only(db: Session) -> None:
    """HOLD_NOT_FOUND for another user's, and for an entry that opened none."""
    user_id, other = someone(db), someone(db)
    do(db, Grant, user_id, amount=100)
    hold = do(db, OpenHold, user_id, amount=10, expires_in_seconds=FAR)
    for owner, seq in ((other, hold.seq), (user_id, 1), (user_id, 99)):
        with pytest.raises(ExceptionWithErrorType) as refusal:
            queries.get_hold(db, owner, seq, now=at(1))
        assert error_type(refusal) == "HOLD_NOT_FOUND"


def test_a_preview_is_what_the_command_then_does(db: Session) -> None:
    """Result and lines are the very ones, what is due included, and asking wrote nothing."""
    user_id = someone(db)
    do(db, Grant, user_id, amount=30, expires_at=at(50))
    do(db, Grant, user_id, amount=20)
    buy(db, user_id, amount=100)
    hold = do(db, OpenHold, user_id, amount=25, expires_in_seconds=FAR)
    wishes = [
        ask(Spend, user_id, amount=40),
        ask(Capture, user_id, hold_seq=hold.seq, amount=5),
        ask(OpenHold, user_id, amount=10, expires_in_seconds=60),
        ask(Adjust, user_id, amount=-2, reason="counted twice"),
        ask(Grant, user_id, amount=9),
    ]
    for step, wish in enumerate(wishes):
        before = booked(db, user_id)
        seen = queries.preview(db, wish, now=at(60 + step))
        assert booked(db, user_id) == before
        [done] = execute(db, [wish], now=at(60 + step))
        assert seen.result == done
        written = queries.history(db, user_id, cursor=None, limit=len(seen.entries)).items
        assert [(each.seq, each.kind, each.postings) for each in seen.entries] == [
            (each.seq, each.kind, each.postings) for each in reversed(written)
        ]


def test_a_preview_is_refused_as_the_command_would_be(db: Session) -> None:
    """The same error types, for funds, holds and a deactivated account."""
    user_id = someone(db)
    idle = someone(db, is_active=False)
    do(db, Grant, user_id, amount=10)
    refusals: list[str] = []
    for wish in (
        ask(Spend, user_id, amount=11),
        ask(Release, user_id, hold_seq=1),
        ask(Spend, idle, amount=1),
    ):
        with pytest.raises(ExceptionWithErrorType) as refusal:
            queries.preview(db, wish, now=at(1))
        refusals.append(error_type(refusal))
    assert refusals == ["INSUFFICIENT_CREDITS", "HOLD_NOT_FOUND", "USER_INACTIVE"]


def test_an_explanation_leads_from_every_entry_to_the_balance(db: Session) -> None:
    """Sums by kind are the booked balance; with what is due they are the balance now."""
    user_id = someone(db)
    do(db, Grant, user_id, amount=30, expires_at=at(50), reference="welcome")
    buy(db, user_id, amount=100, reference="invoice 7")
    do(db, Spend, user_id, 1, amount=20)
    hold = do(db, OpenHold, user_id, 2, amount=40, expires_in_seconds=FAR, reference="deck 1")
    do(db, OpenHold, user_id, 3, amount=5, expires_in_seconds=10)
    found = queries.explain(db, user_id, now=at(60))
    assert found.agrees
    assert found.total_by_kind == {"grant": 130, "spend": -20, "hold": -45}
    assert found.booked_balance == sum(found.total_by_kind.values()) == 65
    assert [(entry.kind, entry.amount) for entry in found.due] == [("hold_expiry", 5)]
    assert found.now.balance == found.booked_balance + 5 == 70
    assert [
        (state.lot.seq, state.lot.remaining, state.entry.reference) for state in found.lots
    ] == [(2, 70, "invoice 7")]
    assert [(state.hold.seq, state.entry.reference) for state in found.holds] == [
        (hold.seq, "deck 1")
    ]


def test_an_explanation_names_debts_with_the_payment_behind_them(db: Session) -> None:
    """Oldest payment first; what has been paid back is not shown."""
    user_id = someone(db)
    lots = [do(db, Grant, user_id, amount=10, reference=f"invoice {each}").seq for each in range(3)]
    do(db, Spend, user_id, amount=30)
    for seq, outstanding in zip(reversed(lots), (4, 0, 2), strict=True):
        owe(db, user_id, seq, outstanding)
    debts = queries.explain(db, user_id, now=at(1)).debts
    assert [(debt.entry.reference, debt.outstanding) for debt in debts] == [
        ("invoice 0", 2),
        ("invoice 2", 4),
    ]


def test_an_explanation_says_when_the_sums_do_not_agree(db: Session) -> None:
    """A balance that somebody changed behind the ledger's back is not explained away."""
    user_id = someone(db)
    do(db, Grant, user_id, amount=10)
    db.execute(text("SET LOCAL session_replication_role = replica"))
    db.execute(text("UPDATE users SET credits_balance = 11"))
    db.execute(text("SET LOCAL session_replication_role = origin"))
    assert not queries.explain(db, user_id, now=at(1)).agrees


def test_reading_writes_nothing(db: Session) -> None:
    """Every reading works where the database transaction may not write at all."""
    user_id = someone(db)
    do(db, Grant, user_id, amount=30, expires_at=at(50))
    hold = do(db, OpenHold, user_id, amount=10, expires_in_seconds=5)
    db.commit()
    db.execute(text("SET TRANSACTION READ ONLY"))
    queries.balance(db, user_id, now=at(60))
    queries.balance(db, user_id, as_of=at(20), now=at(60))
    queries.history(db, user_id, cursor=None, limit=10)
    queries.holds(db, user_id, cursor=None, limit=10, now=at(60))
    queries.get_hold(db, user_id, hold.seq, now=at(60))
    queries.explain(db, user_id, now=at(60))
    queries.preview(db, ask(Grant, user_id, amount=3), now=at(60))
    assert db.scalars(select(CreditEntry.seq).order_by(CreditEntry.seq)).all() == [1, 2]
