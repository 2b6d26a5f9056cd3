"""Whatever is asked in whatever order, the ledger on PostgreSQL does what the model does.

Each run is the same: the same seeds, one after the other, until ten thousand operations have been
done by the two drivers together. `just marathon` is the thorough run for a night: a million
operations in rounds, each under a seed of its own, the first one's plus its number; `just marathon
1 SEED` replays one.
"""

import os
from itertools import count

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy.orm import Session

from tests.credits.books import InSession
from tests.credits.clock import settable_clock
from tests.credits.forging_machine import ForgingMachine
from tests.credits.machine import OWN_KINDS

FIRST = os.environ.get("LEDGER_MODEL_SEED")
"""Of a thorough run."""
SEEDS = [0] if FIRST is None else range(int(FIRST), int(FIRST) + int(os.environ["ROUNDS"]))
SEEDS_APART = 2**32
"""Where one example after the other is not enough, from one seed of a round to its next."""
EXAMPLES = 6 if FIRST is None else 50
STEPS = 40
OPERATIONS_MIN = 5_000 if FIRST is None else 25_000
"""For each driver."""
OPERATIONS_MAX = 5 * OPERATIONS_MIN
"""As many at most, until everything has happened."""
EVERYTHING = OWN_KINDS | {
    *("grant", "spend", "adjustment", "hold", "capture", "release", "renewal", "replay"),
    *("INSUFFICIENT_CREDITS", "HOLD_NOT_FOUND", "HOLD_CLOSED", "HOLD_EXPIRED", "USER_INACTIVE"),
    *("CAPTURE_EXCEEDS_HOLD", "IDEMPOTENCY_KEY_REUSED", "VALIDATION_ERROR"),
    *("reversal", "ENTRY_NOT_FOUND", "ENTRY_NOT_REVERSIBLE", "REVERSAL_EXCEEDS_ENTRY"),
    *("unit of work", "purchase of application code", "BALANCE_CHANGE_AMBIGUOUS", "forgery"),
}


@pytest.mark.timeout(900)  # thousands of operations, on a machine that may be busy
@pytest.mark.parametrize("round_seed", SEEDS)
async def test_the_ledger_does_what_the_model_does(in_session: InSession, round_seed: int) -> None:
    """After every step all books balance, and balances, lots, holds, debts and answers agree."""
    profile = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    operations = ForgingMachine.operations
    operations.clear()

    def work(session: Session) -> None:
        ForgingMachine.bind = session.connection()
        ForgingMachine.make_role(ForgingMachine.bind)
        seeds = count(round_seed, SEEDS_APART)
        with settable_clock(ForgingMachine.bind):
            # What a seed draws depends on the modules that are loaded, and so on other tests.
            while operations.total() < OPERATIONS_MIN or (
                operations.total() < OPERATIONS_MAX and not operations.keys() >= EVERYTHING
            ):
                machine = seed(next(seeds))(ForgingMachine)
                run_state_machine_as_test(machine, settings=profile)

    await in_session(work)
    assert operations.keys() >= EVERYTHING
