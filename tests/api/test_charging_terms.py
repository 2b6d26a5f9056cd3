"""What an endpoint charges, for what and whom: prices, references, services, wrong arguments."""

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import APIRouter, Depends, FastAPI, Request
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from src.api.src.charging import charge
from src.common.async_database import run_in_async_database_transaction
from src.common.credits import ledger
from src.common.credits.domain.views import HistoryEntry
from src.common.models import CreditHold, User
from tests.api.tokens import make_token
from tests.fixtures.api import Api, balance_of, error_type_of, fetch, make_api_key, make_user

START = 100


@dataclass
class Shop:
    """A customer, and an application whose endpoints charge."""

    api: Api
    user: User
    runs: list[str] = field(default_factory=list[str])

    def offer(self, path: str, dependency: Callable[..., Any]) -> None:
        """An endpoint that charges."""

        async def work() -> str:
            self.runs.append(path)
            return "slides"

        self.api.app.post(f"/api/v1{path}", dependencies=[Depends(dependency)])(work)

    async def post(self, path: str, token: str | None = None, **request: Any) -> httpx.Response:
        """POST, with the customer's token where no other is given."""
        return await self.api.call("POST", path, token or make_token(self.user.user_id), **request)

    async def paid(self) -> int:
        """What the customer was charged."""
        return START - await balance_of(self.user.user_id)

    async def history(self) -> list[HistoryEntry]:
        """The customer's entries, the newest first."""
        page = await run_in_async_database_transaction(
            lambda session: ledger.history(session, self.user.user_id, cursor=None, limit=20)
        )
        return list(page.items)


@pytest_asyncio.fixture
async def shop(api: Api, async_db: AsyncSession) -> AsyncGenerator[Shop]:
    """A customer with a hundred credits."""
    assert async_db
    user = await make_user()
    await run_in_async_database_transaction(
        lambda session: ledger.grant(session, user.user_id, START, key="start")
    )
    yield Shop(api, user)


async def price_of_deck(request: Request) -> int:
    """A credit for each slide of the body."""
    return len((await request.json())["slides"])


async def test_a_price_may_be_computed_from_the_request(shop: Shop) -> None:
    """By a plain function or a coroutine, which may read the body."""
    shop.offer("/sized", charge(lambda request: int(request.query_params["size"])))
    shop.offer("/deck", charge(price_of_deck))
    assert (await shop.post("/sized?size=7")).status_code == 200
    assert await shop.paid() == 7
    assert (await shop.post("/deck", json={"slides": [1, 2, 3]})).status_code == 200
    assert await shop.paid() == 10
    assert (await shop.post("/sized?size=91")).status_code == 402


async def test_a_price_is_not_computed_for_what_was_charged(shop: Shop) -> None:
    """What the first was answered is there, whatever the price is now, and whether there is one."""
    prices = [3]
    shop.offer("/render", charge(lambda _request: prices.pop()))
    for is_replay in (None, "true"):
        answer = await shop.post("/render", headers={"Idempotency-Key": "job"})
        assert answer.status_code == 200
        assert answer.headers.get("Idempotent-Replayed") == is_replay
    assert shop.runs == ["/render"]
    assert await shop.paid() == 3


