"""Asking and deciding, one after the other."""

import datetime as dt
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from src.common.accounts.operations import erase_user, set_active
from src.common.approvals import async_operations, operations, queries
from src.common.approvals.asking import Asked
from src.common.approvals.operations import execute_or_ask
from src.common.approvals.queries import find_approval, list_approvals
from src.common.approvals.rules import ApprovalStatus, Limits
from src.common.credits.domain.commands import Result
from src.common.credits.domain.own_commands import ByHand, approval_key
from src.common.credits.domain.views import Preview
from src.common.credits.operations import execute
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.approval import ERASURE_ACTOR, Approval
from src.common.models.credit_entry import CreditEntry
from tests.approvals.requests import (
    ADA,
    GRACE,
    LIMITS,
    NOTHING_ALONE,
    a_grant,
    a_release,
    a_reversal,
    an_adjustment,
    asked,
    refused,
)
from tests.credits.books import (
    booked_balance,
    capture,
    check_books,
    journal,
    make_user,
    open_hold,
    spend,
)
from tests.credits.clock import set_clock, settable_clock

MICROSECOND = dt.timedelta(microseconds=1)


@pytest.fixture
def who(db: Session) -> uuid.UUID:
    """A user with 200 credits, 50 of a grant of 250 spent."""
    user = make_user(db, 250)
    execute(db, [spend(user.user_id, 50)])
    db.commit()
    return user.user_id


ASKED: dict[str, tuple[Callable[[uuid.UUID], ByHand], str, int]] = {
    "a grant": (lambda who: a_grant(who, 500), "grant", 500),
    "credits to add": (lambda who: an_adjustment(who, 101), "adjustment", 101),
    "credits to take": (lambda who: an_adjustment(who, -120), "adjustment", -120),
    "a reversal": (lambda who: a_reversal(who, 2), "reversal", 50),
}


@pytest.mark.parametrize("name", ASKED)
def test_consent_does_what_was_asked_for_once(db: Session, who: uuid.UUID, name: str) -> None:
    """By the entry with the request's key and the requester as actor; a second click adds none."""
    make, kind, amount = ASKED[name]
    request = asked(db, make(who)).approval
    assert booked_balance(db, who) == 200, "nothing was done yet"
    for _ in range(2):
        operations.consent(db, request.approval_id, decider=GRACE, note="fine")
        db.commit()
    assert journal(db, who)[2:] == [(kind, amount)]
    found = find_approval(db, request.approval_id)
    assert (found.status, found.entry_seq) == (ApprovalStatus.CONSENTED, 3)
    assert (found.approval.decider, found.approval.note) == (GRACE, "fine")
    entry = db.get_one(CreditEntry, (who, 3))
    assert (entry.actor, entry.idempotency_key) == (ADA, approval_key(request.approval_id))
    check_books(db)


@pytest.mark.parametrize("name", ASKED)
def test_what_consent_would_do_is_what_it_does(db: Session, who: uuid.UUID, name: str) -> None:
    """The preview has the same entry, and changes nothing."""
    request = asked(db, ASKED[name][0](who)).approval
    foreseen = queries.preview(db, find_approval(db, request.approval_id))
    assert isinstance(foreseen, Preview)
    operations.consent(db, request.approval_id, decider=GRACE)
    entry = db.get_one(CreditEntry, (who, 3))
    assert foreseen.result.amount == entry.amount
    assert foreseen.result.balance == entry.result_balance


def test_the_same_key_asks_once(db: Session, who: uuid.UUID) -> None:
    """Another request with it is refused; so is one with the key of what was done at once."""
    command = a_grant(who, 500, key="gift")
    first, again = (asked(db, command) for _ in range(2))
    assert first.approval.approval_id == again.approval.approval_id
    assert (first.replayed, again.replayed) == (False, True)
    other = a_grant(who, 501, key="gift")
    assert refused(lambda: execute_or_ask(db, other, NOTHING_ALONE)) == "IDEMPOTENCY_KEY_REUSED"
    done = execute_or_ask(db, a_grant(who, 1, key="small"), LIMITS)
    assert isinstance(done, Result)
    small = a_grant(who, 500, key="small")
    assert refused(lambda: execute_or_ask(db, small, LIMITS)) == "IDEMPOTENCY_KEY_REUSED"


@pytest.mark.parametrize("limits", [NOTHING_ALONE, None])
def test_the_key_of_what_there_was_consent_to_gives_nothing_again(
    db: Session, who: uuid.UUID, limits: Limits | None
) -> None:
    """Whoever asked repeats it and is told of the entry, with the rule in force or not."""
    command = a_grant(who, 500, key="gift")
    approval_id = asked(db, command).approval.approval_id
    assert isinstance(execute_or_ask(db, command, limits), Asked)
    assert booked_balance(db, who) == 200
    operations.consent(db, approval_id, decider=GRACE)
    again = execute_or_ask(db, command, limits)
    assert isinstance(again, Result)
    assert (again.seq, again.amount, again.replayed) == (
        find_approval(db, approval_id).entry_seq,
        500,
        True,
    )
    assert booked_balance(db, who) == 700


