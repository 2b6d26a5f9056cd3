"""Entries are undone in the very lots they moved (rule 12), on both drivers."""

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from src.common.credits import async_ledger, ledger
from src.common.credits.domain.commands import Command
from src.common.credits.operations import execute
from src.common.credits.verification.recompute import recompute
from src.common.credits.verification.report import Report
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.credit_entry import CreditEntry
from src.common.models.credit_lot import CreditLot
from src.common.models.user import User
from tests.credits.books import (
    InSession,
    adjust,
    capture,
    check_books,
    grant,
    journal,
    make_user,
    open_hold,
    owe,
    purchase,
    release,
    renew,
    reverse,
    spend,
)

START = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


def do(session: Session, command: Command, seconds: float = 0) -> Any:
    """One command, so many seconds after the start."""
    [result] = execute(session, [command], now=START + dt.timedelta(seconds=seconds))
    return result


def someone(session: Session) -> uuid.UUID:
    """A user with nothing."""
    return make_user(session).user_id


def left(session: Session, user_id: uuid.UUID) -> dict[int, int]:
    """What remains in each lot."""
    rows = session.execute(
        select(CreditLot.seq, CreditLot.remaining).where(CreditLot.user_id == user_id)
    )
    return {row.seq: row.remaining for row in rows}


def refused(session: Session, command: Command, seconds: float = 0) -> ExceptionWithErrorType:
    """What it was refused with; nothing was written."""
    before = journal(session, command.user_id)
    with pytest.raises(ExceptionWithErrorType) as refusal:
        do(session, command, seconds)
    assert journal(session, command.user_id) == before
    return refusal.value


def check(session: Session, *user_ids: uuid.UUID) -> None:
    """All that was written is what the rules write, and the books balance."""
    check_books(session)
    report = Report()
    recompute(session, report, list(user_ids))
    assert report.first == []


async def test_a_spend_goes_back_from_the_end(in_session: InSession) -> None:
    """Spending 30 and undoing 10 leaves in every lot what spending 20 leaves."""

    def work(session: Session) -> None:
        for spent in (30, 20):
            who = someone(session)
            for amount, priority in ((15, 1), (10, 2), (40, 3)):
                do(session, grant(who, amount, priority=priority))
            do(session, spend(who, spent))
            if spent == 30:
                undone = do(session, reverse(who, 4, 10))
                assert (undone.kind, undone.amount, undone.balance) == ("reversal", 10, 45)
                assert (undone.captured, undone.spent, undone.replayed) == (None, None, False)
            assert left(session, who) == {1: 0, 2: 5, 3: 40}
            check(session, who)

    await in_session(work)


async def test_several_parts_and_never_more_than_it_took(in_session: InSession) -> None:
    """What is left may go back at once; beyond that nothing, and the answer says how much is."""

    def work(session: Session) -> None:
        who = make_user(session, 50, now=START).user_id
        do(session, spend(who, 30))
        do(session, reverse(who, 2, 12))
        refusal = refused(session, reverse(who, 2, 19))
        assert (refusal.error_type, refusal.details) == (
            "REVERSAL_EXCEEDS_ENTRY",
            {"reversible": 18},
        )
        assert do(session, reverse(who, 2)).amount == 18
        assert refused(session, reverse(who, 2)).details == {"reversible": 0}
        assert journal(session, who)[-2:] == [("reversal", 12), ("reversal", 18)]
        related = select(CreditEntry.related_seq).where(CreditEntry.user_id == who)
        assert session.scalars(related.order_by(CreditEntry.seq)).all() == [None, None, 2, 2]
        check(session, who)

    await in_session(work)


async def test_the_captured_part_of_a_hold_goes_back(in_session: InSession) -> None:
    """Of an open one and of a closed one, from the end of what was kept; a late part is a spend."""

    def work(session: Session) -> None:
        who = someone(session)
        for amount, priority in ((15, 1), (10, 2), (40, 3)):
            do(session, grant(who, amount, priority=priority))
        hold = do(session, open_hold(who, 30, 60)).seq
        assert refused(session, reverse(who, hold)).details == {"reversible": 0}
        do(session, capture(who, hold, 20, final=False))
        do(session, reverse(who, hold, 4))
        assert left(session, who) == {1: 0, 2: 4, 3: 35}
        do(session, capture(who, hold, 3))
        assert left(session, who) == {1: 0, 2: 6, 3: 40}
        assert do(session, reverse(who, hold)).amount == 19
        assert left(session, who) == {1: 15, 2: 10, 3: 40}
        late = do(session, open_hold(who, 9, 60)).seq
        taken = do(session, capture(who, late, 7, if_expired="retake"), 100).seq
        assert refused(session, reverse(who, late), 100).details == {"reversible": 0}
        assert do(session, reverse(who, taken), 100).amount == 7
        check(session, who)

    await in_session(work)


