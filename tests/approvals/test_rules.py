"""Who may decide, and until when: pure."""

import datetime as dt

import pytest

from src.common.approvals.rules import ApprovalStatus, check_decision, status_of
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.approval import Approval, Decision
from tests.approvals.requests import ADA, GRACE

NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
MICROSECOND = dt.timedelta(microseconds=1)


def a_request(status: Decision = Decision.OPEN) -> Approval:
    """Ada's, which expires at noon."""
    decider = None if status is Decision.OPEN else GRACE
    return Approval(requester=ADA, status=status, expires_at=NOON, decider=decider)


def answer(approval: Approval, decision: Decision, decider: str, now: dt.datetime) -> str:
    """What the rules say to it."""
    try:
        check_decision(approval, decision, decider, now)
    except ExceptionWithErrorType as refused:
        return refused.error_type
    return "allowed"


@pytest.mark.parametrize(
    ("decision", "decider", "said"),
    [
        (Decision.CONSENTED, GRACE, "allowed"),
        (Decision.CONSENTED, ADA, "APPROVAL_IS_OWN"),
        (Decision.REFUSED, GRACE, "allowed"),
        (Decision.REFUSED, ADA, "APPROVAL_IS_OWN"),
        (Decision.WITHDRAWN, ADA, "allowed"),
        (Decision.WITHDRAWN, GRACE, "FORBIDDEN"),
    ],
)
def test_whoever_asked_withdraws_and_anybody_else_decides(
    decision: Decision, decider: str, said: str
) -> None:
    """Up to the last instant before the expiry, and from that instant on nobody."""
    assert answer(a_request(), decision, decider, NOON - MICROSECOND) == said
    assert answer(a_request(), decision, decider, NOON) == "APPROVAL_EXPIRED"


@pytest.mark.parametrize("decision", [Decision.CONSENTED, Decision.REFUSED, Decision.WITHDRAWN])
@pytest.mark.parametrize("before", [Decision.CONSENTED, Decision.REFUSED, Decision.WITHDRAWN])
def test_what_was_decided_stays_decided(before: Decision, decision: Decision) -> None:
    """Whoever comes second is told so, before the expiry and after it."""
    for now in (NOON - MICROSECOND, NOON):
        assert answer(a_request(before), decision, "user:mary", now) == "APPROVAL_DECIDED"


@pytest.mark.parametrize("status", Decision)
def test_only_what_is_open_expires(status: Decision) -> None:
    """At the very instant, and not before."""
    approval = a_request(status)
    assert status_of(approval, NOON - MICROSECOND) == str(status)
    expected = ApprovalStatus.EXPIRED if status is Decision.OPEN else ApprovalStatus(status)
    assert status_of(approval, NOON) is expected
