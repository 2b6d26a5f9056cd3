"""The check `approvals`: what waits for people and for Stripe, and the triggers that guard it."""

import datetime as dt

import pytest

from src.common.models import Approval, RefundRequest
from tests.credits.books import write_purchase
from tests.credits.ledger import someone
from tests.doctor.system import System, asked


@pytest.mark.parametrize(
    ("hours", "status", "seen"),
    [
        (1, "ok", "1 request without a decision, the oldest for 60 min."),
        (48, "warn", "1 request without a decision, the oldest for 2 days."),
        (73, "ok", "Nothing waits for another person's consent."),
    ],
)
def test_a_request_that_waits_long_is_told(
    system: System, hours: int, status: str, seen: str
) -> None:
    """What has expired waits no longer."""
    then = dt.datetime.now(dt.UTC) - dt.timedelta(hours=hours)
    system.add(
        Approval,
        user_id=someone(system.db),
        created_at=then,
        expires_at=then + dt.timedelta(hours=72),
    )
    found = asked("approvals")
    assert (found.status, found.seen) == (status, seen)
    assert found.status == "ok" or found.next == "flashslides approvals list"


@pytest.mark.parametrize(("minutes", "status"), [(5, "ok"), (60, "warn")])
def test_a_refund_with_consent_that_stripe_does_not_answer_is_told(
    system: System, minutes: int, status: str
) -> None:
    """The worker goes on with it, unless something is wrong."""
    user_id = someone(system.db)
    bought = write_purchase(system.db, user_id, 500)
    system.add(
        RefundRequest,
        transaction_id=bought.transaction_id,
        idempotency_key=f"~approval:{user_id}",
        created_at=dt.datetime.now(dt.UTC) - dt.timedelta(minutes=minutes),
    )
    found = asked("approvals")
    assert (found.status, "not answered by Stripe" in found.seen) == (status, status == "warn")


def test_triggers_that_are_off_are_told(system: System) -> None:
    """As the ledger's."""
    system.run("ALTER TABLE approvals DISABLE TRIGGER approvals_guarded")
    found = asked("triggers")
    assert (found.status, "approvals_guarded on approvals" in found.seen) == ("fail", True)
