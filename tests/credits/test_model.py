"""Whatever is asked in whatever order, the ledger on PostgreSQL does what the model does.

Each run is the same: the same seeds, over ten thousand operations for the two drivers together.
`just marathon` is the thorough run for a night: a million operations from a seed it draws and
prints, and takes again to replay them (each example is about 265 operations, for either driver).
"""

import os
import sys
import time
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy.orm import Session

from tests.credits.books import InSession
from tests.credits.machine import OWN_KINDS, LedgerMachine

EXAMPLES = 22
STEPS = 40
OPERATIONS_MIN = 5_000
"""For each driver."""
EXAMPLES_A_LINE = 20
"""How often a thorough run says how far it is."""
EVERYTHING = OWN_KINDS | {
    *("grant", "spend", "adjustment", "hold", "capture", "release", "renewal", "replay"),
    *("INSUFFICIENT_CREDITS", "HOLD_NOT_FOUND", "HOLD_CLOSED", "HOLD_EXPIRED", "USER_INACTIVE"),
    *("CAPTURE_EXCEEDS_HOLD", "IDEMPOTENCY_KEY_REUSED", "VALIDATION_ERROR"),
}


async def test_the_ledger_does_what_the_model_does(in_session: InSession) -> None:
    """After every step all books balance, and balances, lots, holds, debts and answers agree."""
    asked_for = os.environ.get("LEDGER_MODEL_EXAMPLES")
    profile = settings(
        max_examples=int(asked_for or EXAMPLES),
        stateful_step_count=STEPS,
        derandomize=asked_for is None,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )

    def work(session: Session) -> None:
        LedgerMachine.session = session
        LedgerMachine.operations.clear()
        LedgerMachine.after_example = [_progress(int(asked_for))] if asked_for else []
        run_state_machine_as_test(LedgerMachine, settings=profile)

    await in_session(work)
    assert LedgerMachine.operations.keys() >= EVERYTHING
    assert LedgerMachine.operations.total() >= OPERATIONS_MIN, LedgerMachine.operations


def _progress(examples: int) -> Callable[[], None]:
    """Says on stderr, now and then, how many operations there were and how fast."""
    started, done = time.monotonic(), 0

    def report() -> None:
        nonlocal done
        done += 1
        if done % EXAMPLES_A_LINE == 0 or done == examples:
            seconds = time.monotonic() - started
            operations = LedgerMachine.operations.total()
            sys.stderr.write(
                f"{done}/{examples} examples, {operations:,} operations in {seconds:,.0f} s, "
                f"{operations / seconds:,.0f} a second\n"
            )

    return report
