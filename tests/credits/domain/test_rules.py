"""The pure rules alone, every branch of them: lists in, decisions out (rules 5 to 8)."""

import datetime as dt
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.common.credits.domain import rules, steps
from src.common.credits.domain.book import Book, Hold, Lot
from src.common.credits.domain.commands import AMOUNT_MAX, Command, Result
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.credit_entry import EntryKind
from src.common.models.credit_hold import HoldStatus
from src.common.models.credit_lot import LotSource
from tests.credits.books import adjust, capture, grant, open_hold, release, renew, spend

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
USER = uuid.uuid4()


def after(seconds: float) -> dt.datetime:
    """An instant so many seconds from now."""
    return NOW + dt.timedelta(seconds=seconds)


def book_of(*lots: Lot, debts: dict[int, int] | None = None, is_active: bool = True) -> Book:
    """Settled books with these lots, at version 100."""
    balance = sum(lot.remaining for lot in lots)
    book = Book(USER, balance, 100, is_active, NOW, debts=debts or {})
    book.lots = {lot.seq: lot for lot in lots}
    return book


def lot(seq: int, remaining: int, *, priority: int = 100, dies: float | None = None) -> Lot:
    """A lot with something left."""
    expires_at = None if dies is None else after(dies)
    return Lot(seq, LotSource.PROMO, priority, 1_000, expires_at, remaining, seq)


def add_hold(book: Book, seq: int, taken: dict[int, int], **others: Any) -> Hold:
    """An open hold that took so much from these lots; without saying so it is due in an hour."""
    facts: dict[str, Any] = {"captured": 0, "status": HoldStatus.OPEN, "expires_at": after(3600)}
    facts |= {"amount": sum(taken.values()), "allocations": taken}
    book.holds[seq] = Hold(seq=seq, **(facts | others))
    return book.holds[seq]


def ask(book: Book, command: Command, *, open_holds_max: int = 100) -> Result:
    """Put a command to books, settled first."""
    result = rules.apply(rules.settle(book), command, open_holds_max=open_holds_max)
    assert book.is_changed
    return result


def refusal(book: Book, command: Command, *, open_holds_max: int = 100) -> str:
    """What a command is refused with; nothing is written."""
    before = repr(rules.settle(book))
    with pytest.raises(ExceptionWithErrorType) as caught:
        ask(book, command, open_holds_max=open_holds_max)
    assert repr(book) == before
    return caught.value.error_type


def lines(book: Book) -> list[tuple[str, dict[int, int]]]:
    """The entries written: kind, and what each lot gained or lost."""
    return [
        (str(entry.kind), {line.lot_seq: line.amount for line in entry.postings})
        for entry in book.entries
    ]


def instants(book: Book) -> list[tuple[str, float]]:
    """The entries written: kind, and from which second they count."""
    return [(str(entry.kind), (entry.effective_at - NOW).total_seconds()) for entry in book.entries]


def test_burn_order_is_priority_then_expiry_then_age() -> None:
    """The lower priority first, then what dies sooner, what never dies last, then the older."""
    book = book_of(
        lot(1, 10),
        lot(2, 10, dies=50),
        lot(3, 10, dies=20),
        lot(4, 10, priority=10),
        lot(5, 10),
        lot(6, 10, priority=10, dies=900),
    )
    ask(book, spend(USER, 60))
    assert list(lines(book)[0][1]) == [6, 4, 3, 2, 1, 5]


def test_a_spend_takes_the_last_lot_in_part() -> None:
    """As much as is needed and nothing from the lots behind."""
    book = book_of(lot(1, 10), lot(2, 10), lot(3, 10))
    result = ask(book, spend(USER, 15))
    assert lines(book) == [("spend", {1: -10, 2: -5})]
    assert (result.amount, result.balance, book.balance) == (-15, 15, 15)


