"""A misspelt filter is refused: it would filter nothing, and nobody would notice."""

import pytest

from src.common.accounts.api_keys import Scope
from tests.api.tokens import make_token
from tests.fixtures.api import StartApi, make_api_key, make_user

READS = Scope.REPORTS_READ, Scope.CREDITS_READ, Scope.USERS_READ


@pytest.mark.parametrize(
    ("path", "query", "has"),
    [
        ("/reports/movements", {"frm": "2026-01-01T00:00:00Z"}, "from"),
        ("/reports/users", {"with_debts": "true", "format": "csv"}, "with_debt"),
        ("/user/{user}", {"fields": "email", "read": "replica"}, "read"),
        ("/user/{user}/transactions", {"limt": "1", "read": "primary"}, "limit"),
        ("/user/{user}/credits", {"asof": "2026-01-01T00:00:00Z"}, "as_of"),
        ("/user/{user}/credits/entries", {"Limit": "1", "cursor": "5"}, "limit"),
        ("/user/{user}/credits/holds", {"state": "open", "limit": "5"}, "status"),
        ("/user/{user}/credits/explain", {"as_of": "2026-01-01T00:00:00Z"}, "read"),
    ],
)
async def test_a_parameter_that_an_endpoint_lacks_is_refused(
    start_api: StartApi, path: str, query: dict[str, str], has: str
) -> None:
    """By its name, with those that there are; with the right ones alone it is answered."""
    api = await start_api()
    user = await make_user()
    token = await make_api_key(*READS)
    wrong, *right = query
    answer = await api.get(path.format(user=user.user_id), token, params=query)
    assert answer.status_code == 422, answer.text
    (problem,) = answer.json()["detail"]["errors"]
    assert problem["field"] == f"query.{wrong}"
    assert has in problem["message"].split("it has ")[1].split(", ")
    params = {name: query[name] for name in right}
    answer = await api.get(path.format(user=user.user_id), token, params=params)
    assert answer.status_code == 200, answer.text


async def test_own_reads_on_the_fast_path_refuse_it_too(start_api: StartApi) -> None:
    """Where a user asks with their own token."""
    api = await start_api()
    user = await make_user()
    for path in ("credits", "credits/entries"):
        answer = await api.get(
            f"/user/{user.user_id}/{path}", make_token(user.user_id), params={"x": "1"}
        )
        assert answer.status_code == 422, answer.text
