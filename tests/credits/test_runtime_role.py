"""The role a deployed service connects as: everything it needs, and no way to rewrite history."""

import secrets
import uuid
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from src.common import worker_failures
from src.common.accounts.api_keys import create_api_key
from src.common.accounts.operations import create_user, erase_user
from src.common.credits import ledger, unbookable
from src.common.credits.due import expire_due
from src.common.credits.verification.drift import drift, verify_next_slice
from src.common.database import SessionLocal, get_engine
from src.common.models import Base
from src.common.models.stripe_reversal import ReversalKind, StripeReversal
from src.common.postgres.kept_errors import KeptError
from src.common.postgres.runtime_role import PRIVILEGES, grant_runtime
from src.common.purchases.money_back import record_reversal
from src.common.purchases.operations import settle_payment
from src.common.purchases.packages import PACKAGES
from src.common.purchases.reversals import Reversal
from src.common.purchases.rules import Terms
from src.common.stripe.wire import CheckoutSession
from src.local_postgres import ConnectionParameters
from tests.stripe.development import checkout_session


@pytest.fixture
def as_runtime(fresh_database: ConnectionParameters) -> Generator[Session]:
    """A session of the least-privilege role."""
    assert fresh_database
    role = f"runtime_{secrets.token_hex(4)}"
    with get_engine().begin() as connection:
        assert grant_runtime(connection, role)
    with SessionLocal() as session:
        session.execute(text(f"SET SESSION AUTHORIZATION {role}"))
        session.commit()
        yield session
        session.rollback()
        session.execute(text("RESET SESSION AUTHORIZATION"))
        session.commit()
    with get_engine().begin() as connection:
        connection.execute(text(f"DROP OWNED BY {role}"))
        connection.execute(text(f"DROP ROLE {role}"))


def test_it_can_note_whatever_stripe_tells_later_of_money_back(as_runtime: Session) -> None:
    """An inquiry that becomes a dispute moves funds; whose it is may be learnt later."""
    inquiry = Reversal(
        livemode=False,
        reversal_id="dp_1",
        kind=ReversalKind.DISPUTE,
        status="inquiry",
        amount_cents=500,
        currency="usd",
        payment_intent_id=None,
    )
    assert record_reversal(as_runtime, inquiry)
    told: dict[str, Any] = {
        "status": "withdrawn",
        "moved_cents": 500,
        "stripe_account": "acct_theirs",
    }
    assert record_reversal(as_runtime, replace(inquiry, payment_intent_id="pi_1", **told))
    as_runtime.commit()
    noted = as_runtime.query(StripeReversal).one()
    assert {name: getattr(noted, name) for name in told} == told


def test_it_can_do_every_operation(as_runtime: Session) -> None:
    """Users, purchases, every movement of credits, keys and erasure work, deferred checks too."""
    user_id = create_user(as_runtime, email=f"{uuid.uuid4()}@example.com").user_id
    paid = CheckoutSession.model_validate(
        checkout_session(user_id=user_id, package=PACKAGES[0], env="local")
    )
    settle_payment(
        as_runtime, paid.as_payment(), Terms(env="local", packages=PACKAGES), cause="evt_1"
    )
    ledger.spend(as_runtime, user_id, 10, key="s", metadata={"slides": 3})
    hold = ledger.open_hold(as_runtime, user_id, 20, expires_in_seconds=60, key="h")
    ledger.renew(as_runtime, user_id, hold.seq, expires_in_seconds=90, key="n")
    ledger.capture(as_runtime, user_id, hold.seq, 5, key="c")
    create_api_key(as_runtime, service_name="renderer", scopes=["credits:spend"])
    as_runtime.commit()
    assert verify_next_slice(as_runtime, slice_users=10, interval_seconds=0) is not None
    assert drift(as_runtime).users == 0
    unbookable.note(as_runtime, user_id, KeptError("ValueError", "in a test"))
    assert unbookable.due_for_retry(as_runtime, 1) == []
    unbookable.forget(as_runtime, [user_id])
    worker_failures.note(as_runtime, "bookings", KeptError("ValueError", "in a test"))
    assert worker_failures.count_failures(as_runtime) == {"bookings": 1}
    assert expire_due(as_runtime) == 0
    erase_user(as_runtime, user_id)
    as_runtime.commit()
    assert ledger.balance(as_runtime, user_id).balance == 485


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE credit_entries SET amount = 1",
        "DELETE FROM credit_postings",
        "TRUNCATE credit_entries CASCADE",
        "UPDATE credit_lots SET granted = 1000000",
        "DELETE FROM users",
        "ALTER TABLE credit_entries DISABLE TRIGGER ALL",
        "SET session_replication_role = replica",
        "DROP TABLE users",
        "CREATE TABLE mine (id integer)",
    ],
)
def test_it_can_rewrite_nothing(as_runtime: Session, statement: str) -> None:
    """History, fixed columns, triggers and tables are out of its reach."""
    with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"):
        as_runtime.execute(text(statement))


def test_every_table_is_named() -> None:
    """A new table needs a decision about what the service may do with it."""
    assert set(PRIVILEGES) == {*Base.metadata.tables, "alembic_version"}