@pytest.mark.parametrize("limits", [NOTHING_ALONE, None])
def test_the_key_of_what_is_never_done_is_spent(
    db: Session, who: uuid.UUID, limits: Limits | None
) -> None:
    """Refused, withdrawn, expired: it is asked for anew with another key, and says so."""
    for number, decide in enumerate((operations.refuse, operations.withdraw)):
        command = a_grant(who, 500, key=f"gift {number}")
        decider = GRACE if decide is operations.refuse else ADA
        decide(db, asked(db, command).approval.approval_id, decider=decider)
        assert refused(partial(execute_or_ask, db, command, limits)) == "APPROVAL_DECIDED"
    late = a_grant(who, 500, key="late")
    at_once = replace(NOTHING_ALONE, lifetime=dt.timedelta(microseconds=1))
    asked(db, late, at_once)
    assert refused(partial(execute_or_ask, db, late, limits)) == "APPROVAL_EXPIRED"
    assert booked_balance(db, who) == 200


def test_what_was_done_alone_is_replayed_whatever_the_limit_is_by_now(
    db: Session, who: uuid.UUID
) -> None:
    """It counts against the limit itself, and is no second gift."""
    command = a_grant(who, 100, key="gift")
    first, again = (execute_or_ask(db, command, LIMITS) for _ in range(2))
    assert isinstance(first, Result)
    assert isinstance(again, Result)
    assert (again.seq, again.replayed) == (first.seq, True)
    stricter = execute_or_ask(db, command, NOTHING_ALONE)
    assert isinstance(stricter, Result)


def test_many_small_gifts_are_a_large_one(db: Session, who: uuid.UUID) -> None:
    """Grants, adjustments and reversals of one person to one user within a day count together."""
    for command in (a_grant(who, 60), an_adjustment(who, 20), a_reversal(who, 2, 20)):
        assert isinstance(execute_or_ask(db, command, LIMITS), Result)
    over = asked(db, a_grant(who, 1), LIMITS).approval
    assert isinstance(execute_or_ask(db, a_grant(who, 100, actor=GRACE), LIMITS), Result)
    other = make_user(db)
    assert isinstance(execute_or_ask(db, a_grant(other.user_id, 100), LIMITS), Result)
    operations.consent(db, over.approval_id, decider=GRACE)
    asked(db, a_grant(who, 1), LIMITS)


def test_releasing_a_hold_is_giving(db: Session, who: uuid.UUID) -> None:
    """It counts with gifts; above the limit another consents, and what is left comes back once."""
    holds = [execute(db, [open_hold(who, amount)])[0].seq for amount in (60, 40, 50)]
    for seq in holds[:2]:
        assert isinstance(execute_or_ask(db, a_release(who, seq), LIMITS), Result)
    request = asked(db, a_release(who, holds[2]), LIMITS).approval
    asked(db, a_grant(who, 1), LIMITS)
    execute(db, [capture(who, holds[2], 10, final=False)])
    for _ in range(2):
        operations.consent(db, request.approval_id, decider=GRACE)
    assert journal(db, who)[-2:] == [("capture", 0), ("release", 40)]
    again = execute_or_ask(db, a_release(who, holds[2], key=request.idempotency_key), LIMITS)
    assert isinstance(again, Result)
    assert (again.amount, again.replayed) == (40, True)
    assert booked_balance(db, who) == 190
    check_books(db)


def test_what_was_consented_to_does_not_count(db: Session, who: uuid.UUID) -> None:
    """Whoever had consent for a large gift may still give a small one."""
    request = asked(db, a_grant(who, 5_000), LIMITS).approval
    operations.consent(db, request.approval_id, decider=GRACE)
    assert isinstance(execute_or_ask(db, a_grant(who, 100), LIMITS), Result)


def test_what_is_taken_is_summed_apart(db: Session, who: uuid.UUID) -> None:
    """Giving does not use up what may be taken; undoing one's own gift is neither."""
    given = execute_or_ask(db, a_grant(who, 100), LIMITS)
    assert isinstance(given, Result)
    assert isinstance(execute_or_ask(db, a_reversal(who, given.seq), LIMITS), Result)
    assert isinstance(execute_or_ask(db, an_adjustment(who, -100), LIMITS), Result)
    asked(db, an_adjustment(who, -1), LIMITS)
    asked(db, a_grant(who, 1), LIMITS)


