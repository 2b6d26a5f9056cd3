"""After any storm, one reconciliation: every payment has its grant, every reversal its clawback.

Two seeds in CI. `just storm` is the long run: each of its rounds is a storm under a seed of its
own, the first one's plus its number; `just storm 1 SEED` replays one.
"""

import os

import pytest

from src.local_postgres import ConnectionParameters
from tests.stripe.aftermath import check_everything
from tests.stripe.simulation import LATER, LONG_AGO, Storm
from tests.stripe.told import check_told

SEED = 20_260
ROUNDS = 2
FIRST = int(os.environ.get("STORM_SEED", SEED))
SEEDS = range(FIRST, FIRST + int(os.environ.get("STORM_ROUNDS", ROUNDS)))
EVERYTHING = {
    *("killed", "done at Stripe", "refused by Stripe", "STRIPE_GATEWAY_ERROR"),
    *("INSUFFICIENT_CREDITS", "payments", "refunds", "disputes", "drift found"),
    *("undone", "endpoint: take", "endpoint: refuse", "endpoint: late", "endpoint away"),
    *("credits.low", "purchase.credited", "purchase.refunded"),
}


def assert_nothing_is_missing(storm: Storm) -> None:
    """Everything holds, and another look at Stripe finds nothing."""
    storm.happened.update(check_everything(storm.offline))
    assert storm.loop.reconcile(LONG_AGO, until=LATER, repairs=False).findings == []


@pytest.mark.parametrize("seed", SEEDS)
def test_after_a_storm_one_reconciliation_restores_everything(
    fresh_database: ConnectionParameters, seed: int
) -> None:
    """Webhooks lost, doubled, late, processes killed: drift 0, credits as rule 5 has them.

    And whoever wanted to be told of it was, of all and of nothing else, in order for each user.
    """
    assert fresh_database
    storm = Storm(seed)
    storm.rage()
    storm.clear_up()
    run = storm.loop.reconcile(LONG_AGO, until=LATER, repairs=True, resumes=True)
    assert (run.status, run.drift) == ("finished", 0), run.findings
    storm.happened["drift found"] = len(run.findings)
    assert_nothing_is_missing(storm)
    storm.calm()  # webhooks of the storm arrive late, and tell nothing new
    assert_nothing_is_missing(storm)
    storm.endpoint.clear_up()
    storm.happened.update(check_told(storm.endpoint))
    if seed == SEED:
        assert storm.happened.keys() >= EVERYTHING
