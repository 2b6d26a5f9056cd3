"""Disputes: what the bank has is what was moved, in whatever order it is told."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest
from sqlalchemy.orm import Session

from src.common.credits.domain.reversed_money import money_back
from src.common.models.stripe_reversal import StripeReversal
from src.common.purchases.packages import PACKAGES
from src.common.purchases.reversals import (
    DisputedFunds,
    Movement,
    Reversal,
    disputed_funds,
    supersedes,
)
from src.common.stripe.lookup import Facts
from src.common.stripe.wire_money_back import Dispute
from tests.credits.books import booked_balance, check_books, make_user
from tests.purchases.lives import payment_of, settle, walk

Snapshot = tuple[str, tuple[int, ...]]
"""A dispute's status and its balance transactions, as of one moment."""

# Of 500 cents: what happened, moment by moment, and what the bank has in the end.
LIVES: dict[str, tuple[list[Snapshot], int]] = {
    "lost": ([("needs_response", (-500,)), ("under_review", (-500,)), ("lost", (-500,))], 500),
    "won": ([("needs_response", (-500,)), ("won", (-500,)), ("won", (-500, 500))], 0),
    "given back and taken again": (
        [
            ("needs_response", (-500,)),
            ("under_review", (-500, 500)),
            ("lost", (-500, 500, -500)),
        ],
        500,
    ),
    "won, appealed by the bank, lost": (
        [
            ("needs_response", (-500,)),
            ("won", (-500, 500)),
            ("appeal_needs_response", (-500, 500, -500)),
            ("appeal_under_review", (-500, 500, -500)),
            ("lost", (-500, 500, -500)),
        ],
        500,
    ),
    "won, appealed by the bank, won again": (
        [
            ("won", (-500, 500)),
            ("appeal_under_review", (-500, 500, -500)),
            ("won", (-500, 500, -500)),
            ("won", (-500, 500, -500, 500)),
        ],
        0,
    ),
    "lost but for a part": (
        [("needs_response", (-500,)), ("lost", (-500,)), ("lost", (-500, 100))],
        400,
    ),
    "a part given back, then the rest": (
        [("under_review", (-500,)), ("under_review", (-500, 100)), ("won", (-500, 100, 400))],
        0,
    ),
    "lost and given back after all": ([("lost", (-500,)), ("lost", (-500, 500))], 0),
    "an inquiry that is closed": ([("warning_needs_response", ()), ("warning_closed", ())], 0),
    "an inquiry that is escalated": (
        [("warning_under_review", ()), ("needs_response", (-500,)), ("lost", (-500,))],
        500,
    ),
    "prevented": ([("prevented", ())], 0),
}


def as_reversal(snapshot: Snapshot, name: str = "x") -> Reversal:
    """The snapshot as Stripe would send it, in our own terms."""
    status, amounts = snapshot
    told: dict[str, Any] = {
        "id": f"du_{name}",
        "livemode": False,
        "amount": 500,
        "currency": "usd",
        "status": status,
        "payment_intent": f"pi_{name}",
        "balance_transactions": [{"amount": each, "currency": "usd"} for each in amounts],
    }
    return Dispute.model_validate(told).as_reversal()


def known_as(reversal: Reversal) -> StripeReversal:
    """The row that holds this snapshot."""
    return StripeReversal(
        kind=str(reversal.kind),
        status=reversal.status,
        amount_cents=reversal.amount_cents,
        moved_cents=reversal.moved_cents,
        currency=reversal.currency,
    )


@pytest.mark.parametrize(("life", "taken"), LIVES.values(), ids=LIVES.keys())
def test_what_the_bank_has_is_the_same_in_every_order(life: Sequence[Snapshot], taken: int) -> None:
    """All permutations of a dispute's snapshots, each once and twice, hold the last of them."""
    snapshots = [as_reversal(each) for each in life]
    for order in permutations(snapshots):
        for told in (order, (*order, *order), tuple(each for each in order for _ in range(2))):
            row = known_as(told[0])
            for each in told[1:]:
                row = known_as(each) if supersedes(each, row) else row
            assert money_back([row], "usd").disputed_cents == taken, told


@pytest.mark.parametrize(("life", "taken"), LIVES.values(), ids=LIVES.keys())
def test_every_order_ends_in_the_same_books(
    db: Session, life: Sequence[Snapshot], taken: int
) -> None:
    """A package of 500 credits for 500 cents, paid before, after or amid what its dispute tells."""
    user_id = make_user(db).user_id
    facts = {
        f"{number} {status}": Facts(reversals=(as_reversal((status, moved)),))
        for number, (status, moved) in enumerate(life)
    }
    facts["paid"] = Facts(payments=(payment_of(user_id, "x", PACKAGES[0]),))
    [(balances, _, _, _, purchases, _)] = walk(db, user_id, facts, {})
    assert balances == ((500 - taken,),)
    assert purchases == (("cs_x", 0, taken),)