async def test_a_price_may_have_changed_since_the_request_failed(shop: Shop) -> None:
    """Each try is held at the price of its own time."""
    prices = iter([3, 4])
    failures = iter([RuntimeError("The first time"), None])

    async def work() -> str:
        failure = next(failures)
        if failure is not None:
            raise failure
        return "slides"

    dependencies = [Depends(charge(lambda _request: next(prices)))]
    shop.api.app.post("/api/v1/render", dependencies=dependencies)(work)
    headers = {"Idempotency-Key": "job"}
    answers = [await shop.post("/render", headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [500, 200]
    assert await shop.paid() == 4


async def test_the_history_says_what_was_charged_for(shop: Shop) -> None:
    """Hold and capture carry the reference, the hold the metadata; fixed or of the request."""
    shop.offer("/fixed", charge(2, reference="render", metadata={"engine": 1}))
    shop.offer(
        "/computed",
        charge(
            3,
            reference=lambda request: f"deck {request.query_params['deck']}",
            metadata=lambda request: {"deck": request.query_params["deck"]},
        ),
    )
    await shop.post("/fixed")
    await shop.post("/computed?deck=7")
    found = [(it.kind, it.reference, it.metadata) for it in (await shop.history())[:4]]
    assert found == [
        ("capture", "deck 7", None),
        ("hold", "deck 7", {"deck": "7"}),
        ("capture", "render", None),
        ("hold", "render", {"engine": 1}),
    ]


async def test_a_service_charges_a_user_whom_it_names(shop: Shop) -> None:
    """With the scope `credits:spend`; the entries name the service."""
    shop.offer("/render", charge(5))
    key = await make_api_key("credits:spend")
    named = {"X-User-ID": str(shop.user.user_id), "Idempotency-Key": "job"}
    for is_replay in (None, "true"):
        answer = await shop.post("/render", key, headers=named)
        assert answer.status_code == 200
        assert answer.headers.get("Idempotent-Replayed") == is_replay
    assert await shop.paid() == 5
    assert {entry.actor for entry in (await shop.history())[:2]} == {"key:slides"}
    own = await shop.post("/render", headers={"Idempotency-Key": "job"})
    assert error_type_of(own) == "IDEMPOTENCY_KEY_REUSED"  # another principal's request
    other = await make_user()
    answer = await shop.post("/render", key, headers={**named, "X-User-ID": str(other.user_id)})
    assert answer.status_code == 402
    assert shop.runs == ["/render"]


@pytest.mark.parametrize(
    ("scope", "named", "status", "error_type"),
    [
        ("credits:read", "the customer", 403, "FORBIDDEN"),
        ("credits:read", "nobody", 403, "FORBIDDEN"),
        ("credits:spend", "nobody", 422, "VALIDATION_ERROR"),
        ("credits:spend", "nonsense", 422, "VALIDATION_ERROR"),
        ("credits:spend", "a stranger", 404, "USER_NOT_FOUND"),
        ("a user", "a stranger", 403, "FORBIDDEN"),
        ("a user", "the customer", 200, ""),
        ("an admin", "the customer", 200, ""),
    ],
)
async def test_who_may_charge_whom(
    shop: Shop, scope: str, named: str, status: int, error_type: str
) -> None:
    """A service names a user, and has the scope; a user charges themselves; an admin anybody."""
    shop.offer("/render", charge(5))
    names = {
        "the customer": str(shop.user.user_id),
        "nonsense": "ada",
        "a stranger": "00000000-0000-0000-0000-000000000001",
    }
    headers = {"X-User-ID": names[named]} if named in names else {}
    admin = await make_user(user_type="admin")
    tokens = {"a user": make_token(shop.user.user_id), "an admin": make_token(admin.user_id)}
    token = tokens.get(scope) or await make_api_key(scope)
    answer = await shop.post("/render", token, headers=headers)
    assert answer.status_code == status
    assert status == 200 or error_type_of(answer) == error_type
    assert await shop.paid() == (5 if status == 200 else 0)


@pytest.mark.parametrize("url", [None, "https://shop.example/credits"])
async def test_whoever_has_too_few_credits_is_told_where_to_buy(
    shop: Shop, url: str | None
) -> None:
    """`CHECKOUT_URL`, where it is set; a spend says it too."""
    state = shop.api.app.state
    state.settings = state.settings.model_copy(update={"checkout_url": url})
    shop.offer("/render", charge(START + 1))
    key = await make_api_key("credits:spend")
    spend = f"/user/{shop.user.user_id}/credits/spend"
    for answer in (
        await shop.post("/render"),
        await shop.post(spend, key, headers={"Idempotency-Key": "1"}, json={"amount": START + 1}),
    ):
        detail = answer.json()["detail"]
        assert (answer.status_code, detail["error_type"]) == (402, "INSUFFICIENT_CREDITS")
        assert detail.get("checkout_url") == url
        assert (detail["required"], detail["available"]) == (START + 1, START)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"amount": 0}, "amount"),
        ({"amount": -1}, "amount"),
        ({"amount": True}, "amount"),
        ({"amount": 1.5}, "amount"),
        ({"amount": "10"}, "amount"),
        ({"amount": 2**31}, "amount"),
        ({"amount": 1, "reference": ""}, "reference"),
        ({"amount": 1, "reference": "r" * 256}, "reference"),
        ({"amount": 1, "metadata": ["no object"]}, "metadata"),
        ({"amount": 1, "metadata": {"no": object()}}, "metadata"),
        ({"amount": 1, "expires_in_seconds": 0}, "expires_in_seconds"),
    ],
)
def test_what_cannot_be_charged_is_refused_where_it_is_written(
    wrong: Mapping[str, Any], named: str
) -> None:
    """The programmer's error is raised at once, and says which argument."""
    with pytest.raises(ValueError, match=named):
        charge(**wrong)


