"""Many clients in several processes at once: exact counts, no lost operation (rule 3)."""

from collections import Counter
from collections.abc import Generator, Sequence
from functools import partial

import pytest
from sqlalchemy import select

from src.common.credits.domain.commands import Command
from src.common.credits.operations import execute
from src.common.credits.verification.verify import verify
from src.common.database import SessionLocal, run_in_database_transaction
from src.common.models.credit_hold import CreditHold, HoldStatus
from src.local_postgres import ConnectionParameters
from tests.credits.books import capture, grant, journal, open_hold, release, reverse, spend
from tests.credits.committed import balances, look, make_users
from tests.credits.workers import Assign, At, Crowd, Job, Outcome, Steps, crowd
from tests.postgres.drivers import open_connection

pytestmark = pytest.mark.xdist_group("credits_races")


@pytest.fixture(scope="module")
def clients() -> Generator[Crowd]:
    """Three processes of four threads each."""
    with crowd() as processes:
        yield processes


@pytest.fixture
def database(fresh_database: ConnectionParameters) -> ConnectionParameters:
    """A database where commits are real and deadlocks are found at once."""
    with open_connection(fresh_database) as connection:
        connection.execute(
            f"ALTER DATABASE {fresh_database.database} SET deadlock_timeout = '10ms'".encode()
        )
    return fresh_database


def one_each(commands: Sequence[Command]) -> list[Job]:
    """A database transaction for each command."""
    return [Steps([[command]]) for command in commands]


def counted(outcomes: Sequence[Outcome]) -> Counter[str]:
    """How many were done, and how many refused with what."""
    return Counter(each if isinstance(each, str) else "done" for each in outcomes)


def test_a_hundred_spends_of_one_on_fifty(clients: Crowd, database: ConnectionParameters) -> None:
    """Fifty succeed, fifty are refused, and 0 is left."""
    [who] = make_users(50)
    outcomes = clients.do(database, one_each([spend(who, 1) for _ in range(100)]))
    assert counted(outcomes) == {"done": 50, "INSUFFICIENT_CREDITS": 50}
    assert balances([who]) == [0]


def test_a_hundred_reversals_of_one_of_a_spend_of_fifty(
    clients: Crowd, database: ConnectionParameters
) -> None:
    """Fifty succeed, fifty are refused, and all that was spent is back."""
    [who] = make_users(50)
    clients.do(database, one_each([spend(who, 50)]))
    outcomes = clients.do(database, one_each([reverse(who, 2, 1) for _ in range(100)]))
    assert counted(outcomes) == {"done": 50, "REVERSAL_EXCEEDS_ENTRY": 50}
    assert balances([who]) == [50]


def test_a_grant_taken_back_while_it_is_spent(
    clients: Crowd, database: ConnectionParameters
) -> None:
    """Whoever comes first: what was spent and what was taken back are the grant, to the credit.

    Only the first can take it back. The others find nothing to take, or nothing left in it.
    """
    [who] = make_users(50)
    spends: list[Command] = [spend(who, 1) for _ in range(40)]
    backs: list[Command] = [reverse(who, 1, as_far_as_possible=True) for _ in range(8)]
    mixed = [*spends[:20], *backs[:4], *spends[20:], *backs[4:]]
    outcomes = clients.do(database, one_each(mixed))
    found = counted(outcomes)
    assert found["done"] + found["INSUFFICIENT_CREDITS"] + found["REVERSAL_EXCEEDS_ENTRY"] == 48
    moved = look(lambda session: journal(session, who))[1:]
    [taken_back] = [amount for kind, amount in moved if kind == "reversal"]
    before = [kind for kind, _ in moved].index("reversal")
    assert taken_back == before - 50
    assert len(moved) == found["done"] == before + 1
    assert balances([who]) == [0]


def test_spends_that_do_not_divide_the_balance(
    clients: Crowd, database: ConnectionParameters
) -> None:
    """Forty spends of 7 on 100: fourteen succeed, 2 are left."""
    [who] = make_users(100)
    outcomes = clients.do(database, one_each([spend(who, 7) for _ in range(40)]))
    assert counted(outcomes) == {"done": 14, "INSUFFICIENT_CREDITS": 26}
    assert balances([who]) == [2]


