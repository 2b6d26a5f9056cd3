"""One object, user or event that cannot be dealt with: a finding, and nobody else's concern."""

import datetime as dt
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import pytest

from src.common.credits.operations import execute
from src.common.credits.persistence.storage import lock_users
from src.common.database import SessionLocal
from src.common.exceptions import DatabaseBusy
from src.common.models.reconciliation import Reconciliation
from src.common.postgres.errors import RetryableDatabaseError
from src.common.settings import get_settings
from src.common.stripe.findings import concerns_others
from src.common.stripe.gateway_errors import StripeGatewayError, UnreadableObject
from src.local_postgres import ConnectionParameters
from tests.credits.books import grant, make_user
from tests.credits.committed import balances
from tests.credits.verification.test_verify import corrupt
from tests.stripe.loop import Loop, start_loop

AT_FAULT = 1


@dataclass(frozen=True)
class Lost:
    """Three users whose payments nobody told us of."""

    loop: Loop
    people: Sequence[uuid.UUID]
    sessions: Sequence[str]

    def reconcile(self) -> Reconciliation:
        """Mend what was lost."""
        since = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
        return self.loop.reconcile(since, repairs=True)


@pytest.fixture
def lost(fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch) -> Lost:
    """Nobody told us of what they bought; each has 10 credits from before."""
    assert fresh_database
    monkeypatch.setenv("DATABASE_LOCK_TIMEOUT_MS", "50")
    get_settings.cache_clear()
    loop = start_loop()
    with SessionLocal.begin() as session:
        people = [make_user(session).user_id for _ in range(3)]
        execute(session, [grant(user_id, 10) for user_id in people])
    bought = [loop.session_of(loop.buy(user_id)) for user_id in people]
    for session_id in bought:
        loop.offline.pay(session_id)
    return Lost(loop, people, bought)


@contextmanager
def unreadable(lost: Lost) -> Generator[None]:
    """Stripe answers with a session whose amount is no number."""
    session = lost.loop.offline.account.get("checkout.session", lost.sessions[AT_FAULT])
    events = [
        each["data"]["object"]
        for each in lost.loop.offline.account.all("event")
        if each["data"]["object"]["id"] == session["id"]
    ]
    for each in (session, *events):
        each["amount_subtotal"] = "five dollars"
    yield
    for each in (session, *events):
        each["amount_subtotal"] = 500


@contextmanager
def damaged(lost: Lost) -> Generator[None]:
    """The user's books do not balance: nothing can be booked."""
    setting = "UPDATE users SET credits_balance = {} WHERE user_id = :user_id"
    corrupt(setting.format(11), lost.people[AT_FAULT])
    yield
    corrupt(setting.format(10), lost.people[AT_FAULT])


@contextmanager
def locked(lost: Lost) -> Generator[None]:
    """Somebody keeps the user's row locked."""
    with SessionLocal() as other:
        lock_users(other, [lost.people[AT_FAULT]])
        yield


@pytest.mark.parametrize("at_fault", [unreadable, damaged, locked])
def test_a_comparison_goes_on_past_one_at_fault(
    lost: Lost, at_fault: Callable[[Lost], AbstractContextManager[None]]
) -> None:
    """The others are credited, the run ends, says what is left; and mends it once it can."""
    with at_fault(lost):
        run = lost.reconcile()
    assert run.status == "finished"
    left = {each["object"] for each in run.findings if not each["mended"]}
    assert lost.sessions[AT_FAULT] in left
    assert not left & {*lost.sessions} - {lost.sessions[AT_FAULT]}
    assert run.drift == len(left)
    assert balances(lost.people) == [510, 10, 510]
    assert lost.reconcile().drift == 0
    assert balances(lost.people) == [510] * 3


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (StripeGatewayError("silent"), True),
        (StripeGatewayError("no such thing", "resource_missing", is_refusal=True), False),
        (UnreadableObject("without id"), False),
        (DatabaseBusy(), True),
        (RetryableDatabaseError(None, None, "connection lost"), True),
        (RetryableDatabaseError("57P01", None, "server shutting down"), True),
        (RetryableDatabaseError("55P03", None, "lock not granted in time"), False),
        (RetryableDatabaseError("57014", None, "statement took too long"), False),
        (KeyError("a bug"), False),
    ],
    ids=repr,
)
def test_who_else_an_error_concerns(error: Exception, *, expected: bool) -> None:
    """Where Stripe or the database do not answer, there is no point in the next object."""
    assert concerns_others(error) == expected
