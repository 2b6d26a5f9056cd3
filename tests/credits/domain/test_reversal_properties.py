"""Money back is a function of state: what holds after any history (rule 5)."""

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from src.common.credits.domain.reversals import LotHistory, allocate, credits_to_be_back
from src.common.models.credit_entry import EntryKind
from src.common.models.credit_lot import LotSource
from tests.credits.memory import EVERYTHING, LIFE, Ledger, Step, steps

PROPERTY = settings(deadline=None, max_examples=200)
CENTS = st.integers(0, 2**31 - 1)
PERCENT = st.integers(0, 100)
HISTORIES = steps(*EVERYTHING)
OPENINGS = st.integers(-60, 60)
"""The balance from before the ledger, on which historic purchases depend."""
CHANGES = st.lists(st.tuples(st.integers(0, 5), PERCENT), max_size=6)
"""Which payment's target becomes how many hundredths of it."""


def ledger_after(history: list[Step], opening: int = 0) -> Ledger:
    """A ledger that lived through this, its allocation up to date."""
    ledger = Ledger(opening=opening)
    ledger.do(history)
    ledger.reverse(ledger.targets)
    return ledger


def booked(ledger: Ledger) -> dict[int, LotHistory]:
    """What entries took from each lot, counted from the entries themselves."""
    histories = dict.fromkeys(ledger.book.lots, LotHistory())
    for entry in ledger.book.entries:
        for line in entry.postings:
            histories[line.lot_seq] = histories[line.lot_seq].after(entry.kind, line.amount)
    return histories


@PROPERTY
@given(granted=CENTS, paid=CENTS, reversed_=CENTS, more=CENTS)
def test_more_money_back_never_means_fewer_credits_back_nor_more_than_granted(
    granted: int, paid: int, reversed_: int, more: int
) -> None:
    """And the number is the nearest integer to the exact share."""
    back = credits_to_be_back(granted, paid, reversed_)
    assert 0 <= back <= credits_to_be_back(granted, paid, reversed_ + more) <= granted
    assert abs(2 * back * paid - 2 * granted * min(reversed_, paid)) <= paid


@PROPERTY
@given(opening=OPENINGS, history=HISTORIES, final=CHANGES, one=st.data(), other=st.data())
def test_any_order_and_duplication_of_target_changes_ends_in_the_same_state(
    opening: int,
    history: list[Step],
    final: list[tuple[int, int]],
    one: st.DataObject,
    other: st.DataObject,
) -> None:
    """Balance, what every lot holds and every debt depend on the last targets only."""
    ledger = ledger_after(history, opening)
    assume(ledger.payments)
    last = {
        payment: ledger.share(payment, percent)
        for index, percent in final
        for payment in [ledger.payments[index % len(ledger.payments)]]
    }
    ends = [ledger.copy(), ledger.copy()]
    for end, data in zip(ends, (one, other), strict=True):
        for payment, percent in data.draw(CHANGES):
            detour = end.payments[payment % len(end.payments)]
            end.reverse({**end.targets, detour: end.share(detour, percent)})
        end.reverse(last)
    assert ends[0].state == ends[1].state


@PROPERTY
@given(history=HISTORIES, changes=CHANGES, own=PERCENT, position=st.integers(0, 6), lasts=PERCENT)
def test_a_purchase_among_the_changes_ends_in_the_same_state_wherever_it_comes(
    history: list[Step], changes: list[tuple[int, int]], own: int, position: int, lasts: int
) -> None:
    """Money back that came before its payment counts once the payment is credited."""
    assume(any(step[0] == "buy" for step in history))

    def end(at: int) -> tuple[object, ...]:
        ledger = ledger_after(history)
        existing = list(ledger.payments)
        for index in range(len(changes) + 1):
            if index == at:
                bought = ledger.buy(80, lasts=lasts or None)
                ledger.reverse({**ledger.targets, bought: ledger.share(bought, own)})
            if index < len(changes):
                payment = existing[changes[index][0] % len(existing)]
                share = ledger.share(payment, changes[index][1])
                ledger.reverse({**ledger.targets, payment: share})
        lots = sorted(ledger.book.lots)  # the purchase's lot has another number, but the same rank
        debts = {lots.index(payment): owed for payment, owed in ledger.debts.items()}
        return ledger.book.balance, [ledger.lot(seq).remaining for seq in lots], debts

    assert end(min(position, len(changes))) == end(len(changes))


