"""Every order of a payment's life ends in one state: all 5,040 orders of seven events."""

import datetime as dt
import random
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.orm import Session

from src.common.credits.due import expire_due
from src.common.credits.operations import execute
from src.common.database import SessionLocal, run_in_database_transaction
from src.common.purchases.packages import PACKAGES
from src.common.stripe.lookup import Facts
from src.local_postgres import ConnectionParameters
from tests.credits.books import check_books, grant, make_user, open_hold, spend
from tests.purchases.lives import State, life_of, payment_of, settle, state_of, walk

STARTER, BASIC = PACKAGES[:2]
ORDERS = 5_040
Beginning = Callable[[Session, uuid.UUID, str], dict[str, Facts]]
"""Brings a user so far; payments are called by the tag, then `x` or `y`. What is to come."""


def fresh(session: Session, user_id: uuid.UUID, tag: str = "") -> dict[str, Facts]:
    """Nothing paid yet; a gift, partly spent."""
    execute(session, [grant(user_id, 100), spend(user_id, 30)])
    return life_of(payment_of(user_id, f"{tag}x", STARTER), f"{tag}x")


def in_debt(session: Session, user_id: uuid.UUID, tag: str = "") -> dict[str, Facts]:
    """Paid and all of it spent: whatever is to be back is a debt."""
    life = life_of(payment_of(user_id, f"{tag}x", STARTER), f"{tag}x")
    settle(session, life["paid"])
    execute(session, [spend(user_id, 500)])
    return life


def spent_and_held(session: Session, user_id: uuid.UUID, tag: str = "") -> dict[str, Facts]:
    """Paid, partly spent, partly held; a gift to take the rest from."""
    life = life_of(payment_of(user_id, f"{tag}x", STARTER), f"{tag}x")
    settle(session, life["paid"])
    execute(session, [spend(user_id, 200), open_hold(user_id, 180)])
    execute(session, [grant(user_id, 90)])
    return life


def expired(session: Session, user_id: uuid.UUID, tag: str = "") -> dict[str, Facts]:
    """A gift and a hold have expired since; of the payment something is spent."""
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1)
    life = life_of(payment_of(user_id, f"{tag}x", STARTER), f"{tag}x")
    execute(session, [grant(user_id, 300, expires_at=soon), spend(user_id, 100)])
    settle(session, life["paid"])
    execute(session, [open_hold(user_id, 450, seconds=120), spend(user_id, 200)])
    expire_due(session, now=soon + dt.timedelta(minutes=3))
    return life


def second_before(session: Session, user_id: uuid.UUID, tag: str = "") -> dict[str, Facts]:
    """Another purchase before, partly spent and itself refunded in part."""
    other = life_of(payment_of(user_id, f"{tag}y", BASIC), f"{tag}y")
    settle(session, other["paid"])
    execute(session, [spend(user_id, 950)])
    settle(session, other["refunded"])
    return life_of(payment_of(user_id, f"{tag}x", STARTER), f"{tag}x")


def second_among(session: Session, user_id: uuid.UUID, tag: str = "") -> dict[str, Facts]:
    """Another purchase comes among what happens to the first, which is partly spent."""
    life = life_of(payment_of(user_id, f"{tag}x", STARTER), f"{tag}x")
    settle(session, life["paid"])
    execute(session, [spend(user_id, 420)])
    del life["paid again"]
    return {**life, "second": Facts(payments=(payment_of(user_id, f"{tag}y", BASIC),))}


BEGINNINGS: list[Beginning] = [
    fresh,
    in_debt,
    spent_and_held,
    expired,
    second_before,
    second_among,
]


@pytest.mark.parametrize("begin", BEGINNINGS, ids=lambda begin: begin.__name__)
def test_every_order_of_a_life_ends_in_one_state(db: Session, begin: Beginning) -> None:
    """5,040 orders, one end: balance, lots, debts, purchases and reversals are the same."""
    user_id = make_user(db).user_id
    left = begin(db, user_id, "")
    ends = walk(db, user_id, left, {})
    assert list(ends.values()) == [ORDERS]
    [(_, _, _, _, purchases, reversals)] = ends
    # The first refund failed, the second of 150 is on its way, the dispute was won.
    assert ("cs_x", 150, 0) in purchases
    assert {row[0]: row[1] for row in reversals if row[3] == "cs_x"} == {
        "dp_x": "reinstated",
        "re_x_1": "failed",
        "re_x_2": "pending",
    }


@pytest.mark.parametrize("seed", range(6))
def test_duplicates_in_any_order_change_nothing(db: Session, seed: int) -> None:
    """Each event one to four times, shuffled: the state of the plain order."""
    chance = random.Random(seed)  # noqa: S311  no secret
    plain, shuffled = make_user(db).user_id, make_user(db).user_id
    states: list[State] = []
    for user_id in (plain, shuffled):
        name = user_id.hex[:8]
        execute(db, [grant(user_id, 100), spend(user_id, 30)])
        life = list(life_of(payment_of(user_id, name, STARTER), name).values())
        if user_id == shuffled:
            life = [each for each in life for _ in range(chance.randint(1, 4))]
            chance.shuffle(life)
        for facts in life:
            settle(db, facts)
        check_books(db)
        named = repr(state_of(db, user_id)).replace(name, "x")
        states.append((named,))
    assert states[0] == states[1]


@pytest.mark.parametrize("begin", BEGINNINGS, ids=lambda begin: begin.__name__)
def test_concurrent_delivery_ends_in_the_same_state(
    fresh_database: ConnectionParameters, begin: Beginning
) -> None:
    """Every event three times at once, on connections of their own: where the plain order ends."""
    assert fresh_database
    chance = random.Random(begin.__name__)  # noqa: S311  no secret
    with SessionLocal.begin() as session:
        users = [make_user(session).user_id for _ in range(5)]
        lives = {user_id: begin(session, user_id, user_id.hex[:8]) for user_id in users}
    plain, *others = users
    work = [facts for user_id in others for facts in lives[user_id].values() for _ in range(3)]
    chance.shuffle(work)

    def deliver(facts: Facts) -> None:
        run_in_database_transaction(lambda session: settle(session, facts))

    for facts in lives[plain].values():
        deliver(facts)
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(deliver, work))
    with SessionLocal() as session:
        check_books(session)
        ends = {repr(state_of(session, user_id)).replace(user_id.hex[:8], "") for user_id in users}
    assert len(ends) == 1
