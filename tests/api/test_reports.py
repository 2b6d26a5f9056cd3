"""`GET /reports/{name}`: figures for whoever may read them, in the format asked for."""

import pytest

from src.common.accounts.api_keys import Scope
from src.common.reports import making
from tests.api.credits import fresh_key, post
from tests.fixtures.api import StartApi, error_type_of, make_api_key, make_user


async def test_reports_are_sent_in_the_format_asked_for(start_api: StartApi) -> None:
    """20 credits were given; a file of that name in every format."""
    api = await start_api()
    user = await make_user()
    token = await make_api_key(Scope.REPORTS_READ, Scope.CREDITS_GRANT)
    await post(api, token, user.user_id, "grant", {"amount": 20, "source": "promo"}, fresh_key())
    answer = await api.get("/reports/movements", token)
    assert answer.status_code == 200, answer.text
    assert [row["given"] for row in answer.json()] == [20]
    for format_, begin in (("csv", b"source,"), ("xlsx", b"PK"), ("json", b"[")):
        answer = await api.get("/reports/liability", token, params={"format": format_})
        assert answer.content.startswith(begin)
        assert f'filename="liability.{format_}"' in answer.headers["Content-Disposition"]
    answer = await api.get("/reports/journal", token, params={"format": "hledger"})
    assert "Liabilities:Credits:Promo" in answer.text
    answer = await api.get("/reports/users", token, params={"with_debt": True})
    assert answer.json() == []


@pytest.mark.parametrize(
    ("name", "query", "status"),
    [
        ("nothing", {}, 422),
        ("movements", {"time_zone": "Nowhere"}, 422),
        ("movements", {"from": "2026-01-01T00:00:00"}, 422),
        ("movements", {"to": "0001-01-01T00:00:00Z"}, 422),
        ("sales", {"from": "0001-01-01T00:00:00+14:00"}, 422),
        ("revenue", {"from": "9999-12-31T23:00:00-14:00"}, 422),
        (
            "movements",
            {"from": "0001-01-01T00:00:00Z", "by": "week", "time_zone": "Etc/GMT+9"},
            422,
        ),
        ("liability", {"by": "day"}, 422),
        ("journal", {}, 422),
        ("journal", {"format": "hledger", "by": "week"}, 422),
        ("movements", {"by": "entry"}, 422),
        ("sales", {"bom": "true"}, 422),
    ],
)
async def test_what_a_report_does_not_take_is_refused(
    start_api: StartApi, name: str, query: dict[str, str], status: int
) -> None:
    """With the one error that names the field."""
    api = await start_api()
    token = await make_api_key(Scope.REPORTS_READ)
    answer = await api.get(f"/reports/{name}", token, params=query)
    assert answer.status_code == status
    assert error_type_of(answer) == "VALIDATION_ERROR"


async def test_only_some_reports_are_made_at_once(start_api: StartApi) -> None:
    """The next one is told when to come again, and is made when one of them has ended."""
    api = await start_api()
    token = await make_api_key(Scope.REPORTS_READ)
    for _ in range(making.AT_ONCE):
        making.places.acquire()
    answer = await api.get("/reports/liability", token)
    assert (answer.status_code, error_type_of(answer)) == (503, "REPORTS_BUSY")
    assert int(answer.headers["Retry-After"]) > 0
    for _ in range(making.AT_ONCE):
        making.places.release()
    for _ in range(making.AT_ONCE + 1):
        assert (await api.get("/reports/liability", token)).status_code == 200
