"""One key, one effect, one answer for ever; and what may be asked at all (rule 2)."""

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.credits.domain.commands import (
    AMOUNT_MAX,
    HOLD_SECONDS_MAX,
    OWN_ACTORS,
    Adjust,
    Capture,
    Command,
    Grant,
    OpenHold,
    Release,
    Renew,
    Result,
    Spend,
)
from src.common.credits.domain.decisions import OPEN_HOLDS_MAX
from src.common.credits.domain.errors import InsufficientCredits
from src.common.credits.operations import execute, execute_each
from src.common.exceptions import Conflict, ExceptionWithErrorType, Invalid
from src.common.models.credit_entry import CreditEntry, CreditEntryMetadata
from src.common.models.credit_lot import LotSource
from tests.credits.books import (
    adjust,
    booked_balance,
    capture,
    check_books,
    grant,
    journal,
    make_user,
    open_hold,
    release,
    renew,
    reverse,
    spend,
)

START = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
WHO = uuid.uuid4()


def at(seconds: float) -> dt.datetime:
    """So many seconds after the start."""
    return START + dt.timedelta(seconds=seconds)


def do(session: Session, command: Command, seconds: float = 0) -> Result:
    """One command, so many seconds after the start."""
    [result] = execute(session, [command], now=at(seconds))
    return result


def refused(session: Session, command: Command) -> str:
    """What the command is refused with; nothing is written."""
    before = journal(session, command.user_id)
    with pytest.raises(ExceptionWithErrorType) as caught:
        execute(session, [command], now=at(0))
    assert journal(session, command.user_id) == before
    return caught.value.error_type


def test_a_replay_is_the_first_answer_for_ever(db: Session) -> None:
    """Whatever has become of the hold and the lots: renewed, captured, expired, spent, inactive."""
    user = make_user(db, 100, now=at(0))
    who = user.user_id
    hold_first, hold_second = open_hold(who, 10, 60), open_hold(who, 20, 60)
    opened, other = do(db, hold_first), do(db, hold_second)
    commands: list[Command] = [
        grant(who, 30, expires_at=at(30)),
        spend(who, 5),
        adjust(who, 3),
        renew(who, opened.seq, 90),
        capture(who, opened.seq, 4, final=False),
        capture(who, opened.seq, 2),
        release(who, other.seq),
        reverse(who, 4, 2),
    ]
    answers = [opened, other, *(do(db, command, n) for n, command in enumerate(commands))]
    user.is_active = False
    do(db, adjust(who, -1), 1_000)  # all is due by now
    before = journal(db, who)
    for command, answer in zip((hold_first, hold_second, *commands), answers, strict=True):
        for seconds in (0, 2_000):
            again = do(db, command, seconds)
            assert (again, again.replayed, answer.replayed) == (answer, True, False)
    assert journal(db, who) == before
    assert answers[0].expires_at == at(60)
    check_books(db)


def test_a_replay_books_nothing_that_is_due(db: Session) -> None:
    """It answers, and the expired lot waits for an operation that succeeds (rule 8)."""
    who = make_user(db, now=at(0)).user_id
    command = grant(who, 30, expires_at=at(30))
    do(db, command)
    assert do(db, command, 60).balance == 30
    with pytest.raises(InsufficientCredits):
        do(db, spend(who, 1), 60)
    assert journal(db, who) == [("grant", 30)]
    assert booked_balance(db, who) == 30


def test_a_replay_within_one_call_and_one_batch(db: Session) -> None:
    """The second of two equal commands is a replay of the first."""
    who = make_user(db, 100).user_id
    command = spend(who, 10)
    first, second = execute(db, [command, command])
    third, fourth = execute_each(db, [command, command])
    assert first == second == third == fourth
    assert isinstance(third, Result)
    assert (first.replayed, second.replayed, third.replayed) == (False, True, True)
    assert booked_balance(db, who) == 90
    check_books(db)