@given(st.lists(st.integers(1, 50), max_size=8), st.integers(0, 400))
def test_burning_takes_just_the_amount_or_all_there_is(remaining: list[int], amount: int) -> None:
    """Never more than a lot holds, never a line of nothing."""
    taken = steps.burn([lot(1 + n, left) for n, left in enumerate(remaining)], amount)
    assert -sum(line for _, line in taken) == min(amount, sum(remaining))
    assert all(0 < -line <= each.remaining for each, line in taken)


@pytest.mark.parametrize("balance", [0, 9])
def test_nobody_spends_what_is_not_there(balance: int) -> None:
    """Spends, holds and downward adjustments of more than the balance are refused."""
    book = book_of(lot(1, balance))
    for command in (spend(USER, 10), open_hold(USER, 10), adjust(USER, -10)):
        assert refusal(book, command) == "INSUFFICIENT_CREDITS"


def test_an_inactive_account_neither_spends_nor_holds() -> None:
    """Before funds are looked at; all else is done for it (rule 11)."""
    book = book_of(lot(1, 10), is_active=False)
    assert refusal(book, spend(USER, 11)) == "USER_INACTIVE"
    assert refusal(book, open_hold(USER, 11)) == "USER_INACTIVE"
    add_hold(book, 2, {1: 5})
    add_hold(book, 3, {1: 5}, status=HoldStatus.EXPIRED)
    for command in (
        renew(USER, 2, 60),
        capture(USER, 2, 1, final=False),
        release(USER, 2),
        capture(USER, 3, 1, if_expired="retake"),
        grant(USER, 1),
        adjust(USER, 1),
        adjust(USER, -1),
    ):
        ask(book, command)
    assert book.balance == 10 + 4 - 1 + 1 + 1 - 1


def test_a_grant_has_its_sources_priority_unless_it_says_another() -> None:
    """Promotional credits go first; 0 is a priority too."""
    book = book_of()
    for source, priority, expected in (
        (LotSource.PROMO, None, 10),
        (LotSource.SUBSCRIPTION, None, 50),
        (LotSource.ADJUSTMENT, None, 100),
        (LotSource.PROMO, 0, 0),
        (LotSource.PROMO, 7, 7),
    ):
        seq = ask(book, grant(USER, 5, source=source, priority=priority)).seq
        assert (book.lots[seq].priority, book.lots[seq].source) == (expected, source)


def test_a_lot_must_die_later() -> None:
    """At this very instant is too early, a microsecond later is not."""
    book = book_of()
    for dies in (-1, 0):
        assert refusal(book, grant(USER, 5, expires_at=after(dies))) == "VALIDATION_ERROR"
    seq = ask(book, grant(USER, 5, expires_at=after(0.000001))).seq
    assert book.lots[seq].expires_at == after(0.000001)
    assert book.balance == 5


def test_balance_and_holds_fit_the_column_together() -> None:
    """What is held may come back; at the limit exactly it still fits."""
    book = book_of(lot(1, AMOUNT_MAX - 30))
    add_hold(book, 2, {1: 20}, captured=5)
    for command in (grant(USER, 16), adjust(USER, 16)):
        assert refusal(book, command) == "BALANCE_LIMIT_EXCEEDED"
    ask(book, adjust(USER, 15))
    assert book.balance + book.held == AMOUNT_MAX


def test_an_adjustment_up_makes_a_lot_that_never_dies() -> None:
    """It burns with what was paid for; down burns like a spend. The reason is its reference."""
    book = book_of(lot(1, 10))
    seq = ask(book, adjust(USER, 5, reason="sorry")).seq
    ask(book, adjust(USER, -12))
    made = book.lots[seq]
    assert (made.source, made.priority, made.expires_at) == (LotSource.ADJUSTMENT, 100, None)
    assert lines(book) == [("adjustment", {101: 5}), ("adjustment", {1: -10, 101: -2})]
    assert book.entries[0].reference == "sorry"
    assert book.lots[ask(book, adjust(USER, 1)).seq].granted == 1