async def test_a_replay_says_what_was_first_said_whatever_happened_since(
    in_session: InSession,
) -> None:
    """Also once all is undone, the lots have expired and the account is deactivated."""

    def work(session: Session) -> None:
        who = someone(session)
        do(session, grant(who, 60, expires_at=START + dt.timedelta(seconds=50)))
        do(session, spend(who, 30))
        part, rest = reverse(who, 2, 10), reverse(who, 2)
        back = reverse(who, 1, as_far_as_possible=True)
        first = [do(session, each, 10) for each in (part, rest, back)]
        assert [(each.amount, each.balance, each.spent) for each in first] == [
            (10, 40, None),
            (20, 60, None),
            (-60, 0, 0),
        ]
        do(session, grant(who, 5), 20)
        session.execute(update(User).where(User.user_id == who).values(is_active=False))
        again = [do(session, each, 100) for each in (part, rest, back)]
        assert again == first
        assert all(each.replayed for each in again)
        assert refused(session, reverse(who, 2, 11, key=part.key)).error_type == (
            "IDEMPOTENCY_KEY_REUSED"
        )
        check(session, who)

    await in_session(work)


async def test_a_grant_is_taken_back_from_its_own_lot(in_session: InSession) -> None:
    """All that was asked or nothing, unless as far as possible; the answer says what was spent."""

    def work(session: Session) -> None:
        who = make_user(session, 100, now=START).user_id
        do(session, grant(who, 80, priority=1))
        do(session, spend(who, 30))
        refusal = refused(session, reverse(who, 2))
        assert (refusal.error_type, refusal.details) == (
            "INSUFFICIENT_CREDITS",
            {"required": 80, "available": 50},
        )
        part = do(session, reverse(who, 2, 20))
        assert (part.amount, part.spent, part.balance) == (-20, 30, 130)
        rest = reverse(who, 2, as_far_as_possible=True)
        first, again = do(session, rest), do(session, rest)
        assert (first.amount, first.spent, first.balance) == (-30, 30, 100)
        assert (again, again.spent, again.replayed) == (first, 30, True)
        assert left(session, who) == {1: 100, 2: 0}
        assert refused(session, reverse(who, 2, as_far_as_possible=True)).details == {
            "required": 30,
            "available": 0,
        }
        do(session, adjust(who, 5))
        gone = do(session, reverse(who, 6))
        assert (gone.amount, gone.spent) == (-5, 0)
        check(session, who)

    await in_session(work)


async def test_an_adjustment_down_goes_back(in_session: InSession) -> None:
    """It comes back as a spend does, to the lots it was taken from."""

    def work(session: Session) -> None:
        who = make_user(session, 10, now=START).user_id
        do(session, grant(who, 10, priority=1))
        do(session, adjust(who, -15))
        do(session, reverse(who, 3, 7))
        assert left(session, who) == {1: 10, 2: 2}
        check(session, who)

    await in_session(work)


async def test_what_returns_repays_debts_and_expires_with_its_lot(in_session: InSession) -> None:
    """To a dead lot: the debt first, the rest expires at once. To a live one: the debt first."""

    def work(session: Session) -> None:
        who = someone(session)
        do(session, grant(who, 20, priority=1, expires_at=START + dt.timedelta(seconds=60)))
        do(session, purchase(session, who, 10))
        do(session, spend(who, 30))
        owe(session, who, 2, 12)
        undone = do(session, reverse(who, 3), 100)
        assert journal(session, who)[3:] == [
            ("reversal", 30),
            ("debt_repayment", -12),
            ("lot_expiry", -8),
        ]
        assert (undone.amount, undone.balance, left(session, who)) == (30, 10, {1: 0, 2: 10})

    await in_session(work)


async def test_what_cannot_be_undone(in_session: InSession) -> None:
    """Purchases, captures, releases, renewals, reversals; and what is not there."""

    def work(session: Session) -> None:
        who = make_user(session, 100, now=START).user_id
        do(session, purchase(session, who, 10))
        first, second = (do(session, open_hold(who, 10, 60)).seq for _ in range(2))
        do(session, capture(who, first, 4))
        do(session, release(who, second))
        third = do(session, open_hold(who, 10, 60)).seq
        do(session, renew(who, third, 90))
        do(session, reverse(who, first))
        kinds: dict[int, object] = {}
        for seq in (2, 5, 6, 8, 9):
            refusal = refused(session, reverse(who, seq))
            assert refusal.error_type == "ENTRY_NOT_REVERSIBLE"
            kinds[seq] = refusal.details["kind"]
        assert kinds == {2: "grant", 5: "capture", 6: "release", 8: "renewal", 9: "reversal"}
        assert refused(session, reverse(who, 10)).error_type == "ENTRY_NOT_FOUND"
        assert refused(session, reverse(uuid.uuid4(), 1)).error_type == "USER_NOT_FOUND"
        check(session, who)

    await in_session(work)