OTHER_REQUESTS: list[tuple[str, Callable[[], Command], dict[str, Any]]] = [
    ("amount", lambda: spend(WHO, 1), {"amount": 2}),
    ("actor", lambda: spend(WHO, 1), {"actor": "key:others"}),
    ("reference", lambda: spend(WHO, 1), {"reference": "r"}),
    ("source", lambda: grant(WHO, 1), {"source": LotSource.SUBSCRIPTION}),
    ("priority", lambda: grant(WHO, 1), {"priority": 10}),
    ("expiry", lambda: grant(WHO, 1, expires_at=at(9)), {"expires_at": at(8)}),
    ("no expiry", lambda: grant(WHO, 1, expires_at=at(9)), {"expires_at": None}),
    ("reason", lambda: adjust(WHO, 1), {"reason": "another"}),
    ("sign", lambda: adjust(WHO, 1), {"amount": -1}),
    ("hold", lambda: capture(WHO, 1, 1), {"hold_seq": 2}),
    ("final", lambda: capture(WHO, 1, 1), {"final": False}),
    ("if_expired", lambda: capture(WHO, 1, 1), {"if_expired": "retake"}),
    ("hold seconds", lambda: open_hold(WHO, 1, 60), {"expires_in_seconds": 61}),
    ("renewed seconds", lambda: renew(WHO, 1, 60), {"expires_in_seconds": 61}),
    ("released hold", lambda: release(WHO, 1), {"hold_seq": 2}),
    ("entry to undo", lambda: reverse(WHO, 1, 5), {"seq": 2}),
    ("part to undo", lambda: reverse(WHO, 1, 5), {"amount": 4}),
    ("all to undo", lambda: reverse(WHO, 1, 5), {"amount": None}),
    ("as far as possible", lambda: reverse(WHO, 1), {"as_far_as_possible": True}),
    ("reason to undo", lambda: reverse(WHO, 1), {"reason": "another"}),
]


@pytest.mark.parametrize(
    ("make", "changes"), [each[1:] for each in OTHER_REQUESTS], ids=[n[0] for n in OTHER_REQUESTS]
)
def test_every_part_of_a_request_makes_it_another(
    make: Callable[[], Command], changes: dict[str, Any]
) -> None:
    """One field changed is another digest; the same fields, metadata aside, are the same."""
    command = make()
    assert replace(command, **changes).digest != command.digest
    assert replace(command, metadata={"another": 1}).digest == command.digest
    assert len(command.digest) == 32


def test_equal_numbers_in_other_kinds_are_other_requests() -> None:
    """A spend of 5 is no adjustment, capture or release of 5."""
    commands: list[Command] = [
        spend(WHO, 5),
        grant(WHO, 5),
        adjust(WHO, 5),
        open_hold(WHO, 5, 5),
        capture(WHO, 5, 5),
        renew(WHO, 5, 5),
        release(WHO, 5),
    ]
    assert len({command.digest for command in commands}) == len(commands)


def test_texts_do_not_run_into_each_other() -> None:
    """What ends one field cannot begin the next: every value is written with its length."""
    pairs = [("key:a", "b"), ("key:ab", None), ("key:a", "bn"), ("key:", "ab"), ("key:a", None)]
    digests = {spend(WHO, 1, actor=who, reference=what).digest for who, what in pairs}
    assert len(digests) == len(pairs)


def test_the_same_instant_in_another_zone_is_the_same_request(db: Session) -> None:
    """An expiry is an instant, however it is written."""
    who = make_user(db).user_id
    command = grant(who, 5, expires_at=at(60))
    there = at(60).astimezone(dt.timezone(dt.timedelta(hours=5, minutes=30)))
    do(db, command)
    assert do(db, replace(command, expires_at=there)).replayed


def test_a_used_key_with_another_request_does_nothing(db: Session) -> None:
    """Other amount, other kind, other principal: refused, before state and funds are looked at."""
    user = make_user(db, 100, now=at(0))
    who = user.user_id
    command = spend(who, 10)
    do(db, command)
    user.is_active = False
    for other in (
        spend(who, 1_000, key=command.key),
        open_hold(who, 10, key=command.key),
        release(who, 999, key=command.key),
        replace(command, actor="key:others"),
    ):
        assert refused(db, other) == "IDEMPOTENCY_KEY_REUSED"
    assert booked_balance(db, who) == 90


def test_keys_belong_to_their_user(db: Session) -> None:
    """The same key of two users is two keys."""
    first, second = make_user(db, 10).user_id, make_user(db, 10).user_id
    execute(db, [spend(first, 1, key="one"), spend(second, 2, key="one")])
    assert (booked_balance(db, first), booked_balance(db, second)) == (9, 8)


