"""`flashslides credits refund`: paid back once, also by somebody who was told of an error."""

import pytest
from sqlalchemy.orm import Session

from src.common.models.transaction import Transaction
from src.common.models.user import User
from src.common.stripe.offline import Trouble, TroubleKind
from tests.cli.conftest import RunCommand
from tests.credits.books import booked_balance
from tests.stripe.loop import Loop, only_purchase


@pytest.fixture
def purchase(db: Session, loop: Loop, user: User) -> Transaction:
    """500 credits for 500 cents."""
    loop.offline.pay(loop.session_of(loop.buy(user.user_id)))
    loop.deliver(loop.webhooks())
    return only_purchase(db)


def test_whoever_was_told_of_an_error_asks_again_with_the_key_it_names(
    db: Session, loop: Loop, user: User, purchase: Transaction, flashslides: RunCommand
) -> None:
    """Stripe paid back and its answer was lost: another key would pay back once more."""
    command = ("credits", "refund", str(purchase.transaction_id), "--amount-cents", "200")
    loop.offline.troubles.add(Trouble(TroubleKind.SLOW, times=50, delay_seconds=60))
    failed = flashslides(*command)
    assert failed.exit_code == 75, failed.err
    assert len(list(loop.offline.account.all("refund"))) == 1
    [key] = [word for word in failed.err.split() if word.startswith("cli:")]
    assert f"--key {key}" in failed.err
    loop.offline.troubles.clear()
    again = flashslides(*command, "--key", key, "--json")
    assert (again.exit_code, again.json["amount_cents"], again.json["key"]) == (0, 200, key)
    assert len(list(loop.offline.account.all("refund"))) == 1
    assert booked_balance(db, user.user_id) == 300


def test_an_empty_key_is_refused(
    loop: Loop, purchase: Transaction, flashslides: RunCommand
) -> None:
    """A variable that was not set is no wish for a new key: each run would pay back once more."""
    refused = flashslides("credits", "refund", str(purchase.transaction_id), "--key", "")
    assert refused.exit_code == 2
    assert "key: must be 1 to 255" in refused.err
    assert not list(loop.offline.account.all("refund"))