def test_a_hold_is_a_withdrawal() -> None:
    """Out of the balance lot by lot; it knows from where, and until when."""
    book = book_of(lot(1, 10), lot(2, 10))
    result = ask(book, open_hold(USER, 15, 60))
    hold = book.holds[result.seq]
    assert (result.balance, result.expires_at, hold.allocations) == (5, after(60), {1: 10, 2: 5})
    assert (hold.status, book.new_holds, book.held) == (HoldStatus.OPEN, frozenset({101}), 15)


def test_open_holds_are_limited() -> None:
    """One more than anybody may have is refused; closed ones do not count."""
    book = book_of(lot(1, 10))
    add_hold(book, 2, {1: 1}, status=HoldStatus.RELEASED)
    ask(book, open_hold(USER, 1), open_holds_max=1)
    for most in (0, 1):
        assert refusal(book, open_hold(USER, 1), open_holds_max=most) == "TOO_MANY_HOLDS"


def test_a_final_capture_returns_the_rest() -> None:
    """The hold is captured, the rest is back where it came from."""
    book = book_of(lot(1, 0))
    hold = add_hold(book, 2, {1: 10})
    result = ask(book, capture(USER, 2, 4))
    assert (result.amount, result.captured, hold.status) == (6, 4, HoldStatus.CAPTURED)
    assert (lines(book), book.changed_holds) == ([("capture", {1: 6})], frozenset({2}))


def test_a_partial_capture_leaves_the_hold_open_until_nothing_is_left() -> None:
    """Capturing all of it closes it, called final or not."""
    book = book_of(lot(1, 0))
    hold = add_hold(book, 2, {1: 10})
    assert ask(book, capture(USER, 2, 4, final=False)).amount == 0
    assert (hold.status, hold.captured) == (HoldStatus.OPEN, 4)
    assert refusal(book, capture(USER, 2, 7)) == "CAPTURE_EXCEEDS_HOLD"
    assert ask(book, capture(USER, 2, 6, final=False)).amount == 0
    assert (hold.status, hold.captured) == (HoldStatus.CAPTURED, 10)


def test_captured_credits_count_off_in_burn_order() -> None:
    """What burns first is kept first, whatever the order of the lots' numbers."""
    book = book_of(lot(1, 0), lot(2, 0, priority=10), lot(3, 0, dies=900))
    add_hold(book, 4, {1: 10, 2: 10, 3: 10})
    ask(book, capture(USER, 4, 15))
    assert lines(book) == [("capture", {3: 5, 1: 10})]


def test_a_release_returns_what_was_not_captured() -> None:
    """To the lots it came from."""
    book = book_of(lot(1, 0), lot(2, 0))
    hold = add_hold(book, 3, {1: 10, 2: 5}, captured=12)
    result = ask(book, release(USER, 3))
    assert (result.amount, result.captured, lines(book)) == (3, 0, [("release", {2: 3})])
    assert (hold.status, hold.captured) == (HoldStatus.RELEASED, 12)


def test_a_renewal_counts_from_now() -> None:
    """Sooner than before too; it moves no credits."""
    book = book_of(lot(1, 0))
    hold = add_hold(book, 2, {1: 10})
    result = ask(book, renew(USER, 2, 60))
    assert (result.amount, result.expires_at, hold.expires_at) == (0, after(60), after(60))


@pytest.mark.parametrize(
    ("status", "error_type"),
    [
        (HoldStatus.CAPTURED, "HOLD_CLOSED"),
        (HoldStatus.RELEASED, "HOLD_CLOSED"),
        (HoldStatus.EXPIRED, "HOLD_EXPIRED"),
    ],
)
def test_a_closed_hold_stays_closed(status: HoldStatus, error_type: str) -> None:
    """Nothing is captured, released or renewed any more; retaking is for expired ones alone."""
    book = book_of(lot(1, 50))
    add_hold(book, 2, {1: 10}, status=status)
    for command in (capture(USER, 2, 1), release(USER, 2), renew(USER, 2, 60)):
        assert refusal(book, command) == error_type
    if status is not HoldStatus.EXPIRED:
        assert refusal(book, capture(USER, 2, 1, if_expired="retake")) == error_type


