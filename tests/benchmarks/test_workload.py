"""What the callers ask for: the shares the report promises, and never more than there is."""

import json
import uuid
from collections import Counter, defaultdict

import pytest

from benchmarks.worker import Tally
from benchmarks.workload import AMOUNT_MAX, LOT, REPLAY_SHARE, Operation, Workload, share_of

USERS = [uuid.UUID(int=number) for number in range(20)]


def workload(*, tops_up: bool = True, replays: bool = True) -> Workload:
    """Over users who have two small lots each, one of them begun."""
    spendable = [2 * LOT - 1 - number for number in range(len(USERS))]
    return Workload(USERS, spendable, tops_up=tops_up, replays=replays, seed=1)


def test_users_keep_one_to_two_lots_whatever_was_spent() -> None:
    """A grant comes before a spend could reach the reserve, and never before it is needed."""
    left = {user_id: 2 * LOT - 1 - number for number, user_id in enumerate(USERS)}
    work = workload(replays=False)

    for _ in range(20_000):
        operation, _ = work.next(None)
        left[operation.user_id] -= operation.amount
        assert LOT - AMOUNT_MAX <= left[operation.user_id] <= 2 * LOT


def test_a_fifth_of_the_spends_draw_on_two_lots() -> None:
    """Played against lots in burn order."""
    lots = defaultdict[uuid.UUID, list[int]](lambda: [LOT, LOT])
    work = Workload(USERS, [2 * LOT] * len(USERS), tops_up=True, replays=False, seed=1)
    spends = crossing = 0

    for _ in range(50_000):
        user_id, amount, _ = work.next(None)[0]
        own = lots[user_id]
        if amount < 0:
            own.append(-amount)
            continue
        spends += 1
        crossing += amount > own[0]
        while amount >= own[0]:
            amount -= own.pop(0)
            if not own:
                break
        if own:
            own[0] -= amount

    assert crossing / spends == pytest.approx(0.2, abs=0.01)


def test_one_request_in_twenty_is_the_callers_last_once_more() -> None:
    """The same user, amount and key; new requests never share a key."""
    work = workload()
    last: Operation | None = None
    keys: set[str] = set()
    repeated = 0

    for _ in range(20_000):
        operation, is_repeated = work.next(last)
        assert (operation.key in keys) is is_repeated
        if is_repeated:
            assert operation == last
        repeated += is_repeated
        keys.add(operation.key)
        last = operation

    assert repeated / 20_000 == pytest.approx(REPLAY_SHARE, abs=0.005)


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("spendable", [0, LOT - 1, LOT, 2 * LOT - 1])
def test_processes_together_count_on_no_more_than_there_is(processes: int, spendable: int) -> None:
    """Beyond the one lot each keeps back, their shares add up to at most what the user has."""
    shares = [share_of(spendable, processes)] * processes

    assert sum(max(0, share - LOT) for share in shares) <= max(0, spendable - LOT)


def test_a_workers_report_says_how_often_it_was_refused_and_why() -> None:
    """The reason and its number, as the runner reads them."""
    tally = Tally(acknowledged=3, failures=Counter({"ENGINE_BUSY": 2}))
    assert json.loads(tally.as_json())["failures"] == {"ENGINE_BUSY": 2}