def test_holds_released_twice_are_released_once(
    clients: Crowd, database: ConnectionParameters
) -> None:
    """500 holds of five users, each released with two keys: 500 succeed, 500 are refused."""
    people = make_users(*[100] * 5)
    with SessionLocal.begin() as session:
        holds = execute(session, [open_hold(who, 1) for who in people for _ in range(100)])
    releases = [release(hold.user_id, hold.seq) for _ in range(2) for hold in holds]
    outcomes = clients.do(database, one_each(releases))
    assert counted(outcomes) == {"done": 500, "HOLD_CLOSED": 500}
    first, second = outcomes[:500], outcomes[500:]
    assert all(isinstance(a, str) != isinstance(b, str) for a, b in zip(first, second, strict=True))
    assert balances(people) == [100] * 5


def test_capture_release_and_expiry_have_one_winner(
    clients: Crowd, database: ConnectionParameters
) -> None:
    """Whoever locks first wins, the others are told; the credits go one way only."""
    people = make_users(*[10] * 40)
    with SessionLocal.begin() as session:
        holds = execute(session, [open_hold(who, 10, 100) for who in people])
    jobs: list[Job] = []
    for who, hold in zip(people, holds, strict=True):
        jobs += [
            At(capture(who, hold.seq, 10), 1),
            At(release(who, hold.seq), 1),
            At(grant(who, 1), 200),  # by then the hold has expired
        ]
    outcomes = clients.do(database, jobs)
    winners: Counter[str] = Counter()
    for number, who in enumerate(people):
        mine = outcomes[number * 3 : number * 3 + 3]
        assert not isinstance(mine[2], str)
        with SessionLocal() as session:
            status = session.scalars(
                select(CreditHold.status).where(CreditHold.user_id == who)
            ).one()
            kinds = {kind for kind, _ in journal(session, who)}
        lost = "HOLD_EXPIRED" if status == HoldStatus.EXPIRED else "HOLD_CLOSED"
        assert [each if isinstance(each, str) else "done" for each in mine[:2]] == [
            "done" if status == HoldStatus.CAPTURED else lost,
            "done" if status == HoldStatus.RELEASED else lost,
        ]
        assert len(kinds & {"capture", "release", "hold_expiry"}) == 1
        assert balances([who]) == [1 if status == HoldStatus.CAPTURED else 11]
        winners[status] += 1
    assert winners.total() == 40


def test_one_call_for_many_users_locks_in_one_order(
    clients: Crowd, database: ConnectionParameters
) -> None:
    """Calls that name the same users in opposite order all succeed, nothing is lost."""
    people = make_users(*[1000] * 4)
    there = [[spend(who, 1) for who in people] for _ in range(60)]
    back = [[spend(who, 2) for who in reversed(people)] for _ in range(60)]
    outcomes = clients.do(database, [Steps([call]) for call in (*there, *back)])
    assert counted(outcomes) == {"done": 120}
    assert balances(people) == [1000 - 60 - 120] * 4


def test_opposite_calls_in_one_database_transaction_lose_nothing(
    clients: Crowd, database: ConnectionParameters
) -> None:
    """Two users in two calls, in opposite order: deadlocks are retried, every spend is there.

    On a loaded machine some may run out of attempts: they did nothing, and are asked again.
    """
    first, second = make_users(1000, 1000)
    jobs: list[Job] = []
    for _ in range(20):
        jobs += [
            Steps([[spend(first, 1)], [spend(second, 1)]]),
            Steps([[spend(second, 2)], [spend(first, 2)]]),
        ]
    outcomes = clients.do(database, jobs)
    assert set(counted(outcomes)) <= {"done", "DATABASE_BUSY"}
    for job, outcome in zip(jobs, outcomes, strict=True):
        if outcome == "DATABASE_BUSY":
            run_in_database_transaction(partial(job))
    assert balances([first, second]) == [1000 - 20 - 40] * 2


def test_one_key_a_hundred_times_at_once(clients: Crowd, database: ConnectionParameters) -> None:
    """One effect and a hundred equal answers, of which ninety-nine are marked as replayed."""
    [who] = make_users(50)
    command = spend(who, 7)
    outcomes = clients.do(database, one_each([command] * 100))
    answers = [result for each in outcomes if not isinstance(each, str) for result in each]
    assert len(answers) == 100
    assert len(set(answers)) == 1
    assert Counter(answer.replayed for answer in answers) == {False: 1, True: 99}
    assert balances([who]) == [43]


