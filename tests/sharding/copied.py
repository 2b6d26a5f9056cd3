"""A database in no groups with some of everything, one with groups, and copying between them."""

import configparser
import os
import secrets
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from src.common.credits.domain.commands import Capture, OpenHold, Spend
from src.common.credits.operations import execute
from src.common.database import SessionLocal, dispose_db
from src.common.models import (
    AnchorSink,
    ApiKey,
    Approval,
    ChargedRequest,
    CheckoutOrder,
    ConsoleAction,
    ConsoleSession,
    CreditBookingFailure,
    Reconciliation,
    RefundRequest,
    StripeEvent,
    Transaction,
    UnmatchedPayment,
)
from src.common.settings import get_settings
from src.common.sharding.copying.copy import Copy, opened
from src.common.sharding.copying.parity import Parity
from src.local_postgres import ConnectionParameters
from tests.credits.books import grant
from tests.credits.model_values import MoneyBack
from tests.credits.stripe_side import PACKAGES, pay, tell
from tests.fixtures.databases import Server, point_to
from tests.models.examples import a_user
from tests.models.right_rows import NOW, RIGHT
from tests.notices.outbox import EVERYTHING, add_endpoint
from tests.postgres.drivers import open_connection
from tests.sharding.conftest import GROUPS, Template

THREE = GROUPS[:3]
"""The groups that take users."""
EVERYBODYS = (
    *(AnchorSink, ApiKey, ConsoleSession, Reconciliation, StripeEvent),
    UnmatchedPayment,
)


@dataclass(frozen=True)
class Two:
    """The database that was there before, and the one with groups."""

    old: ConnectionParameters
    divided: ConnectionParameters
    patch: pytest.MonkeyPatch

    def use(self, connection: ConnectionParameters) -> None:
        """Have the process's settings name this one."""
        dispose_db()
        self.patch.setenv("SHARDING", "schemas" if connection is self.divided else "none")
        point_to(self.patch, connection)

    def service_of(self, connection: ConnectionParameters) -> str:
        """The name by which libpq finds the other one, whose password is in another file."""
        return "old" if connection is self.divided else "new"

    @contextmanager
    def copying(self, into: ConnectionParameters) -> Generator[Copy]:
        """Copy into this one."""
        self.use(into)
        with opened(get_settings(), self.service_of(into)) as copy:
            yield copy

    def copied(self, into: ConnectionParameters, *, cut_over: bool = False) -> Parity:
        """Copy into this one, once."""
        with self.copying(into) as copy:
            return last_of(copy.cut_over() if cut_over else copy.copy())

    def compared(self, into: ConnectionParameters) -> Parity:
        """Compare only."""
        with self.copying(into) as copy:
            return last_of(copy.compare())


def last_of(steps: Generator[Parity]) -> Parity:
    """What is said in the end."""
    *_, parity = steps
    return parity


@pytest.fixture
def two(
    server: Server, groups_template: Template, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Generator[Two]:
    """Two databases on one server: in no groups, and in three. libpq's files name them."""
    old = server.clone(f"old_{secrets.token_hex(4)}")
    divided = groups_template.clone(f"divided_{secrets.token_hex(4)}")
    with open_connection(divided) as admin:
        admin.execute("UPDATE user_groups SET is_open = schema = ANY (%s)", [THREE])
    services = configparser.ConfigParser()
    for name, connection in (("old", old), ("new", divided)):
        services[name] = {
            "host": connection.host,
            "port": str(connection.port),
            "user": connection.user,
            "dbname": connection.database,
        }
    with (tmp_path / "services").open("w", encoding="utf-8") as written:
        services.write(written, space_around_delimiters=False)
    passwords = tmp_path / "passwords"
    passwords.touch(0o600)
    passwords.write_text(f"*:*:*:{old.user}:{old.password}\n", encoding="utf-8")
    monkeypatch.setenv("PGSERVICEFILE", os.fspath(tmp_path / "services"))
    monkeypatch.setenv("PGPASSFILE", os.fspath(passwords))
    both = Two(old, divided, monkeypatch)
    try:
        yield both
    finally:
        dispose_db()
        monkeypatch.undo()
        get_settings.cache_clear()
        for connection in (old, divided):
            server.drop(connection.database)


def fill(number: int = 6) -> list[uuid.UUID]:
    """Users with some of everything, in the database that the settings name: in no groups."""
    with SessionLocal.begin() as session:
        for model in EVERYBODYS:
            session.add(model(**RIGHT[model]))
        add_endpoint(session, *EVERYTHING)
        tell(session, MoneyBack("re_waits", "refund", "pi_unknown", "succeeded", 77))
    with SessionLocal.begin() as session:  # the trail is of those who are signed in just now
        session.execute(text("SET LOCAL session_replication_role = replica"))
        session.add(ConsoleAction(**RIGHT[ConsoleAction]))
    return [_somebody(each) for each in range(number)]


def _somebody(number: int) -> uuid.UUID:
    with SessionLocal.begin() as session:
        owner = a_user(stripe_customer_id=f"cus_{number}", email=f"Émile{number}@example.com")
        session.add(owner)
        session.flush()
        asked: dict[str, Any] = {"user_id": owner.user_id, "actor": "system:test"}
        execute(session, [grant(owner.user_id, 500)])
        execute(session, [Spend(**asked, key="a", amount=30, metadata={"slides": number})])
        execute(session, [OpenHold(**asked, key="b", amount=40, expires_in_seconds=9_000)])
        execute(session, [Capture(**asked, key="c", hold_seq=3, amount=10)])
        execute(session, [OpenHold(**asked, key="d", amount=40, expires_in_seconds=9_000)])
        pay(session, owner.user_id, f"pi_{number}", PACKAGES[1])
        tell(session, MoneyBack(f"re_{number}", "refund", f"pi_{number}", "succeeded", 7))
        execute(session, [Spend(**asked, key="e", amount=456)])
        tell(session, MoneyBack(f"dp_{number}", "dispute", f"pi_{number}", "withdrawn", 70))
        bought = session.query(Transaction).filter_by(payment_intent_id=f"pi_{number}").one()
        session.add_all(
            (
                Approval(
                    **RIGHT[Approval] | {"idempotency_key": f"{number}"}, user_id=owner.user_id
                ),
                ChargedRequest(**RIGHT[ChargedRequest], user_id=owner.user_id),
                CreditBookingFailure(
                    user_id=owner.user_id,
                    credits_version=1,
                    error_type="LEDGER_UNBALANCED",
                    message="a test's",
                    attempts=1,
                    next_attempt_at=NOW,
                ),
                RefundRequest(**RIGHT[RefundRequest], transaction_id=bought.transaction_id),
                CheckoutOrder(
                    **RIGHT[CheckoutOrder],
                    user_id=owner.user_id,
                    stripe_session_id=f"cs_pi_{number}",
                ),
            )
        )
        return owner.user_id


def digests(parity: Parity, side: str = "here") -> dict[str, tuple[int, str]]:
    """Of each table how many rows, and their digest."""
    return {
        table: (getattr(both, side).rows, getattr(both, side).digest)
        for table, both in parity.tables.items()
    }