def test_no_hold_no_capture() -> None:
    """HOLD_NOT_FOUND, also for the number of a lot."""
    book = book_of(lot(1, 50))
    for command in (capture(USER, 1, 1), release(USER, 1), renew(USER, 9, 60)):
        assert refusal(book, command) == "HOLD_NOT_FOUND"


def test_a_late_capture_is_a_spend_from_todays_lots() -> None:
    """Of at most what was not captured, and of what is there; it adds to what the hold kept."""
    book = book_of(lot(1, 0), lot(2, 8))
    hold = add_hold(book, 3, {1: 10}, status=HoldStatus.EXPIRED, captured=1)
    assert refusal(book, capture(USER, 3, 10, if_expired="retake")) == "CAPTURE_EXCEEDS_HOLD"
    assert refusal(book, capture(USER, 3, 9, if_expired="retake")) == "INSUFFICIENT_CREDITS"
    result = ask(book, capture(USER, 3, 8, if_expired="retake"))
    assert (result.kind, result.amount, result.captured) == ("spend", -8, 8)
    assert (book.entries[0].related_seq, lines(book)) == (3, [("spend", {2: -8})])
    assert (hold.captured, hold.status) == (9, HoldStatus.EXPIRED)


def test_an_open_hold_is_not_retaken() -> None:
    """`retake` on a hold in time is a plain capture."""
    book = book_of(lot(1, 0))
    add_hold(book, 2, {1: 10})
    assert ask(book, capture(USER, 2, 10, if_expired="retake")).kind == "capture"


def test_settling_follows_the_instants() -> None:
    """Each entry counts from its own instant, in their order; what is not due stays."""
    book = book_of(lot(1, 5, dies=-30), lot(2, 0, dies=-5), lot(3, 7, dies=1), lot(4, 3))
    add_hold(book, 5, {4: 2}, expires_at=after(-20))
    add_hold(book, 6, {4: 2}, expires_at=after(-40))
    add_hold(book, 7, {4: 2}, expires_at=after(1))
    add_hold(book, 8, {4: 2}, expires_at=after(-50), status=HoldStatus.RELEASED)
    rules.settle(book)
    assert instants(book) == [("hold_expiry", -40), ("lot_expiry", -30), ("hold_expiry", -20)]
    assert [(entry.related_seq, entry.captured) for entry in book.entries[::2]] == [(6, 0), (5, 0)]
    assert book.changed_holds == {5, 6}
    assert (book.balance, book.held) == (7 + 3 + 4, 2)
    assert {entry.created_at for entry in book.entries} == {NOW}


def test_due_is_due_at_its_very_instant() -> None:
    """Dead when `expires_at <= t`; a microsecond before, alive."""
    book = book_of(lot(1, 5, dies=0), lot(2, 5, dies=0.000001))
    add_hold(book, 3, {2: 1}, expires_at=after(0))
    add_hold(book, 4, {2: 1}, expires_at=after(0.000001))
    rules.settle(book)
    assert lines(book) == [("hold_expiry", {2: 1}), ("lot_expiry", {1: -5})]
    alone = book_of(lot(1, 5, dies=0))
    rules.settle(alone)
    assert lines(alone) == [("lot_expiry", {1: -5})]


def test_at_the_same_instant_holds_come_before_lots() -> None:
    """So that what a hold gives back can still repay a debt before its lot takes it away."""
    book = book_of(lot(1, 0, dies=-10), lot(2, 4, dies=-10))
    add_hold(book, 9, {1: 6}, expires_at=after(-10))
    rules.settle(book)
    assert [kind for kind, _ in lines(book)] == ["hold_expiry", "lot_expiry", "lot_expiry"]
    assert book.balance == 0