def test_a_refusal_leaves_its_key_free(db: Session) -> None:
    """The same key succeeds once there are credits, also for another request."""
    who = make_user(db, 5, now=at(0)).user_id
    command = spend(who, 10)
    assert refused(db, command) == "INSUFFICIENT_CREDITS"
    do(db, grant(who, 5))
    assert not do(db, command).replayed
    free = spend(who, 1)
    assert refused(db, free) == "INSUFFICIENT_CREDITS"
    assert not do(db, grant(who, 1, key=free.key)).replayed
    check_books(db)


def test_one_refusal_undoes_the_whole_call(db: Session) -> None:
    """Nothing of it is written, every key in it is free; one by one, the others are done."""
    first, second = make_user(db, 10).user_id, make_user(db, 10).user_id
    commands = [spend(first, 1), spend(second, 11), spend(first, 2)]
    with pytest.raises(InsufficientCredits):
        execute(db, commands)
    assert (booked_balance(db, first), booked_balance(db, second)) == (10, 10)
    done, not_done, also_done = execute_each(db, commands)
    assert isinstance(done, Result)
    assert isinstance(not_done, InsufficientCredits)
    assert isinstance(also_done, Result)
    assert (done.replayed, also_done.balance, booked_balance(db, second)) == (False, 7, 10)
    check_books(db)


def test_an_unknown_user_is_refused(db: Session) -> None:
    """USER_NOT_FOUND, and in a batch only for those commands."""
    who = make_user(db, 10).user_id
    assert refused(db, spend(WHO, 1)) == "USER_NOT_FOUND"
    missing, done = execute_each(db, [spend(WHO, 1), spend(who, 1)])
    assert isinstance(missing, ExceptionWithErrorType)
    assert isinstance(done, Result)


def test_a_replay_survives_a_savepoint_that_reused_its_number(db: Session) -> None:
    """An entry held in memory from a rolled back savepoint does not hide its successor."""
    who = make_user(db, 10).user_id
    savepoint = db.begin_nested()
    execute(db, [spend(who, 1, key="gone")])
    held = db.scalars(select(CreditEntry).where(CreditEntry.user_id == who)).all()
    savepoint.rollback()
    kept = spend(who, 2, key="kept")
    [first] = execute(db, [kept])
    [again] = execute(db, [kept])
    assert (again, again.replayed, len(held)) == (first, True, 2)


def test_metadata_is_kept_with_the_first_entry(db: Session) -> None:
    """It is no part of the request: a replay with another one changes nothing."""
    who = make_user(db, 10).user_id
    command = spend(who, 1, metadata={"job": "ä", "deep": [{"x": None}]})
    first = do(db, command)
    assert do(db, replace(command, metadata={"job": 2})) == first
    notes = db.scalars(
        select(CreditEntryMetadata.document).where(CreditEntryMetadata.user_id == who)
    ).all()
    assert notes == [{"job": "ä", "deep": [{"x": None}]}]


WRONG_INTEGERS: tuple[Any, ...] = (0, -1, 2**31, True, 1.0, "1", None)


@pytest.mark.parametrize("wrong", WRONG_INTEGERS, ids=repr)
def test_amounts_and_numbers_are_positive_integers_of_32_bits(wrong: Any) -> None:
    """A boolean, a fraction, a text, 0 and what does not fit are refused, naming the field."""
    makers: list[tuple[str, Callable[[], Command]]] = [
        ("amount", lambda: grant(WHO, wrong)),
        ("amount", lambda: spend(WHO, wrong)),
        ("amount", lambda: open_hold(WHO, wrong)),
        ("amount", lambda: capture(WHO, 1, wrong)),
        ("hold_seq", lambda: capture(WHO, wrong, 1)),
        ("hold_seq", lambda: release(WHO, wrong)),
        ("hold_seq", lambda: renew(WHO, wrong, 60)),
        ("expires_in_seconds", lambda: open_hold(WHO, 1, wrong)),
        ("expires_in_seconds", lambda: renew(WHO, 1, wrong)),
    ]
    if wrong != -1:
        makers.append(("amount", lambda: adjust(WHO, wrong)))
    for field, make in makers:
        with pytest.raises(Invalid) as caught:
            make()
        assert (caught.value.error_type, caught.value.details["field"]) == (
            "VALIDATION_ERROR",
            field,
        )


