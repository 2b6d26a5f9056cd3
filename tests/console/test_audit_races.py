"""What the audit trail says of before is what the operation saw, whoever else is at it."""

import asyncio

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from src.common.async_database import run_in_async_database_transaction
from src.common.credits.operations import execute
from src.common.database import SessionLocal
from src.common.models.console_action import ConsoleAction
from src.console.permissions import Role
from tests.credits.books import make_user, spend
from tests.fixtures.api import StartApi, client_of, until
from tests.fixtures.console import Console

WAITS = text(
    "SELECT EXISTS (SELECT FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock')"
)


async def somebody_waits() -> bool:
    """Whether a statement waits for a lock."""
    return bool(await run_in_async_database_transaction(lambda session: session.scalar(WAITS)))


async def test_the_balance_before_is_read_under_the_lock(start_api: StartApi) -> None:
    """Somebody spends 30 of 100 while a gift of 5 waits for the row: it was 70 before."""
    api = await start_api()
    async with client_of(api.app) as browser:
        console = Console(browser.client)
        await console.sign_in(Role.SUPPORT)
        user_id = await run_in_async_database_transaction(
            lambda session: make_user(session, 100).user_id
        )
        address = f"/users/{user_id}/give"
        page = await console.get(address)
        shown = await console.send(page, address, amount="5", reason="promised")
        spending = SessionLocal()
        execute(spending, [spend(user_id, 30)])
        giving = asyncio.create_task(console.send(shown, address))
        await until(somebody_waits)
        spending.commit()
        spending.close()
        assert (await giving).status_code == 303
    action = await run_in_async_database_transaction(given)
    assert (action.before, action.after and action.after["balance"]) == ({"balance": 70}, 75)


def given(session: Session) -> ConsoleAction:
    """The gift, in the audit trail."""
    gifts = select(ConsoleAction).where(ConsoleAction.action == "credits.give")
    return session.scalars(gifts).one()