async def test_an_inactive_users_entries_are_undone(in_session: InSession) -> None:
    """Who may not spend gets back what was spent."""

    def work(session: Session) -> None:
        who = make_user(session, 10, now=START).user_id
        do(session, spend(who, 4))
        session.execute(update(User).where(User.user_id == who).values(is_active=False))
        assert do(session, reverse(who, 2)).balance == 10

    await in_session(work)


async def test_only_ones_own(in_session: InSession) -> None:
    """Where it must be the actor's own, others' entries and own grants are FORBIDDEN."""

    def work(session: Session) -> None:
        who = make_user(session, 10, now=START).user_id
        do(session, spend(who, 4, actor="key:others"))
        do(session, spend(who, 2))
        for seq in (1, 2):
            assert refused(session, reverse(who, seq, own_only=True)).error_type == "FORBIDDEN"
        assert do(session, reverse(who, 3, own_only=True)).amount == 2
        assert do(session, reverse(who, 2)).amount == 4

    await in_session(work)


async def test_entries_of_the_same_call_are_undone(in_session: InSession) -> None:
    """One call spends, captures and undoes both: it finds what it has not written yet."""

    def work(session: Session) -> None:
        who = make_user(session, 50, now=START).user_id
        commands: list[Command] = [
            spend(who, 10),
            open_hold(who, 20, 60),
            capture(who, 3, 8, final=False),
            reverse(who, 2, 6),
            reverse(who, 2, 4),
            reverse(who, 3, 5),
            capture(who, 3, 2),
            reverse(who, 3),
        ]
        results = execute(session, commands, now=START)
        assert [each.balance for each in results] == [40, 20, 20, 26, 30, 35, 45, 50]
        check(session, who)

    await in_session(work)


WRONG: dict[str, Callable[[uuid.UUID], Command]] = {
    "seq": lambda who: reverse(who, 0),
    "amount": lambda who: reverse(who, 1, 0),
    "as_far_as_possible": lambda who: reverse(who, 1, as_far_as_possible=1),
    "own_only": lambda who: reverse(who, 1, own_only="yes"),
    "reason": lambda who: reverse(who, 1, reason=""),
}


@pytest.mark.parametrize("field", WRONG)
def test_a_wrong_argument_is_named(field: str) -> None:
    """VALIDATION_ERROR, with the field; nothing is converted."""
    with pytest.raises(ExceptionWithErrorType) as refusal:
        WRONG[field](uuid.uuid4())
    assert (refusal.value.error_type, refusal.value.details) == (
        "VALIDATION_ERROR",
        {"field": field},
    )


def test_a_number_is_not_as_far_as_possible() -> None:
    """A number asks for just that, so the two exclude each other."""
    with pytest.raises(ExceptionWithErrorType) as refusal:
        reverse(uuid.uuid4(), 1, 5, as_far_as_possible=True)
    assert refusal.value.details == {"field": "amount"}


async def test_a_dry_run_says_what_would_be(async_db: AsyncSession) -> None:
    """The same answer, with its lines and what would expire, and nothing is written."""
    who = await async_db.run_sync(someone)
    await async_ledger.grant(async_db, who, 20, key="g")
    await async_ledger.spend(async_db, who, 5, key="s")
    planned = reverse(who, 2, reason="a plan")
    foreseen = await async_ledger.preview(async_db, planned)
    assert [(entry.kind, entry.amount, entry.related_seq) for entry in foreseen.entries] == [
        ("reversal", 5, 2)
    ]
    done = await async_ledger.reverse(async_db, who, 2, key="r", reason="a plan")
    assert (foreseen.result.amount, foreseen.result.balance) == (done.amount, done.balance)


async def test_the_past_stays_what_it_was(in_session: InSession) -> None:
    """As of an instant between the spend and its reversal, what was spent is gone."""

    def work(session: Session) -> None:
        who = make_user(session, 50, now=START).user_id
        do(session, spend(who, 30), 10)
        do(session, reverse(who, 2, 12), 20)

        def balance(seconds: int) -> int:
            then = START + dt.timedelta(seconds=seconds)
            return ledger.balance(session, who, as_of=then).balance

        assert [balance(seconds) for seconds in (9, 10, 19, 20)] == [50, 20, 20, 32]
        explained = ledger.explain(session, who)
        assert (explained.total_by_kind["reversal"], explained.agrees) == (12, True)
        newest = ledger.history(session, who).items[0]
        assert (newest.kind, newest.related_seq, newest.reference) == ("reversal", 2, "a test")

    await in_session(work)
