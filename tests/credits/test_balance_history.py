"""The balance over time: exact at every instant it names, in two statements, however long."""

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, func, select, text
from sqlalchemy.orm import Session

from src.common.credits import queries
from src.common.credits.balance_history import (
    LOTS_MAX,
    POINTS_MAX,
    BalanceHistory,
    balance_history,
)
from src.common.credits.domain.commands import Adjust, Grant, OpenHold, Spend
from src.common.credits.journal_samples import samples_at
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.credit_entry import CreditEntry
from tests.credits.clock import settable_clock
from tests.credits.ledger import START, at, buy, do, someone
from tests.reports.histories import History

HOUR = dt.timedelta(hours=1)


def lots_at(history: BalanceHistory, place: int) -> dict[int | str, int]:
    """What lots, or sources, held at one of the instants."""
    return {
        str(each.source) if each.lot_seq is None else each.lot_seq: each.credits[place]
        for each in history.series
        if each.credits[place]
    }


def check(db: Session, user_id: uuid.UUID, since: dt.datetime, **others: Any) -> BalanceHistory:
    """A history that says at each of its instants what reading as of then says."""
    history = balance_history(db, user_id, since=since, **others)
    assert len(history.instants) <= POINTS_MAX
    assert list(history.instants) == sorted(set(history.instants)) or len(history.instants) == 2
    by_source = any(each.lot_seq is None for each in history.series)
    for place, instant in enumerate(history.instants):
        then = queries.balance(db, user_id, as_of=instant, now=others["now"])
        assert history.balances[place] == then.balance, instant
        expected: dict[int | str, int] = {}
        for lot in then.lots:
            name = str(lot.source) if by_source else lot.seq
            expected[name] = expected.get(name, 0) + lot.remaining
        assert lots_at(history, place) == expected, instant
    return history


