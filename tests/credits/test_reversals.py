"""Money back is a function of state: each sentence of rule 5 on a book in memory, by hand."""

import pytest

from src.common.credits.domain.commands import AMOUNT_MAX
from src.common.credits.domain.reversals import LotHistory, credits_to_be_back
from src.common.exceptions import Invalid
from src.common.models.credit_entry import EntryKind
from src.common.models.credit_lot import LotSource
from tests.credits.memory import Ledger

BACK, AGAIN = EntryKind.CLAWBACK, EntryKind.REINSTATEMENT


@pytest.fixture
def ledger() -> Ledger:
    """A user without a credit."""
    return Ledger()


@pytest.mark.parametrize(
    ("granted", "paid", "reversed_", "back"),
    [
        pytest.param(500, 500, 0, 0, id="nothing"),
        pytest.param(500, 500, 500, 500, id="all"),
        pytest.param(500, 500, 501, 500, id="more than was paid"),
        pytest.param(500, 0, 100, 0, id="nothing was paid"),
        pytest.param(1, 2, 1, 1, id="half a credit rounds up"),
        pytest.param(1, 3, 1, 0, id="less than half a credit rounds down"),
        pytest.param(10_000, 6_000, 1, 2, id="a cent buys 1.67 credits"),
        pytest.param(AMOUNT_MAX, AMOUNT_MAX, AMOUNT_MAX - 1, AMOUNT_MAX - 1, id="exact, no float"),
    ],
)
def test_credits_to_be_back_are_the_share_reversed_money_bought(
    granted: int, paid: int, reversed_: int, back: int
) -> None:
    """Integers, half a credit rounded up, at most what was paid."""
    assert credits_to_be_back(granted, paid, reversed_) == back


def test_a_payment_takes_from_its_own_lot_before_lots_that_burn_earlier(ledger: Ledger) -> None:
    """Own lot first, although the other one goes first when credits are used."""
    earlier = ledger.buy(100)
    payment = ledger.buy(100)
    (entry,) = ledger.reverse({payment: 60})
    assert (entry.kind, entry.amount) == (BACK, -60)
    assert ledger.remaining == {earlier: 100, payment: 40}


def test_every_payment_is_served_from_its_own_lot_before_any_takes_from_another(
    ledger: Ledger,
) -> None:
    """The older payment, whose lot is used up, gets only what the younger one leaves."""
    older = ledger.buy(100)
    ledger.spend(100)
    younger = ledger.buy(100)
    ledger.reverse({older: 100, younger: 70})
    assert ledger.remaining == {}
    assert ledger.debts == {older: 70}


def test_what_expired_in_the_own_lot_is_forgiven(ledger: Ledger) -> None:
    """Nobody pays for credits that nobody could use; only the used rest is asked for."""
    payment = ledger.buy(100, lasts=10)
    ledger.spend(30)
    ledger.wait(10)
    other = ledger.buy(100)
    ledger.reverse({payment: 100})
    assert ledger.remaining == {other: 70}


def test_what_is_written_and_what_falls_due_now_count_together(ledger: Ledger) -> None:
    """Of a lot's history some is booked long since, some only with this very operation."""
    payment, other = ledger.buy(100, lasts=10), ledger.buy(100)
    ledger.spend(30)
    ledger.reverse({other: 40})
    for entry in ledger.book.entries:
        for line in entry.postings:
            before = ledger.booked.get(line.lot_seq, LotHistory())
            ledger.booked[line.lot_seq] = before.after(entry.kind, line.amount)
    ledger.book.entries.clear()
    ledger.wait(10)
    (entry,) = ledger.reverse({payment: 100, other: 40})
    assert [each.kind for each in ledger.book.entries] == [EntryKind.LOT_EXPIRY, BACK]
    assert (entry.amount, ledger.remaining) == (-30, {other: 30})


def test_what_expired_in_another_lot_is_not_forgiven(ledger: Ledger) -> None:
    """Forgiveness is the own lot's alone."""
    payment = ledger.buy(100)
    ledger.spend(100)
    ledger.grant(100, lasts=10)
    ledger.wait(10)
    ledger.reverse({payment: 100})
    assert ledger.debts == {payment: 100}


def test_the_rest_is_taken_in_burn_order_from_live_lots(ledger: Ledger) -> None:
    """Promotional credits go first, then the oldest lot."""
    payment = ledger.buy(100)
    ledger.spend(100)
    older, younger = ledger.buy(50), ledger.buy(50)
    promotional = ledger.grant(20)
    (entry,) = ledger.reverse({payment: 100})
    taken = [(line.lot_seq, line.amount) for line in entry.postings]
    assert taken == [(promotional, -20), (older, -50), (younger, -30)]


def test_dead_lots_that_gave_still_serve_before_live_ones(ledger: Ledger) -> None:
    """What was taken from a lot while it lived counts for whichever payment needs it."""
    first, second = ledger.buy(50), ledger.buy(50)
    ledger.spend(100)
    promotional = ledger.grant(40, lasts=10)
    live = ledger.buy(100)
    ledger.reverse({first: 40})
    assert ledger.remaining == {live: 100}
    ledger.wait(10)
    assert ledger.reverse({second: 40}) == []
    (entry,) = ledger.reverse({second: 50})
    assert [(line.lot_seq, line.amount) for line in entry.postings] == [(live, -10)]
    assert ledger.lot(promotional).remaining == 0


def test_dead_lots_get_nothing_back(ledger: Ledger) -> None:
    """Credits that would be dead already do not come back, and no entry names their lot."""
    payment = ledger.buy(50, lasts=10)
    ledger.reverse({payment: 50})
    ledger.wait(10)
    assert ledger.reverse({}) == []
    assert ledger.book.balance == 0