@PROPERTY
@given(history=HISTORIES)
def test_all_credits_to_be_back_are_taken_forgiven_or_owed(history: list[Step]) -> None:
    """Exactly; live lots gave what is taken from them, dead ones at least that."""
    ledger = ledger_after(history)
    histories = booked(ledger)
    book = ledger.book
    allocation = allocate(book.lots.values(), histories, ledger.targets, book.now)
    parts = (allocation.taken, allocation.forgiven, allocation.debts)
    assert sum(sum(part.values()) for part in parts) == sum(ledger.targets.values())
    assert {payment: owed for payment, owed in allocation.debts.items() if owed} == ledger.debts
    for lot in book.lots.values():
        gave = histories[lot.seq].taken
        if lot.is_dead(book.now):
            assert gave >= allocation.taken[lot.seq] >= 0
        else:
            assert gave == allocation.taken[lot.seq]


@PROPERTY
@given(history=HISTORIES)
def test_allocation_is_what_taking_credit_by_credit_gives(history: list[Step]) -> None:
    """Rule 5 read aloud, one credit after the other, is the reference."""
    ledger = ledger_after(history)
    book, histories = ledger.book, booked(ledger)
    left = {seq: lot.remaining + histories[seq].taken for seq, lot in book.lots.items()}
    expired = {seq: each.expired for seq, each in histories.items()}
    taken, owed, rest = dict.fromkeys(left, 0), dict.fromkeys(ledger.targets, 0), dict[int, int]()
    for payment, target in ledger.targets.items():
        rest[payment] = 0
        for _ in range(target):
            if left[payment]:
                left[payment] -= 1
                taken[payment] += 1
            elif expired[payment]:
                expired[payment] -= 1
            else:
                rest[payment] += 1
    dead = [lot for lot in book.lots.values() if lot.is_dead(book.now)]
    live = [lot for lot in book.lots.values() if lot not in dead]
    order = [lot.seq for lots in (dead, live) for lot in sorted(lots, key=lambda e: e.burn_order)]
    for payment in sorted(rest):
        for _ in range(rest[payment]):
            giver = next((seq for seq in order if left[seq]), None)
            if giver is None:
                owed[payment] += 1
            else:
                left[giver] -= 1
                taken[giver] += 1
    allocation = allocate(book.lots.values(), histories, ledger.targets, book.now)
    assert (allocation.taken, allocation.debts) == (taken, owed)


@PROPERTY
@given(opening=OPENINGS, history=HISTORIES)
def test_the_books_hold_at_every_entry(opening: int, history: list[Step]) -> None:
    """No balance below 0, no lot outside 0 to granted, and a debt implies a balance of 0."""
    ledger = Ledger(opening=opening)
    for step in history:
        ledger.do([step])
        book = ledger.book
        assert book.balance == sum(lot.remaining for lot in book.lots.values())
        assert all(0 <= lot.remaining <= lot.granted for lot in book.lots.values())
        assert book.debt == 0 or book.balance == 0
    balance = 0
    for entry in ledger.book.entries:
        balance += sum(line.amount for line in entry.postings)
        assert balance == entry.balance_after >= 0


@PROPERTY
@given(opening=OPENINGS, history=HISTORIES)
def test_the_same_targets_again_write_nothing(opening: int, history: list[Step]) -> None:
    """The allocation is a fixed point of itself."""
    ledger = ledger_after(history, opening)
    before = ledger.state
    assert ledger.reverse(ledger.targets) == []
    assert ledger.state == before