@pytest.mark.parametrize(
    ("field", "kind", "values"),
    [
        ("key", Spend, {"key": ""}),
        ("key", Spend, {"key": "k" * 256}),
        ("key", Spend, {"key": "a\x00b"}),
        ("key", Spend, {"key": "\ud800"}),
        ("key", Spend, {"key": "~mine"}),
        ("key", Spend, {"key": "~mine", "actor": "user:1"}),
        ("key", Spend, {"key": "~lot_expiry:4", "actor": "system:application"}),
        ("key", Grant, {"key": "~purchase:cs_1", "actor": "system:stripe"}),
        *[("actor", Spend, {"actor": actor}) for actor in sorted(OWN_ACTORS)],
        *[("source", Grant, {"source": source}) for source in ("purchase", "opening", "garbage")],
        ("source", Grant, {"source": LotSource.PURCHASE}),
        ("source", Grant, {"source": LotSource.OPENING}),
        ("actor", Spend, {"actor": ""}),
        ("reference", Spend, {"reference": ""}),
        ("reference", Spend, {"reference": "r" * 256}),
        ("reference", Spend, {"reference": "half \udc00 a character"}),
        ("reason", Adjust, {"reason": ""}),
        ("metadata", Spend, {"metadata": {"x": "y" * 16_384}}),
        ("metadata", Spend, {"metadata": {"x": "ü" * 8_190}}),
        ("metadata", Spend, {"metadata": {"x": float("nan")}}),
        ("metadata", Spend, {"metadata": {"x": object()}}),
        ("metadata", Spend, {"metadata": {"x": "\x00"}}),
        ("metadata", Spend, {"metadata": {"x": "\ud800"}}),
        ("priority", Grant, {"priority": -1}),
        ("priority", Grant, {"priority": 32_768}),
        ("priority", Grant, {"priority": True}),
        ("expires_at", Grant, {"expires_at": START.replace(tzinfo=None)}),
        ("expires_at", Grant, {"expires_at": START.replace(year=9999)}),
        ("transaction_id", Grant, {"transaction_id": WHO}),
        ("hold_seq", Release, {"hold_seq": 0}),
        ("expires_in_seconds", OpenHold, {"expires_in_seconds": HOLD_SECONDS_MAX + 1}),
        ("expires_in_seconds", Renew, {"expires_in_seconds": HOLD_SECONDS_MAX + 1, "hold_seq": 1}),
        ("if_expired", Capture, {"hold_seq": 1, "if_expired": "maybe"}),
        ("final", Capture, {"hold_seq": 1, "final": 1}),
    ],
)
def test_a_wrong_field_is_refused_when_the_command_is_made(
    field: str, kind: type[Command], values: dict[str, Any]
) -> None:
    """VALIDATION_ERROR that names it, before any database is asked."""
    given: dict[str, Any] = {"user_id": WHO, "key": "k", "actor": "key:tests"}
    if "amount" in kind.__struct_fields__:
        given["amount"] = 1
    if kind is Adjust:
        given["reason"] = "why"
    with pytest.raises(Invalid) as caught:
        kind(**{**given, **values})
    assert caught.value.error_type == "VALIDATION_ERROR"
    assert caught.value.details["field"] == field


def test_the_widest_values_are_accepted_and_stored(db: Session) -> None:
    """Every limit is a value that still works, on the database too."""
    who = make_user(db).user_id
    full = {"x": "y" * (16_384 - len('{"x": ""}'))}
    texts: dict[str, Any] = {"key": "🗝" * 255, "reference": "ä" * 255, "metadata": full}
    widest = grant(who, AMOUNT_MAX, priority=32_767, expires_at=START.replace(year=9998), **texts)
    assert do(db, widest).balance == AMOUNT_MAX
    assert do(db, widest).replayed
    assert refused(db, grant(who, 1)) == "BALANCE_LIMIT_EXCEEDED"
    do(db, open_hold(who, 10, HOLD_SECONDS_MAX))
    assert refused(db, adjust(who, 1)) == "BALANCE_LIMIT_EXCEEDED"
    do(db, adjust(who, 10 - AMOUNT_MAX))
    check_books(db)


def test_the_number_of_open_holds_is_limited(db: Session) -> None:
    """TOO_MANY_HOLDS; an expired one makes room without a worker."""
    who = make_user(db, 200, now=at(0)).user_id
    holds = [open_hold(who, 1, 60 + n) for n in range(OPEN_HOLDS_MAX)]
    execute(db, holds, now=at(0))
    with pytest.raises(Conflict) as caught:
        do(db, open_hold(who, 1))
    assert caught.value.error_type == "TOO_MANY_HOLDS"
    assert not do(db, open_hold(who, 1), 60).replayed
    check_books(db)