def test_a_lost_dispute_whose_funds_came_back_in_between_takes_all(db: Session) -> None:
    """One event alone says it all: `closed`, lost, withdrawn twice and reinstated once."""
    user_id = make_user(db).user_id
    settle(db, Facts(payments=(payment_of(user_id, "x", PACKAGES[0]),)))
    settle(db, Facts(reversals=(as_reversal(("lost", (-500, 500, -500))),)))
    assert booked_balance(db, user_id) == 0
    check_books(db)


def test_what_a_refund_had_paid_before_is_not_taken_twice(db: Session) -> None:
    """$35 disputed, $5 of them refunded before and so returned: lost, $30 are with the bank."""
    user_id = make_user(db).user_id
    package = next(each for each in PACKAGES if each.price_cents == 3_500)
    settle(db, Facts(payments=(payment_of(user_id, "x", package),)))
    told = Dispute.model_validate(
        {
            "id": "du_x",
            "livemode": False,
            "amount": 3_500,
            "currency": "usd",
            "status": "lost",
            "payment_intent": "pi_x",
            "balance_transactions": [{"amount": -3_500}, {"amount": 500}],
        }
    )
    settle(db, Facts(reversals=(told.as_reversal(event_type="charge.dispute.closed"),)))
    assert booked_balance(db, user_id) == 5_000 - 4_286


def moved(*amounts: int, currency: str = "usd", rate: str | None = None) -> list[Movement]:
    """Balance transactions."""
    return [Movement(each, currency, Decimal(rate) if rate else None) for each in amounts]


# An account's balance may be in another currency than the dispute: amount, currency, movements.
EXCHANGED: dict[str, tuple[int, str, list[Movement], tuple[str, int]]] = {
    "all of it": (500, "eur", moved(-545, rate="1.09"), ("withdrawn", 500)),
    "and back at another rate": (
        500,
        "eur",
        moved(-545, rate="1.09") + moved(551, rate="1.102"),
        ("reinstated", 500),
    ),
    "a part of it back": (
        500,
        "eur",
        moved(-545, rate="1.09") + moved(110, rate="1.1"),
        ("withdrawn", 400),
    ),
    "yen, rounded to cents": (
        3_333,
        "jpy",
        moved(-22, rate="0.0066") + moved(23, rate="0.0068"),
        ("reinstated", 3_333),
    ),
    "a rate that is not told": (500, "eur", moved(-545), ("withdrawn", 500)),
    "nor of what came back": (500, "eur", moved(-545, 109), ("withdrawn", 400)),
}


@pytest.mark.parametrize(
    ("amount", "currency", "movements", "expected"), EXCHANGED.values(), ids=EXCHANGED.keys()
)
def test_what_was_moved_counts_in_the_disputes_own_currency(
    amount: int, currency: str, movements: list[Movement], expected: tuple[str, int]
) -> None:
    """Each movement at the rate Stripe tells with it."""
    funds = disputed_funds(amount, currency, status="lost", movements=movements)
    assert (funds.status, funds.amount_cents) == expected


@pytest.mark.parametrize(
    ("status", "told", "expected"),
    [
        ("needs_response", None, DisputedFunds("inquiry", 500, 0)),
        ("needs_response", "withdrawn", DisputedFunds("withdrawn", 500, 500)),
        ("under_review", "reinstated", DisputedFunds("reinstated", 500, 1_000)),
        ("lost", None, DisputedFunds("withdrawn", 500, 500)),
        ("lost", "reinstated", DisputedFunds("reinstated", 500, 1_000)),
        ("won", None, DisputedFunds("reinstated", 500, 1_000)),
        (None, None, DisputedFunds("inquiry", 500, 0)),
    ],
)
def test_without_movements_the_status_says_it(
    status: str | None, told: str | None, expected: DisputedFunds
) -> None:
    """Or the event's type, where the object is not as far as its event."""
    assert disputed_funds(500, "usd", status=status, told=told) == expected


def test_a_status_without_movements_is_not_overtaken_by_an_older_snapshot() -> None:
    """Won, told without its movements; then the event of the withdrawal comes late."""
    won = replace(as_reversal(("won", ())), reversal_id=str(uuid.uuid4()))
    assert not supersedes(as_reversal(("needs_response", (-500,))), known_as(won))
    assert supersedes(won, known_as(as_reversal(("needs_response", (-500,)))))


def test_what_was_moved_is_told_in_the_disputes_own_currency() -> None:
    """However its snapshots came by it: a listed withdrawal and a told one are as far."""
    told = disputed_funds(10_000, "jpy", status="needs_response", told="withdrawn")
    listed = disputed_funds(
        10_000,
        "jpy",
        status="needs_response",
        movements=[Movement(-6_500, "usd", Decimal("0.65"))],
    )
    again = disputed_funds(
        10_000,
        "jpy",
        status="lost",
        movements=[Movement(sign * 6_500, "usd", Decimal("0.65")) for sign in (-1, 1, -1)],
    )
    won = disputed_funds(10_000, "jpy", status="won")
    assert told.moved_cents == listed.moved_cents == 10_000
    assert (won.moved_cents, again.moved_cents) == (20_000, 30_000)
