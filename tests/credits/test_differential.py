"""The pure rules decide what a model decides that knows the written rules and not the code.

Each run is the same, from the same seed. `just marathon` is the thorough run: a million operations
in rounds, each under a seed of its own.
"""

import os
from collections import Counter
from random import Random

import pytest

from src.common.credits.domain import decisions, reversals, steps
from tests.credits.differential import BALANCE_MAX, KINDS, OPEN_HOLDS_MAX, Life
from tests.credits.model_values import Payment
from tests.credits.wishes import Wish, draw

FIRST = os.environ.get("LEDGER_MODEL_SEED")
"""Of a thorough run."""
SEEDS = [0] if FIRST is None else range(int(FIRST), int(FIRST) + int(os.environ["ROUNDS"]))
OPERATIONS_MIN = 15_000 if FIRST is None else 50_000
EVERYTHING = {
    *("opening", "grant", "spend", "adjustment", "hold", "capture", "release", "hold_expiry"),
    *("renewal", "lot_expiry", "clawback", "debt_repayment", "reinstatement", "replay"),
    *("INSUFFICIENT_CREDITS", "HOLD_NOT_FOUND", "HOLD_CLOSED", "HOLD_EXPIRED", "USER_INACTIVE"),
    *("CAPTURE_EXCEEDS_HOLD", "IDEMPOTENCY_KEY_REUSED", "VALIDATION_ERROR", "TOO_MANY_HOLDS"),
    *("reversal", "ENTRY_NOT_FOUND", "ENTRY_NOT_REVERSIBLE", "REVERSAL_EXCEEDS_ENTRY"),
    *("BALANCE_LIMIT_EXCEEDED", "money back that does not fit", "forgiven"),
}
HISTORIC = (
    (),
    (),
    (Payment("cs_a", 40, 77, None),),
    (Payment("cs_a", 30, 90, None), Payment("cs_b", 50, 0, None)),
)
"""Purchases from before the ledger."""


@pytest.fixture
def _limits_within_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (steps, reversals):
        monkeypatch.setattr(module, "AMOUNT_MAX", BALANCE_MAX)
    monkeypatch.setattr(decisions, "OPEN_HOLDS_MAX", OPEN_HOLDS_MAX)


@pytest.mark.usefixtures("_limits_within_reach")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_rules_do_what_the_model_does(seed: int) -> None:
    """After every step entries, lots, holds, debts, answers and refusals agree: no difference."""
    random = Random(seed)  # noqa: S311  tests are to be repeatable
    happened = Counter[str]()
    operations = 0
    while operations < OPERATIONS_MIN:
        before, historic = random.randint(-60, 60) * random.randrange(2), random.choice(HISTORIC)
        wishes = draw(random, 40, 250, users=1, kinds=KINDS)
        happened += _live(before, historic, wishes)
        operations += len(wishes)
    assert happened.keys() >= EVERYTHING


def _live(before: int, historic: tuple[Payment, ...], wishes: list[Wish]) -> Counter[str]:
    """What happened; where anything differs, the shortest life that shows it."""
    life = Life(before, historic)
    try:
        life.live(wishes)
    except Exception:
        shortest = _shortest(before, historic, wishes)
        try:
            Life(before, historic).live(shortest)
        except Exception as error:
            error.add_note(f"The shortest life that shows it: {before=}, {historic=}, {shortest=}")
            raise
        raise
    return life.happened


def _differs(before: int, historic: tuple[Payment, ...], wishes: list[Wish]) -> bool:
    try:
        Life(before, historic).live(wishes)
    except Exception:  # noqa: BLE001  whatever fails is to be shown by the shortest example
        return True
    return False


def _shortest(before: int, historic: tuple[Payment, ...], wishes: list[Wish]) -> list[Wish]:
    """Leave out whatever is not needed to fail: long stretches first, single wishes at last."""
    size = len(wishes) // 2
    while size:
        start = 0
        while start < len(wishes):
            fewer = wishes[:start] + wishes[start + size :]
            if _differs(before, historic, fewer):
                wishes = fewer
            else:
                start += size
        size //= 2
    return wishes