def test_what_is_missing_is_the_debt_of_the_youngest_payments(ledger: Ledger) -> None:
    """The oldest payment is served first, whatever order the targets are named in."""
    older, younger = ledger.buy(50), ledger.buy(50)
    ledger.spend(100)
    ledger.buy(70)
    ledger.reverse({younger: 50, older: 50})
    assert ledger.debts == {younger: 30}
    assert ledger.book.balance == 0


def test_one_reinstatement_then_one_clawback_book_all_differences(ledger: Ledger) -> None:
    """What one payment gives back and another takes is booked net, lot by lot."""
    spent, other = ledger.buy(100), ledger.buy(100)
    ledger.spend(100)
    promotional = ledger.grant(30)
    ledger.reverse({spent: 40})
    gain, loss = ledger.reverse({other: 95})
    assert (gain.kind, gain.amount, gain.balance_after) == (AGAIN, 30, 120)
    assert (loss.kind, loss.amount, loss.balance_after) == (BACK, -85, 35)
    assert gain.result_balance == loss.result_balance == 35
    assert ledger.remaining == {promotional: 30, other: 5}


def test_held_credits_count_as_spent(ledger: Ledger) -> None:
    """A hold keeps its credits: the refund of their payment goes elsewhere, then to debt."""
    payment = ledger.buy(100)
    hold = ledger.hold(80)
    other = ledger.buy(50)
    ledger.reverse({payment: 100})
    assert ledger.remaining == {}
    assert ledger.debts == {payment: 30}
    assert hold is not None
    ledger.release(hold)
    assert ledger.remaining == {payment: 50}
    assert ledger.lot(other).remaining == 0


@pytest.mark.parametrize("way", ["grant", "release", "final capture", "hold expiry"])
def test_credits_that_come_in_repay_the_oldest_debt_first(ledger: Ledger, way: str) -> None:
    """By whichever entry they come, before anybody can use them."""
    older, younger = ledger.buy(50), ledger.buy(50)
    ledger.spend(100)
    ledger.grant(60)
    hold = ledger.hold(60, lasts=10)
    assert hold is not None
    ledger.reverse({older: 50, younger: 50})
    assert ledger.debts == {older: 50, younger: 50}
    if way == "grant":
        ledger.grant(60)
    elif way == "release":
        ledger.release(hold)
    elif way == "final capture":
        ledger.capture(hold, 1)
    else:
        ledger.wait(10)
    assert ledger.debts == {younger: 41 if way == "final capture" else 40}
    assert ledger.book.balance == 0
    repayments = [each for each in ledger.book.entries if each.kind is EntryKind.DEBT_REPAYMENT]
    assert [each.related_seq for each in repayments] == [older, younger]


def test_credits_back_from_a_hold_in_a_dead_lot_repay_before_they_expire(ledger: Ledger) -> None:
    """And count as taken from there: the debt does not come back."""
    payment = ledger.buy(100, lasts=10)
    ledger.hold(100, lasts=20)
    ledger.reverse({payment: 70})
    ledger.wait(20)
    assert (ledger.debts, ledger.book.balance) == ({}, 0)
    assert ledger.reverse({payment: 70}) == []
    assert ledger.reverse({payment: 100}) == [], "30 expired there and are forgiven"


def test_a_change_of_debts_alone_is_documented_by_an_entry_of_0(ledger: Ledger) -> None:
    """A clawback where more is owed or another payment owes it, a reinstatement where less is."""
    first, second = ledger.buy(50), ledger.buy(50)
    ledger.spend(100)
    written = [
        entry
        for targets in ({first: 30}, {first: 20}, {second: 20}, {})
        for entry in ledger.reverse(targets)
    ]
    assert [entry.kind for entry in written] == [BACK, AGAIN, BACK, AGAIN]
    assert all(entry.amount == 0 and entry.postings == [] for entry in written)


def test_what_is_forgiven_alone_writes_nothing(ledger: Ledger) -> None:
    """No credit moved and nobody owes anything: there is nothing to document."""
    payment = ledger.buy(50, lasts=10)
    ledger.wait(10)
    assert ledger.reverse({payment: 50}) == []


def test_credits_that_do_not_fit_are_not_reinstated(ledger: Ledger) -> None:
    """A refund that failed after the room was filled is refused and changes nothing."""
    payment = ledger.buy(AMOUNT_MAX)
    ledger.reverse({payment: AMOUNT_MAX})
    ledger.grant(1, source=LotSource.SUBSCRIPTION)
    before = ledger.state
    with pytest.raises(Invalid) as refusal:
        ledger.reverse({payment: 0})
    assert refusal.value.error_type == "BALANCE_LIMIT_EXCEEDED"
    assert ledger.state == before


def test_held_credits_need_room_too(ledger: Ledger) -> None:
    """What is held may come back: a refund that failed is refused where both do not fit."""
    payment = ledger.buy(100)
    ledger.reverse({payment: 100})
    ledger.grant(AMOUNT_MAX - 50, source=LotSource.SUBSCRIPTION)
    ledger.hold(60)
    with pytest.raises(Invalid):
        ledger.reverse({payment: 0})


@pytest.mark.parametrize("target", [-1, 51])
def test_no_more_can_be_back_than_was_granted_and_no_less_than_nothing(
    ledger: Ledger, target: int
) -> None:
    """Such a number is the caller's mistake."""
    payment = ledger.buy(50)
    with pytest.raises(ValueError, match="to be back"):
        ledger.reverse({payment: target})