def test_yesterday_s_gifts_do_not_count(db: Session, who: uuid.UUID) -> None:
    """A day after them, to the microsecond; before that they do."""
    bind = db.connection()
    with settable_clock(bind):
        execute_or_ask(db, a_grant(who, 100), LIMITS)
        booked_at = db.scalars(select(func.max(CreditEntry.created_at))).one()
        set_clock(db, booked_at + dt.timedelta(days=1))
        request = asked(db, a_grant(who, 1), LIMITS).approval
        set_clock(db, booked_at + dt.timedelta(days=1) + MICROSECOND)
        assert not operations.takes_consent(db, a_grant(who, 1), 1, LIMITS)
    assert request.requester == ADA


def test_what_is_refused_now_is_not_asked_for(db: Session, who: uuid.UUID) -> None:
    """Nobody has to find out for another what cannot be done; nor what it is for."""
    take = an_adjustment(who, -201)
    assert refused(lambda: execute_or_ask(db, take, NOTHING_ALONE)) == "INSUFFICIENT_CREDITS"
    nobody = a_grant(uuid.uuid4())
    assert refused(lambda: execute_or_ask(db, nobody, NOTHING_ALONE)) == "USER_NOT_FOUND"
    silent = a_grant(who, reference=None)
    assert refused(lambda: execute_or_ask(db, silent, NOTHING_ALONE)) == "VALIDATION_ERROR"
    noted = a_grant(who, metadata={"a": 1})
    assert refused(lambda: execute_or_ask(db, noted, NOTHING_ALONE)) == "VALIDATION_ERROR"
    assert db.scalars(select(func.count()).select_from(Approval)).one() == 0


def test_a_balance_that_became_too_small_leaves_the_request_open(
    db: Session, who: uuid.UUID
) -> None:
    """Refused in words; once there is enough again, the same consent does it."""
    request = asked(db, an_adjustment(who, -150)).approval
    execute(db, [spend(who, 100)])
    state = find_approval(db, request.approval_id)
    assert refused(lambda: queries.preview(db, state)) == "INSUFFICIENT_CREDITS"
    consent = partial(operations.consent, db, request.approval_id, decider=GRACE)
    assert refused(consent) == "INSUFFICIENT_CREDITS"
    assert find_approval(db, request.approval_id).status is ApprovalStatus.OPEN
    execute(db, [a_grant(who, 100)])
    consent()
    assert booked_balance(db, who) == 50


def test_what_was_done_meanwhile_without_consent_is_not_done_again(
    db: Session, who: uuid.UUID
) -> None:
    """Somebody took the rule away, and ran the command again with its key."""
    command = a_grant(who, 500)
    request = asked(db, command).approval
    execute(db, [command])
    consent = partial(operations.consent, db, request.approval_id, decider=GRACE)
    assert refused(consent) == "IDEMPOTENCY_KEY_REUSED"
    assert booked_balance(db, who) == 700


def test_an_inactive_user_is_given_to_as_without_a_request(db: Session, who: uuid.UUID) -> None:
    """The ledger's rules are the same with consent: no grant is refused to an inactive user."""
    request = asked(db, a_grant(who, 500)).approval
    set_active(db, who, is_active=False)
    operations.consent(db, request.approval_id, decider=GRACE)
    assert booked_balance(db, who) == 700


def test_an_erasure_withdraws_what_is_open_and_forgets_why(db: Session, who: uuid.UUID) -> None:
    """Nobody decides any more about who is gone; what was decided stays, without its texts."""
    first = asked(db, a_grant(who, 500)).approval
    operations.refuse(db, first.approval_id, decider=GRACE, note="for Ada Lovelace?")
    second = asked(db, a_grant(who, 500)).approval
    erase_user(db, who)
    db.expire_all()
    states = [find_approval(db, each.approval_id) for each in (first, second)]
    assert [state.status for state in states] == ["refused", "withdrawn"]
    assert [state.approval.decider for state in states] == [GRACE, ERASURE_ACTOR]
    assert {(state.approval.reason, state.approval.note) for state in states} == {(None, None)}
    late = partial(operations.consent, db, second.approval_id, decider=GRACE)
    assert refused(late) == "APPROVAL_DECIDED"


