"""The life of a payment, event by event, settled in a session as the inbox would."""

import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from src.common.credits.domain.reversals import TAKING_KINDS
from src.common.models.stripe_reversal import ReversalKind
from src.common.purchases.packages import PACKAGES, Package
from src.common.purchases.reversals import Reversal
from src.common.purchases.rules import Payment, Terms
from src.common.stripe import inbox
from src.common.stripe.lookup import Facts
from src.common.stripe.wire import CheckoutSession
from tests.credits.books import check_books
from tests.stripe.payments import make_session

TERMS = Terms(env="local", livemode=False, packages=PACKAGES)
State = tuple[Any, ...]
Ends = Counter[State]
Step = Facts | Callable[[Session], object]
"""What an event tells, or what somebody asks of the ledger."""


def payment_of(user_id: uuid.UUID, name: str, package: Package) -> Payment:
    """A paid session of this user, its ids made from `name`."""
    session = make_session(user_id, package, id=f"cs_{name}", payment_intent=f"pi_{name}")
    return CheckoutSession.model_validate(session).as_payment()


def refund(name: str, status: str, cents: int, number: int = 1) -> Reversal:
    """A snapshot of a refund of the payment `name`."""
    return Reversal(
        livemode=False,
        reversal_id=f"re_{name}_{number}",
        kind=ReversalKind.REFUND,
        status=status,
        amount_cents=cents,
        currency="usd",
        payment_intent_id=f"pi_{name}",
    )


def dispute(name: str, status: str, cents: int) -> Reversal:
    """A snapshot of a dispute of the payment `name`."""
    return replace(refund(name, status, cents), reversal_id=f"dp_{name}", kind=ReversalKind.DISPUTE)


def life_of(payment: Payment, name: str) -> dict[str, Facts]:
    """Paid twice, refunded in part and once more, disputed and won, the first refund failed."""
    return {
        "paid": Facts(payments=(payment,)),
        "paid again": Facts(payments=(payment,)),
        "refunded": Facts(reversals=(refund(name, "succeeded", 200, 1),)),
        "refunded more": Facts(reversals=(refund(name, "pending", 150, 2),)),
        "disputed": Facts(reversals=(dispute(name, "withdrawn", 400),)),
        "reinstated": Facts(reversals=(dispute(name, "reinstated", 400),)),
        "refund failed": Facts(reversals=(refund(name, "failed", 200, 1),)),
    }


def settle(session: Session, step: Step, cause: str = "evt") -> None:
    """What the inbox does with an event's facts; what is asked is done."""
    if isinstance(step, Facts):
        inbox.apply(session, step, TERMS, cause=cause)
    else:
        step(session)


_STATE = text("""
WITH mine AS (
    SELECT * FROM transactions WHERE user_id = :user_id
), lots AS (
    SELECT l.seq, l.source, t.stripe_session_id AS name, l.granted, l.remaining
    FROM credit_lots l LEFT JOIN mine t USING (transaction_id) WHERE l.user_id = :user_id
), taken AS (
    -- What clawbacks and repayments took and gave back: what money back may still reach.
    SELECT l.source, l.name, sum(p.amount) AS amount
    FROM lots l
    JOIN credit_postings p ON p.user_id = :user_id AND p.lot_seq = l.seq
    JOIN credit_entries e ON e.user_id = :user_id AND e.seq = p.seq AND e.kind = ANY (:taking)
    GROUP BY l.seq, l.source, l.name HAVING sum(p.amount) <> 0
)
SELECT part, values FROM (
    SELECT 0 AS part, jsonb_build_array(credits_balance) AS values
    FROM users WHERE user_id = :user_id
    UNION ALL SELECT 1, jsonb_build_array(source, name, granted, remaining) FROM lots
    UNION ALL SELECT 2, jsonb_build_array(source, name, amount) FROM taken
    UNION ALL SELECT 3, jsonb_build_array(name, outstanding)
    FROM credit_debts d JOIN lots USING (seq) WHERE d.user_id = :user_id AND outstanding > 0
    UNION ALL SELECT 4, jsonb_build_array(stripe_session_id, refunded_cents, disputed_cents)
    FROM mine
    UNION ALL SELECT 5, jsonb_build_array(reversal_id, status, amount_cents, stripe_session_id)
    FROM stripe_reversals JOIN mine USING (transaction_id)
) rows ORDER BY part, values
""")


def state_of(session: Session, user_id: uuid.UUID) -> State:
    """What rule 5 promises to be the same in any order, lots and debts named by their payment."""
    session.expire_all()
    parts: list[list[tuple[Any, ...]]] = [[] for _ in range(6)]
    for part, values in session.execute(
        _STATE, {"user_id": user_id, "taking": list(map(str, TAKING_KINDS))}
    ):
        parts[part].append(tuple(values))
    return tuple(tuple(part) for part in parts)


class Undone(Exception):
    """Raised in a savepoint of which nothing is to stay."""


def walk(
    session: Session,
    user_id: uuid.UUID,
    left: Mapping[str, Step],
    seen: dict[tuple[frozenset[str], State], Ends],
    end: Callable[[Session, uuid.UUID], State] = state_of,
) -> Ends:
    """Settle what is left in every order; how many orders end in which state, as `end` tells it.

    The orders are a tree of savepoints. Where two orders of the same events have come to the very
    same state, with everything money back may still reach, they go on as one: what follows is
    decided by that state alone.
    """
    here = frozenset(left), state_of(session, user_id)
    if here not in seen:
        if not left:
            check_books(session)
        seen[here] = Ends() if left else Ends({end(session, user_id): 1})
        for name, step in left.items():
            rest = {other: each for other, each in left.items() if other != name}
            try:
                with session.begin_nested():
                    settle(session, step, name)
                    seen[here] += walk(session, user_id, rest, seen, end)
                    raise Undone  # noqa: TRY301  nothing stays
            except Undone:
                session.expire_all()
    return seen[here]
