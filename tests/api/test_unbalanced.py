"""A change the books do not explain is a defect, and has a name of its own."""

from sqlalchemy import update

from src.common.async_database import run_in_async_database_transaction
from src.common.models import User
from tests.fixtures.api import StartApi, balance_of, error_type_of, make_user


async def test_an_update_past_the_orm_answers_ledger_unbalanced(start_api: StartApi) -> None:
    """The triggers refuse it at commit: 500 LEDGER_UNBALANCED, and nothing has changed."""
    api = await start_api()
    user = await make_user()

    async def careless() -> None:
        await run_in_async_database_transaction(
            lambda session: session.connection().execute(update(User).values(credits_balance=7))
        )

    api.app.post("/api/v1/careless")(careless)
    answer = await api.call("POST", "/careless")
    assert (answer.status_code, error_type_of(answer)) == (500, "LEDGER_UNBALANCED")
    assert await balance_of(user.user_id) == 0