@PROPERTY
@given(opening=OPENINGS, history=HISTORIES, later=steps("spend", "hold", max_size=4))
def test_using_credits_leaves_the_allocation_as_it_is(
    opening: int, history: list[Step], later: list[Step]
) -> None:
    """Spends and holds burn what money back left; recomputing changes nothing."""
    ledger = ledger_after(history, opening)
    ledger.do(later)
    assert ledger.reverse(ledger.targets) == []


@PROPERTY
@given(opening=OPENINGS, history=HISTORIES, seconds=st.integers(0, 100))
def test_lots_that_die_leave_the_allocation_as_it_is(
    opening: int, history: list[Step], seconds: int
) -> None:
    """Where no hold comes back, time alone changes nothing either."""
    ledger = ledger_after([step for step in history if step[0] != "hold"], opening)
    ledger.wait(seconds)
    assert ledger.reverse(ledger.targets) == []


@PROPERTY
@given(opening=OPENINGS, history=HISTORIES, amount=st.integers(1, 200), lasts=st.integers(0, 60))
def test_what_a_grant_repays_is_what_recomputing_says(
    opening: int, history: list[Step], amount: int, lasts: int
) -> None:
    """Balance and every single debt agree; nothing at all moves if the grant burns last.

    A grant that burns before lots which gave may change places with them: balance and debts are
    the same, the lots that hold the balance are not.
    """
    ledger = ledger_after(history, opening)
    last = ledger.copy()
    ledger.grant(amount, lasts=lasts or None)
    repaid = ledger.book.balance, ledger.debts
    ledger.reverse(ledger.targets)
    assert (ledger.book.balance, ledger.debts) == repaid
    last.grant(amount, source=LotSource.ADJUSTMENT)
    assert last.reverse(last.targets) == []


@PROPERTY
@given(opening=OPENINGS, history=steps(*EVERYTHING), which=st.integers(0, 5))
def test_what_a_released_hold_repays_is_in_sum_what_recomputing_says(
    opening: int, history: list[Step], which: int
) -> None:
    """Where no lot can die, balance and the sum of debts agree.

    A payment's own credits that come back repay the oldest debt; recomputing, they are its own.
    """
    immortal = [
        (what, first, second, third if what == "hold" else 0)
        for what, first, second, third in history
    ]
    ledger = ledger_after(immortal, opening)
    ledger.do([("release", 1, which, 0)])
    released = ledger.book.balance, ledger.book.debt
    ledger.reverse(ledger.targets)
    assert (ledger.book.balance, ledger.book.debt) == released


@PROPERTY
@given(opening=OPENINGS, history=steps(*LIFE), changes=CHANGES)
def test_at_most_one_reinstatement_then_one_clawback_on_live_lots(
    opening: int, history: list[Step], changes: list[tuple[int, int]]
) -> None:
    """Gains in the first, losses in the second; a lot is in one of them at most."""
    ledger = ledger_after(history, opening)
    assume(ledger.payments)
    for index, percent in changes:
        payment = ledger.payments[index % len(ledger.payments)]
        entries = ledger.reverse({**ledger.targets, payment: ledger.share(payment, percent)})
        kinds = [entry.kind for entry in entries]
        assert kinds in (
            [],
            [EntryKind.REINSTATEMENT],
            [EntryKind.CLAWBACK],
            [EntryKind.REINSTATEMENT, EntryKind.CLAWBACK],
        )
        lines = [(entry.kind, line) for entry in entries for line in entry.postings]
        assert len({line.lot_seq for _, line in lines}) == len(lines)
        for kind, line in lines:
            assert (line.amount > 0) == (kind is EntryKind.REINSTATEMENT)
            assert not ledger.lot(line.lot_seq).is_dead(ledger.book.now)