def test_an_erasure_forgets_why_of_what_has_expired(db: Session, who: uuid.UUID) -> None:
    """It stays expired: nobody withdraws what nobody can decide about."""
    with settable_clock(db.connection()):
        set_clock(db, dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
        request = asked(db, a_grant(who, 500)).approval
    erase_user(db, who)
    db.expire_all()
    found = find_approval(db, request.approval_id)
    assert (found.status, found.approval.reason) == ("expired", None)


@pytest.mark.parametrize("early", [False, True])
def test_the_expiry_is_exact(db: Session, who: uuid.UUID, *, early: bool) -> None:
    """A microsecond before it there is consent, at the instant there is none."""
    begun = db.execute(text("SELECT transaction_timestamp()")).scalar_one()
    expires_at = begun + MICROSECOND
    with settable_clock(db.connection()):
        set_clock(db, expires_at - NOTHING_ALONE.lifetime)
        request = asked(db, a_grant(who, 500)).approval
        assert request.expires_at == expires_at
        set_clock(db, expires_at - MICROSECOND if early else expires_at)
        states = {
            status: [each.approval for each in list_approvals(db, status=status).items]
            for status in ApprovalStatus
        }
        found = find_approval(db, request.approval_id)
        assert {status for status, rows in states.items() if rows} == {found.status}
        if early:
            operations.consent(db, request.approval_id, decider=GRACE)
        else:
            late = partial(operations.consent, db, request.approval_id, decider=GRACE)
            assert refused(late) == "APPROVAL_EXPIRED"
    assert found.status == ("open" if early else "expired")
    assert booked_balance(db, who) == (700 if early else 200)


def test_what_this_release_cannot_read_is_shown_and_refused(db: Session, who: uuid.UUID) -> None:
    """It can be refused by hand; consent says why it does nothing."""
    request = asked(db, a_grant(who, 500)).approval
    db.execute(text("ALTER TABLE approvals DISABLE TRIGGER USER"))
    newer = {"operation": "grant", "version": 2, "amount": 500}
    db.execute(update(Approval).values(command=newer))
    db.execute(text("ALTER TABLE approvals ENABLE TRIGGER USER"))
    state = find_approval(db, request.approval_id)
    assert (state.form, state.approval.command) == (None, newer)
    assert refused(lambda: queries.preview(db, state)) == "APPROVAL_UNREADABLE"
    consent = partial(operations.consent, db, request.approval_id, decider=GRACE)
    assert refused(consent) == "APPROVAL_UNREADABLE"
    operations.refuse(db, request.approval_id, decider=GRACE)
    assert find_approval(db, request.approval_id).status is ApprovalStatus.REFUSED


def test_pages_have_each_request_once_newest_first(db: Session, who: uuid.UUID) -> None:
    """Of one user, and of everybody."""
    other = make_user(db).user_id
    made = [asked(db, a_grant(each, 500)).approval.approval_id for each in (who, other, who)]
    seen: list[uuid.UUID] = []
    cursor: str | None = None
    while True:
        page = list_approvals(db, cursor=cursor, limit=2)
        seen += [each.approval.approval_id for each in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == made[::-1]
    of_user = list_approvals(db, user_id=who).items
    assert [each.approval.approval_id for each in of_user] == [made[2], made[0]]
    assert refused(lambda: list_approvals(db, cursor="?")) == "VALIDATION_ERROR"


def test_nobody_decides_about_what_nobody_asked(db: Session) -> None:
    """Each operation says so."""
    for decide in (operations.consent, operations.refuse, operations.withdraw):
        assert refused(partial(decide, db, uuid.uuid4(), decider=GRACE)) == "APPROVAL_NOT_FOUND"
    assert refused(lambda: find_approval(db, uuid.uuid4())) == "APPROVAL_NOT_FOUND"


async def test_async_callers_have_the_same(async_db: AsyncSession) -> None:
    """Asked, consented to, refused the second time to another."""
    user = await async_db.run_sync(make_user)
    made = await async_operations.execute_or_ask(async_db, a_grant(user.user_id), NOTHING_ALONE)
    assert isinstance(made, Asked)
    approval_id = made.approval.approval_id
    await async_operations.consent(async_db, approval_id, decider=GRACE)
    assert await async_db.run_sync(booked_balance, user.user_id) == 500
    with pytest.raises(ExceptionWithErrorType, match="consented"):
        await async_operations.refuse(async_db, approval_id, decider="user:mary")


def test_what_waits_is_counted(db: Session, who: uuid.UUID) -> None:
    """Open requests and the oldest of them; decided and expired ones do not wait."""
    assert queries.count_waiting(db) == queries.Waiting(
        open=0, oldest_seconds=0, refunds=0, oldest_refund_seconds=0
    )
    with settable_clock(db.connection()):
        set_clock(db, dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
        asked(db, a_grant(who, 500))
        first = asked(db, a_grant(who, 500), NOTHING_ALONE).approval
        assert queries.count_waiting(db).open == 2
    assert queries.count_waiting(db).open == 0, f"{first.expires_at} is over"
    asked(db, a_grant(who, 500))
    waiting = queries.count_waiting(db)
    assert (waiting.open, waiting.oldest_seconds < 600) == (1, True)