@pytest.mark.parametrize(
    "dependency",
    [
        charge(lambda _request: 0),
        charge(lambda _request: True),
        charge(1, reference=lambda _request: ""),
        charge(1, metadata=lambda _request: {"no": object()}),
    ],
)
async def test_what_a_function_gives_wrongly_is_no_clients_fault(
    shop: Shop, dependency: Callable[..., Any]
) -> None:
    """500 before anything is held; never a 422."""
    shop.offer("/render", dependency)
    answer = await shop.post("/render", headers={"Idempotency-Key": "job"})
    assert (answer.status_code, error_type_of(answer)) == (500, "INTERNAL_ERROR")
    assert shop.runs == []
    assert await fetch(select(func.count()).select_from(CreditHold)) == 0


def routed(app: FastAPI, *, included: bool) -> None:
    """A charged endpoint with an answer of its own, on the application or a router."""
    router = APIRouter()

    async def render() -> str:
        return "slides"

    where = router if included else app
    own: dict[int | str, dict[str, Any]] = {
        402: {"description": "Buy some"},
        418: {"description": "A teapot"},
    }
    where.post("/render/{deck}", dependencies=[Depends(charge(10))], responses=own)(render)
    where.get("/free")(render)
    if included:
        app.include_router(router, prefix="/v2", dependencies=[])


@pytest.mark.parametrize("included", [False, True])
async def test_the_document_says_what_a_charged_endpoint_answers(
    api: Api, *, included: bool
) -> None:
    """402 and the other refusals of the charge, the headers, and whatever it says of itself."""
    routed(api.app, included=included)
    for _ in range(2):  # it is made once, and asked for often
        document = api.app.openapi()
        prefix = "/v2" if included else ""
        render = document["paths"][f"{prefix}/render/{{deck}}"]["post"]
        parameters = {each["name"].lower(): each for each in render["parameters"]}
        assert {"idempotency-key", "x-user-id"} <= set(parameters)
        assert not parameters["idempotency-key"]["required"]
        responses = render["responses"]
        assert responses["402"]["description"] == "Buy some"
        examples = responses["402"]["content"]["application/json"]["examples"]
        assert set(examples) == {"INSUFFICIENT_CREDITS"}
        assert set(responses["409"]["content"]["application/json"]["examples"]) == {
            *("IDEMPOTENCY_KEY_REUSED", "REQUEST_IN_PROGRESS", "ALREADY_CHARGED", "TOO_MANY_HOLDS")
        }
        assert "Retry-After" in responses["409"]["headers"]
        assert responses["418"]["description"] == "A teapot"
        assert "HTTPValidationError" not in str(responses)
        free = document["paths"][f"{prefix}/free"]["get"]["responses"]
        assert set(free) == {"200"}
        assert "ErrorDetail" in document["components"]["schemas"]
