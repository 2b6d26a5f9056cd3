"""What the tests of approvals ask for, and who."""

import datetime as dt
import uuid
from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session

from src.common.approvals.asking import Asked
from src.common.approvals.operations import execute_or_ask
from src.common.approvals.rules import Limits
from src.common.credits.domain.own_commands import ByHand
from src.common.exceptions import ExceptionWithErrorType
from tests.credits.books import adjust, grant, release, reverse

ADA, GRACE = "user:ada", "user:grace"
"""Who asks, and who decides."""
LIMITS = Limits(credits_above=100, refund_cents_above=300, lifetime=dt.timedelta(days=3))
NOTHING_ALONE = Limits(credits_above=0, refund_cents_above=0, lifetime=dt.timedelta(days=3))
"""All that is given takes two."""


def a_grant(user_id: uuid.UUID, amount: int = 500, **others: object) -> ByHand:
    """A grant of Ada's."""
    return grant(user_id, amount, **{"actor": ADA, "reference": "goodwill", **others})


def an_adjustment(user_id: uuid.UUID, amount: int, **others: object) -> ByHand:
    """An adjustment of Ada's."""
    return adjust(user_id, amount, **{"actor": ADA, **others})


def a_reversal(user_id: uuid.UUID, seq: int, amount: int | None = None, **others: object) -> ByHand:
    """A reversal of Ada's."""
    return reverse(user_id, seq, amount, **{"actor": ADA, **others})


def a_release(user_id: uuid.UUID, hold_seq: int, **others: object) -> ByHand:
    """A release of Ada's."""
    return release(user_id, hold_seq, **{"actor": ADA, "reference": "stuck", **others})


def asked(session: Session, command: ByHand, limits: Limits = NOTHING_ALONE) -> Asked:
    """What takes another person's consent, asked for."""
    found = execute_or_ask(session, command, limits)
    assert isinstance(found, Asked)
    return found


def refused(do: Callable[[], object]) -> str:
    """The type of the error with which this is refused."""
    with pytest.raises(ExceptionWithErrorType) as caught:
        do()
    return caught.value.error_type