def test_what_comes_back_to_a_dead_lot_repays_debts_and_then_expires() -> None:
    """In the same operation: at a release, a final capture, a hold's expiry."""
    for give_back in (release(USER, 9), capture(USER, 9, 1)):
        book = book_of(lot(1, 0, dies=-10), debts={1: 4})
        add_hold(book, 9, {1: 11}, captured=0 if give_back.kind is EntryKind.CAPTURE else 1)
        result = ask(book, give_back)
        assert lines(book)[1:] == [("debt_repayment", {1: -4}), ("lot_expiry", {1: -6})]
        assert (result.amount, result.balance, book.debt) == (10, 0, 0)
    book = book_of(lot(1, 0, dies=-10), debts={1: 4})
    add_hold(book, 9, {1: 10}, expires_at=after(-5))
    rules.settle(book)
    assert instants(book) == [("hold_expiry", -5), ("debt_repayment", -5), ("lot_expiry", -5)]


def test_dead_lots_repay_before_live_ones() -> None:
    """What would expire this instant pays first, though live lots come first in burn order."""
    book = book_of(lot(1, 0, priority=10), lot(2, 0, dies=-10), debts={1: 4})
    add_hold(book, 9, {1: 5, 2: 5})
    ask(book, release(USER, 9))
    assert lines(book)[1:] == [("debt_repayment", {2: -4}), ("lot_expiry", {2: -1})]
    assert book.lots[1].remaining == 5


@pytest.mark.parametrize("come_in", [grant(USER, 10), adjust(USER, 10)])
def test_what_comes_in_repays_the_oldest_payments_debt_first(come_in: Command) -> None:
    """One entry a debt; a debt of 0 gets none, and what is left is the user's."""
    book = book_of(debts={8: 3, 2: 6, 5: 0, 9: 4})
    result = ask(book, come_in)
    assert [(str(entry.kind), entry.amount, entry.related_seq) for entry in book.entries[1:]] == [
        ("debt_repayment", -6, 2),
        ("debt_repayment", -3, 8),
        ("debt_repayment", -1, 9),
    ]
    assert (book.debts, book.changed_debts) == ({8: 0, 2: 0, 5: 0, 9: 3}, frozenset({2, 8, 9}))
    assert (result.amount, result.balance, book.entries[0].result_balance) == (10, 0, 0)


def test_new_rows_are_inserted_as_they_end() -> None:
    """What one call opens and closes is no change to a row that is there already."""
    book = book_of()
    ask(book, grant(USER, 10))
    seq = ask(book, open_hold(USER, 5)).seq
    ask(book, capture(USER, seq, 2))
    assert (book.new_lots, book.new_holds) == (frozenset({101}), frozenset({102}))
    assert book.changed_holds == set()


def test_an_entry_says_who_asked_what_about_which_hold() -> None:
    """Key, digest, actor, metadata, hold, what was kept and when; the hold's row changes."""
    expected = {"capture": 2, "release": 0, "renewal": 0, "spend": 1}
    for command in (
        capture(USER, 9, 2, metadata={"a": 1}),
        release(USER, 9, metadata={"a": 1}),
        renew(USER, 9, 60, metadata={"a": 1}),
        capture(USER, 8, 1, if_expired="retake", metadata={"a": 1}),
    ):
        book = book_of(lot(1, 5))
        add_hold(book, 9, {1: 10})
        add_hold(book, 8, {1: 10}, status=HoldStatus.EXPIRED)
        result, entry = ask(book, command), book.entries[0]
        assert (entry.key, entry.digest, entry.actor) == (command.key, command.digest, "key:tests")
        assert (entry.metadata, book.changed_holds) == ({"a": 1}, frozenset({entry.related_seq}))
        assert entry.captured == result.captured == expected[result.kind]
        assert (result.user_id, result.created_at) == (USER, NOW)


def test_an_unknown_command_is_a_programming_error() -> None:
    """A command that no rule answers is no refusal."""

    class Unknown(Command, frozen=True):
        kind = EntryKind.CLAWBACK

    with pytest.raises(TypeError, match="no rule for Unknown"):
        ask(book_of(), Unknown(user_id=USER, key="k", actor="key:tests"))
