"""How many statements each page takes: so many, however many rows there are."""

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession

from src.common.async_database import run_in_async_database_transaction
from src.console.permissions import Role
from tests.approvals.requests import a_grant, asked
from tests.fixtures.api import Api, make_api_key, make_user
from tests.fixtures.console import Console
from tests.stripe.payments import make_event, make_session

STATEMENTS = {
    "/inbox": 1,
    "/unmatched": 2,
    "/reconciliation": 1,
    "/reports": 0,
    "/approvals": 1,
    "/keys": 1,
    "/audit": 3,
}
"""Beside the one that finds the session of whoever asks."""


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
