"""How many statements each page takes: so many, however many rows there are."""

import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, event, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from src.common.async_database import run_in_async_database_transaction
from src.common.credits import ledger
from src.common.credits.operations import execute
from src.common.database import SessionLocal
from src.common.models.reconciliation import Reconciliation
from src.common.models.stripe_event import StripeEvent
from src.common.models.transaction import Transaction
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.reports.catalogue import ReportName, Wanted, read_report
from src.common.reports.snapshots import begin_report
from src.common.settings import get_settings
from src.console.overview_figures import read_figures
from src.console.pages.doctor import examined
from src.console.permissions import Role
from src.local_postgres import ConnectionParameters
from tests.approvals.requests import a_grant, asked
from tests.credits.books import make_user as make_ledger_user
from tests.credits.books import spend
from tests.fixtures.api import Api, make_api_key, make_user
from tests.fixtures.console import Console
from tests.models.right_rows import RIGHT
from tests.stripe.payments import make_event, make_session

STATEMENTS = {
    "/inbox": 1,
    "/notices": 2,
    "/unmatched": 2,
    "/reconciliation": 1,
    "/reports": 0,
    "/approvals": 1,
    "/keys": 1,
    "/audit": 4,
}
"""Beside the one that finds the session of whoever asks."""


DETAILS = {
    "/inbox/{event}": 2,
    "/unmatched/{unmatched}": 2,
    "/approvals/{approval}": 8,
    "/reconciliation/{run}": 1,
    "/users/{user}": 29,
    "/users/{user}/entries": 7,
    "/users/{user}/entries?since=2020-01-01&until=2030-01-01&source=promo": 9,
    "/users/{user}/entries/1": 9,
    "/users/{user}/lots": 6,
    "/users/{user}/holds": 6,
    "/users/{user}/give": 2,
    "/users?q=ada": 4,
    "/payments": 3,
    "/payments?tab=orders": 2,
    "/payments?tab=reversals": 2,
    "/payments/{payment}": 12,
}
"""Of pages about one thing, and of what is searched for: at most so many."""


@contextmanager
def counted(connection: Any) -> Generator[list[str]]:
    """The statements that run meanwhile, but for those that begin and end savepoints."""
    found: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_others: object) -> None:
        if "SAVEPOINT" not in statement:
            found.append(statement)

    event.listen(connection, "before_cursor_execute", note)
    yield found
    event.remove(connection, "before_cursor_execute", note)


async def add_rows(api: Api, count: int) -> None:
    """So many events, unmatched payments, keys, requests and entries of the audit trail."""
    user = await make_user()
    for _ in range(count):
        await api.deliver(make_event(make_session(user, amount_total=1)))
        await make_api_key("users:read")
        await run_in_async_database_transaction(partial(asked, command=a_grant(user.user_id)))


@pytest.mark.parametrize("path", STATEMENTS)
async def test_a_page_s_statements_do_not_grow_with_its_rows(
    api: Api, console: Console, async_db: AsyncSession, path: str
) -> None:
    """As many with one row as with five."""
    connection = (await async_db.connection()).sync_connection
    assert connection is not None
    await console.sign_in(Role.ADMIN)
    for more in (1, 4):
        await add_rows(api, more)
        with counted(connection) as statements:
            assert (await console.get(path)).status_code == 200
        assert len(statements) == 1 + STATEMENTS[path], "\n".join(statements)


async def names_of_one(api: Api) -> dict[str, object]:
    """Of each thing that a page is about, one; with what there is about a user."""
    user = await make_user(email="ada@example.com")
    await api.deliver(make_event(make_session(user)))

    def work(session: Session) -> dict[str, object]:
        bought = select(Transaction.transaction_id).where(Transaction.user_id == user.user_id)
        ledger.grant(session, user.user_id, 10, key="gift", actor="key:slides")
        ledger.open_hold(
            session, user.user_id, 1, key="hold", actor="key:slides", expires_in_seconds=999
        )
        request = asked(session, a_grant(user.user_id, 5)).approval
        run = Reconciliation(**RIGHT[Reconciliation])
        session.add(run)
        session.flush()
        return {
            "user": user.user_id,
            "payment": session.scalars(bought).one(),
            "approval": request.approval_id,
            "run": run.reconciliation_id,
            "event": session.scalars(select(StripeEvent.event_id).limit(1)).one(),
            "unmatched": session.scalars(select(UnmatchedPayment.stripe_object_id).limit(1)).one(),
        }

    return await run_in_async_database_transaction(work)


async def add_about(api: Api, user_id: uuid.UUID, number: int) -> None:
    """A gift, a spend and a hold of the user's, and another purchase; and somebody like them."""

    def work(session: Session) -> None:
        facts: dict[str, Any] = {"actor": "key:slides"}
        ledger.grant(session, user_id, 10, key=f"gift {number}", **facts)
        ledger.spend(session, user_id, 1, key=f"spend {number}", **facts)
        ledger.open_hold(session, user_id, 1, key=f"hold {number}", expires_in_seconds=999, **facts)

    await run_in_async_database_transaction(work)
    paid = make_session(user_id, id=f"cs_{number}", payment_intent=f"pi_{number}")
    await api.deliver(make_event(paid, id=f"evt_{number}"))
    await make_user(email=f"ada{number}@example.com")


async def test_a_page_about_one_thing_takes_as_many_statements_with_more_rows(
    api: Api, console: Console, async_db: AsyncSession
) -> None:
    """Read once with few rows, once with many; what is read and kept at first is no matter."""
    connection = (await async_db.connection()).sync_connection
    await console.sign_in(Role.ADMIN)
    await add_rows(api, 1)
    names = await names_of_one(api)
    counts: list[dict[str, int]] = []
    for number in range(3):
        taken: dict[str, int] = {}
        for path in DETAILS:
            with counted(connection) as statements:
                answer = await console.get(path.format(**names))
            assert answer.status_code == 200, path
            taken[path] = len(statements) - 1
        counts.append(taken)
        for each in range(3):
            await add_about(api, uuid.UUID(str(names["user"])), 10 * number + each)
        await add_rows(api, 2)
    assert counts[1] == counts[2]
    beyond = {path: taken for path, taken in counts[2].items() if taken > DETAILS[path]}
    assert beyond == {}


def read_movements() -> object:
    """A report's rows, as its page reads them."""
    with SessionLocal() as session:
        begin_report(session)
        return list(read_report(session, Wanted(name=ReportName.MOVEMENTS)).rows)


READ_BY_THREADS: dict[str, Callable[[], object]] = {
    "overview": lambda: read_figures(get_settings()),
    "doctor": lambda: examined(()),
    "report": read_movements,
}


@pytest.mark.parametrize("name", READ_BY_THREADS)
def test_what_is_read_beside_the_requests_does_not_grow_either(
    fresh_database: ConnectionParameters, name: str
) -> None:
    """The overview's figures, the doctor's checks and reports: by connections of their own."""
    assert fresh_database
    taken: list[int] = []
    for number in range(3):
        with counted(Engine) as statements:
            READ_BY_THREADS[name]()
        taken.append(len(statements))
        with SessionLocal.begin() as session:
            for _ in range(4):
                user = make_ledger_user(session, 10)
                execute(session, [spend(user.user_id, 1)])
                asked(session, a_grant(user.user_id, 500 + number))
                session.add(UnmatchedPayment(**unmatched_facts()))
    assert taken[1] == taken[2]


def unmatched_facts() -> dict[str, Any]:
    """A payment that credited nobody."""
    return {**RIGHT[UnmatchedPayment], "stripe_object_id": f"cs_{uuid.uuid4().hex}"}