@pytest.mark.parametrize("seed", range(4))
def test_a_history_is_exact_at_each_of_its_instants(db: Session, seed: int) -> None:
    """By lot or by source, over random lives, from and to any instant: as `as_of` says it.

    With holds and lots that fell due and nobody booked, money back and debts among them.
    """
    with settable_clock(db.connection()):
        life = History(db, seed, start=START, step=HOUR)
        life.go_on(120)
    instants = life.instants(4)
    for user_id in life.ids:
        for since in (START, instants[1], instants[-2]):
            check(db, user_id, since, now=life.now)
        check(db, user_id, START, until=instants[len(instants) // 2], now=life.now)


def test_marks_are_all_entries_after_the_beginning(db: Session) -> None:
    """Each counts once, with its amount; those from before, or at the very beginning, do not."""
    with settable_clock(db.connection()):
        life = History(db, 7, start=START, step=HOUR)
        life.go_on(150)
    [since, *_] = [each for each in life.instants(9) if each < life.now][2:]
    entry = CreditEntry
    for user_id in life.ids:
        history = balance_history(db, user_id, since=since, now=life.now)
        marks = history.marks
        due = [
            it for it in queries.explain(db, user_id, now=life.now).due if it.effective_at > since
        ]
        booked = db.execute(
            select(entry.kind, func.count(), func.sum(entry.amount))
            .where(entry.user_id == user_id, entry.effective_at > since)
            .group_by(entry.kind)
        ).all()
        expected: dict[str, tuple[int, int]] = {kind: (n, int(s)) for kind, n, s in booked}
        for each in due:
            n, s = expected.get(each.kind, (0, 0))
            expected[each.kind] = (n + 1, s + each.amount)
        found: dict[str, tuple[int, int]] = {}
        assert {mark.at for mark in marks} <= set(history.instants)
        for mark in marks:
            n, s = found.get(mark.kind, (0, 0))
            found[mark.kind] = (n + mark.entries, s + mark.amount)
            assert mark.first_seq <= mark.last_seq
        assert found == expected


def test_a_mark_is_at_an_instant_of_the_history(db: Session) -> None:
    """Also where several kinds of entries fall between two instants: at the later one."""
    user_id = someone(db)
    for number in range(3):
        do(db, Grant, user_id, 1 + number / 1000, amount=9)
        do(db, Spend, user_id, 1 + (number + 0.5) / 1000, amount=1)
    history = check(db, user_id, at(-1000), until=at(1000), now=at(1000))
    assert [(mark.kind, mark.at, mark.entries) for mark in history.marks] == [
        ("grant", at(1.0025), 3),
        ("spend", at(1.0025), 3),
    ]


def test_a_long_journal_has_as_many_points_as_a_chart_can_show(db: Session) -> None:
    """Three thousand spends are some four hundred instants, exact each, in two statements."""
    user_id = someone(db)
    do(db, Grant, user_id, amount=5_000)
    db.execute(text("SET session_replication_role = replica"))
    db.execute(
        text(
            "INSERT INTO credit_entries (user_id, seq, kind, amount, balance_after, result_balance,"
            " idempotency_key, request_digest, actor, effective_at)"
            " SELECT :user_id, n, 'spend', -1, 5001 - n, 5001 - n, 'k' || n,"
            " decode(repeat('00', 32), 'hex'), 'key:x', CAST(:start AS timestamptz)"
            " + n * interval '1 minute' FROM generate_series(2, 3001) AS n"
        ),
        {"user_id": user_id, "start": START},
    )
    db.execute(
        text(
            "INSERT INTO credit_postings SELECT user_id, seq, 1, amount, balance_after"
            " FROM credit_entries WHERE seq > 1"
        )
    )
    db.execute(text("UPDATE credit_lots SET remaining = 2000, last_seq = 3001"))
    db.execute(text("UPDATE users SET credits_balance = 2000, credits_version = 3001"))
    db.execute(text("SET session_replication_role = origin"))
    now = START + dt.timedelta(minutes=4000)
    history = balance_history(db, user_id, since=START, now=now)
    assert 300 < len(history.instants) <= POINTS_MAX
    for place in (0, 1, 150, len(history.instants) - 2, len(history.instants) - 1):
        then = queries.balance(db, user_id, as_of=history.instants[place], now=now)
        assert history.balances[place] == then.balance
    assert sum(mark.entries for mark in history.marks) == 3000
    db.rollback()


@pytest.mark.parametrize("seed", range(2))
def test_a_history_of_too_many_entries_is_the_balance_alone(
    db: Session, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Exact at each of its instants, from any instant on, with what nobody booked yet."""
    monkeypatch.setattr("src.common.credits.balance_history.ENTRIES_MAX", 3)
    with settable_clock(db.connection()):
        life = History(db, seed, start=START, step=HOUR)
        life.go_on(120)
    instants = life.instants(4)
    sampled = 0
    for user_id in life.ids:
        for since in (START - HOUR, START, instants[1], instants[-2], life.now):
            for until in (life.now, max(since, instants[len(instants) // 2])):
                history = balance_history(db, user_id, since=since, until=until, now=life.now)
                assert (history.instants[0], history.instants[-1]) == (since, until)
                assert len(history.instants) <= POINTS_MAX
                sampled += history.is_sampled
                for instant, balance in zip(history.instants, history.balances, strict=True):
                    then = queries.balance(db, user_id, as_of=instant, now=life.now)
                    assert balance == then.balance, (since, until, instant)
    assert sampled > 0


def test_a_sampled_history_reads_few_entries(db: Session) -> None:
    """For each instant the newest that counts by then, found by halving."""
    user_id = someone(db)
    do(db, Grant, user_id, amount=9_000)
    for number in range(20):
        do(db, Spend, user_id, number + 1, amount=1)
    bounds = [at(number / 2 - 1) for number in range(60)]
    samples = samples_at(db, user_id, 21, bounds)
    for bound, sample in zip(bounds, samples, strict=True):
        counting = [0, *(n for n in range(1, 22) if at(n - 1) <= bound)]
        assert sample.seq == counting[-1]
        assert sample.balance_after == (9_001 - sample.seq if sample.seq else 0)


def statements_of(db: Session, ask: Callable[[], object]) -> int:
    """How many statements it sends."""
    sent: list[str] = []

    def keep(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        sent.append(statement)

    connection = db.connection()
    event.listen(connection, "before_cursor_execute", keep)
    ask()
    event.remove(connection, "before_cursor_execute", keep)
    return len(sent)


@pytest.mark.parametrize("lots", [1, LOTS_MAX, LOTS_MAX + 1])
def test_many_lots_are_shown_by_their_source(db: Session, lots: int) -> None:
    """Up to `LOTS_MAX` each has its series, from then on each source; two statements always."""
    user_id = someone(db)
    for number in range(lots - 1):
        do(db, Grant, user_id, number, amount=2)
    buy(db, user_id, lots, amount=7)
    do(db, Spend, user_id, lots + 1, amount=3)
    history = check(db, user_id, at(-1), now=at(99))
    expected = lots if lots <= LOTS_MAX else 2
    assert len(history.series) == expected
    assert history.balances[-1] == 2 * (lots - 1) + 7 - 3

    def ask() -> object:
        return balance_history(db, user_id, since=at(-1), now=at(99))

    assert statements_of(db, ask) == 2


def test_what_falls_due_at_an_end_counts_there(db: Session) -> None:
    """A lot dies at the instant of its expiry, a hold's credits are back at the instant of its."""
    user_id = someone(db)
    do(db, Grant, user_id, amount=30, expires_at=at(50))
    do(db, Adjust, user_id, 1, amount=5, reason="a test")
    do(db, OpenHold, user_id, 2, amount=10, expires_in_seconds=18)
    for until in (19, 20, 49.999999, 50, 51):
        history = check(db, user_id, at(0), until=at(until), now=at(60))
        kinds = {mark.kind for mark in history.marks}
        assert ("hold_expiry" in kinds) is (until >= 20)
        assert ("lot_expiry" in kinds) is (until >= 50)
    assert check(db, user_id, at(50), until=at(50), now=at(60)).balances == [5, 5]


def test_nobody_has_a_history_without_entries(db: Session) -> None:
    """Two instants of 0 credits, no series and no mark."""
    history = balance_history(db, someone(db), since=at(0), now=at(9))
    assert (history.instants, history.balances) == ([at(0), at(9)], [0, 0])
    assert (history.series, history.marks) == ([], [])


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"since": dt.datetime(2020, 1, 1)}, "since"),  # noqa: DTZ001  the point
        ({"since": at(0), "until": dt.datetime(2020, 1, 1)}, "until"),  # noqa: DTZ001
        ({"since": at(0), "until": at(11)}, "until"),
        ({"since": at(6), "until": at(5)}, "since"),
        ({"since": at(11)}, "since"),
    ],
)
def test_a_history_needs_two_instants_in_order(
    db: Session, arguments: dict[str, Any], field: str
) -> None:
    """VALIDATION_ERROR, naming the field."""
    user_id = someone(db)
    with pytest.raises(ExceptionWithErrorType) as refusal:
        balance_history(db, user_id, now=at(10), **arguments)
    assert refusal.value.error_type == "VALIDATION_ERROR"
    assert refusal.value.details == {"field": field}


def test_nobody_unknown_has_a_history(db: Session) -> None:
    """USER_NOT_FOUND."""
    with pytest.raises(ExceptionWithErrorType, match="User not found") as refusal:
        balance_history(db, uuid.uuid4(), since=at(0), now=at(1))
    assert refusal.value.error_type == "USER_NOT_FOUND"