def test_one_key_for_two_requests_at_once_does_one_of_them(
    clients: Crowd, database: ConnectionParameters
) -> None:
    """Whichever comes first has the key; every other request is refused, every same one equal."""
    [who] = make_users(50)
    jobs = one_each([spend(who, 1 + number % 2, key="the-key") for number in range(40)])
    assert counted(clients.do(database, jobs)) == {"done": 20, "IDEMPOTENCY_KEY_REUSED": 20}
    assert balances([who]) in ([49], [48])


def test_unlocked_sessions_that_both_add_lose_nothing(
    clients: Crowd, database: ConnectionParameters
) -> None:
    """The document's `+=` and `-=` by everybody at once, several users in a flush: an exact sum."""
    people = make_users(100, 100, 100)
    jobs: list[Job] = [
        Assign(people[::step], change) for step, change in ((1, 5), (-1, -1)) for _ in range(40)
    ]
    jobs += one_each([spend(who, 1) for who in people for _ in range(10)])
    assert counted(clients.do(database, jobs)) == {"done": 110}
    assert balances(people) == [100 + 40 * 5 - 40 - 10] * 3


def test_assigning_below_zero_at_once_takes_what_is_there(
    clients: Crowd, database: ConnectionParameters
) -> None:
    """Forty sessions each take 10 of 100: ten succeed, thirty are refused."""
    [who] = make_users(100)
    outcomes = clients.do(database, [Assign([who], -10) for _ in range(40)])
    assert counted(outcomes) == {"done": 10, "INSUFFICIENT_CREDITS": 30}
    assert balances([who]) == [0]


def test_two_engines_sessions_and_the_document_lose_nothing(
    clients: Crowd, database: ConnectionParameters
) -> None:
    """Everybody succeeds at once on the same users, without a deadlock, and the sum is exact."""
    people = make_users(*[1000] * 4)
    jobs: list[Job] = []
    for _ in range(15):
        jobs += [
            Steps([[spend(who, 1) for who in reversed(people)]]),
            Assign(people, 5),
            Assign(people[::2], -1),
        ]
    spends = [[spend(who, 2) for _ in range(40) for who in people] for _ in range(2)]
    outcomes = clients.do_beside_engines(database, jobs, *spends)
    assert [counted(each) for each in outcomes] == [{"done": 45}, {"done": 160}, {"done": 160}]
    left = 1000 - 15 + 15 * 5 - 2 * 40 * 2
    assert balances(people) == [left - 15, left, left - 15, left]
    with open_connection(database) as connection:
        found = connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    assert found == (0,)
    *_, report = verify(SessionLocal)
    assert (report.users, report.differences) == (4, 0)


def test_two_engines_and_sessions_share_what_is_there(
    clients: Crowd, database: ConnectionParameters
) -> None:
    """Sixty spends each of 3 on 200: sixty-six succeed altogether."""
    [who] = make_users(200)
    jobs: list[Job] = [Steps([[spend(who, 3)]]) for _ in range(60)]
    spends = [[spend(who, 3) for _ in range(60)] for _ in range(2)]
    outcomes = clients.do_beside_engines(database, jobs, *spends)
    total = sum((counted(each) for each in outcomes), Counter[str]())
    assert total == {"done": 66, "INSUFFICIENT_CREDITS": 114}
    assert balances([who]) == [2]


def test_one_key_in_two_engines_and_a_session_has_one_effect(
    clients: Crowd, database: ConnectionParameters
) -> None:
    """The same for three processes at once."""
    [who] = make_users(50)
    command = spend(who, 7)
    jobs: list[Job] = [Steps([[command]])] * 20
    outcomes = clients.do_beside_engines(database, jobs, [command] * 40, [command] * 40)
    answers = [
        result
        for share in outcomes
        for each in share
        if not isinstance(each, str)
        for result in each
    ]
    assert len(answers) == 100
    assert len(set(answers)) == 1
    assert Counter(answer.replayed for answer in answers) == {False: 1, True: 99}
    assert balances([who]) == [43]
