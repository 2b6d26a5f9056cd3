"""Money back before, between and after reversals of entries ends in one state (rules 5 and 12)."""

import uuid
from collections.abc import Callable
from math import factorial

import pytest
from sqlalchemy.orm import Session

from src.common.credits.domain.commands import Command
from src.common.credits.operations import execute
from src.common.purchases.packages import PACKAGES
from src.common.stripe.lookup import Facts
from tests.credits.books import (
    adjust,
    capture,
    check_books,
    grant,
    make_user,
    open_hold,
    reverse,
    spend,
)
from tests.purchases.lives import (
    State,
    Step,
    Undone,
    life_of,
    payment_of,
    refund,
    settle,
    state_of,
    walk,
)

STARTER, BASIC = PACKAGES[:2]
RECOMPUTED = Facts(reversals=(refund("x", "succeeded", 1, 9),))
"""A cent more is refunded: whatever came before, all money back is computed again."""
Beginning = Callable[[Session, uuid.UUID], dict[str, Step]]
"""Brings a user so far; what is to come, in any order."""


def do(session: Session, *commands: Command) -> list[int]:
    """The numbers of their entries."""
    return [result.seq for result in execute(session, commands)]


def undoing(seq: int, amount: int) -> Step:
    """So much of an entry is undone."""
    return lambda session: do(session, reverse(session.info["who"], seq, amount))


def owing(session: Session, who: uuid.UUID) -> dict[str, Step]:
    """All is spent, from two gifts and the payment: money back is owed, until something is undone.

    One gift goes before the payment's credits, one after them.
    """
    life = life_of(payment_of(who, "x", STARTER), "x")
    settle(session, life["paid"])
    _, _, spent = do(session, grant(who, 100), grant(who, 40, priority=200), spend(who, 640))
    return {
        "refunded": life["refunded"],
        "disputed": life["disputed"],
        "refund failed": life["refund failed"],
        "a part is undone": undoing(spent, 75),
        "the rest is undone": undoing(spent, 565),
    }


def of_every_kind(session: Session, who: uuid.UUID) -> dict[str, Step]:
    """A spend, what a hold captured and an adjustment are undone; two payments go back in part."""
    first = life_of(payment_of(who, "x", STARTER), "x")
    second = life_of(payment_of(who, "y", BASIC), "y")
    settle(session, first["paid"])
    settle(session, second["paid"])
    spent, hold = do(session, spend(who, 900), open_hold(who, 500))
    _, adjusted = do(session, capture(who, hold, 450), adjust(who, -60))
    return {
        "first refunded": first["refunded"],
        "second refunded": Facts(reversals=(refund("y", "succeeded", 700),)),
        "the spend is undone": undoing(spent, 700),
        "what was captured is undone": undoing(hold, 180),
        "the adjustment is undone": undoing(adjusted, 60),
    }


def end(session: Session, user_id: uuid.UUID) -> State:
    """Balance and debt as they are, and all there is once money back is computed again."""
    balance, _, _, debts, *_ = state_of(session, user_id)
    recomputed: State = ()
    try:
        with session.begin_nested():
            settle(session, RECOMPUTED)
            check_books(session)
            recomputed = state_of(session, user_id)
            raise Undone  # noqa: TRY301  nothing stays
    except Undone:
        session.expire_all()
    return balance, sum(owed for _, owed in debts), recomputed


@pytest.mark.parametrize("begin", [owing, of_every_kind], ids=lambda begin: begin.__name__)
def test_every_order_of_money_back_and_reversals_ends_in_one_state(
    db: Session, begin: Beginning
) -> None:
    """All 120 orders of five: one balance and debt, and once recomputed the same lots and debts.

    While no lot expires in between (decision 0038).
    """
    who = db.info["who"] = make_user(db).user_id
    left = begin(db, who)
    ends = walk(db, who, left, {}, end)
    assert list(ends.values()) == [factorial(len(left))]
