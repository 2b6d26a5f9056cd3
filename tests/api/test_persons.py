"""An administrator's own token is a person's: above limits it is refused (rule 13)."""

import uuid

import jwt
import pytest
from sqlalchemy.orm import Session

from src.common.accounts.api_keys import Scope
from src.common.approvals import operations
from src.common.approvals.operations import request_or_ask
from src.common.async_database import run_in_async_database_transaction
from src.common.purchases.refunds import RefundWish
from tests.api.credits import fresh_key, post
from tests.api.stripe_side import offline_stripe
from tests.api.test_refunds import purchase_of, refund
from tests.api.tokens import make_token
from tests.approvals.requests import NOTHING_ALONE, a_grant, asked
from tests.fixtures.api import Api, balance_of, error_type_of, make_api_key, make_user

KEY = {"Idempotency-Key": "k"}


@pytest.fixture
async def bound(api: Api) -> str:
    """An administrator's token, where persons obey the rule."""
    changed = {
        "approvals_required": True,
        "approvals_credits_above": 100,
        "approvals_refund_cents_above": 100,
    }
    api.app.state.settings = api.app.state.settings.model_copy(update=changed)
    return make_token((await make_user(user_type="admin")).user_id)


async def test_a_person_gives_alone_up_to_the_limit(api: Api, bound: str) -> None:
    """In a day, by any of the routes; a replay is none of it, and nothing else is refused."""
    user_id = (await make_user()).user_id
    gift = {"amount": 60, "source": "promo"}
    key = fresh_key()
    for _ in range(2):
        assert (await post(api, bound, user_id, "grant", gift, key)).status_code == 200
    for path, body in (
        ("grant", {"amount": 41, "source": "promo"}),
        ("adjust", {"amount": 41, "reason": "x"}),
    ):
        answer = await post(api, bound, user_id, path, body)
        assert (answer.status_code, error_type_of(answer)) == (422, "CONSENT_NEEDED")
    spent = await post(api, bound, user_id, "spend", {"amount": 50})
    seq = spent.json()["seq"]
    answer = await post(api, bound, user_id, f"entries/{seq}/reverse", {"reason": "x"})
    assert error_type_of(answer) == "CONSENT_NEEDED"
    answer = await post(
        api, bound, user_id, f"entries/{seq}/reverse", {"amount": 40, "reason": "x"}
    )
    assert answer.status_code == 200
    assert await balance_of(user_id) == 50
    held = (
        await post(api, bound, user_id, "holds", {"amount": 1, "expires_in_seconds": 60})
    ).json()["seq"]
    answer = await post(api, bound, user_id, f"holds/{held}/release", {})
    assert error_type_of(answer) == "CONSENT_NEEDED"
    answer = await post(api, bound, user_id, f"holds/{held}/capture", {"amount": 1})
    assert answer.status_code == 200, "what is kept gives nothing"


async def test_a_batch_is_no_way_around_it(api: Api, bound: str) -> None:
    """Its items count together, in their order."""
    user_id = (await make_user()).user_id
    items = [
        {
            "operation": "grant",
            "user_id": str(user_id),
            "amount": 60,
            "source": "promo",
            "idempotency_key": f"gift {number}",
        }
        for number in range(2)
    ]
    answer = await api.call("POST", "/credits/batch", bound, json={"items": items})
    assert [each["status"] for each in answer.json()["results"]] == [200, 422]
    assert await balance_of(user_id) == 60


async def test_a_service_has_nobody_to_ask(api: Api, bound: str) -> None:
    """Its key is bounded by itself."""
    assert bound
    user_id = (await make_user()).user_id
    service = await make_api_key(Scope.CREDITS_GRANT, service_name="gifts")
    gift = {"amount": 500, "source": "promo"}
    assert (await post(api, service, user_id, "grant", gift)).status_code == 200


async def test_a_person_pays_back_alone_up_to_the_limit(api: Api, bound: str) -> None:
    """In a day, to one user; a replay is none of it."""
    offline = offline_stripe(api)
    bought = await purchase_of(api, offline)
    for key, amount_cents, status in (("a", 60, 200), ("a", 60, 200), ("b", 41, 422)):
        answer = await refund(
            api, bound, bought.transaction_id, key, amount_cents=amount_cents, reason="x"
        )
        assert answer.status_code == status, answer.text
    assert error_type_of(answer) == "CONSENT_NEEDED"
    assert len(list(offline.account.all("refund"))) == 1


async def a_request(requester: str, user_id: uuid.UUID, key: str) -> uuid.UUID:
    """What somebody asks for with this key."""

    def work(session: Session) -> uuid.UUID:
        command = a_grant(user_id, 500, actor=requester, key=key)
        return asked(session, command).approval.approval_id

    return await run_in_async_database_transaction(work)


@pytest.mark.parametrize("who", ["service", "person"])
async def test_the_key_of_a_request_is_nobody_else_s(api: Api, bound: str, who: str) -> None:
    """Neither while it is open nor once it was consented to, by grant, adjustment or batch."""
    token = bound
    if who == "service":
        token = await make_api_key(Scope.CREDITS_GRANT, service_name="gifts")
    user_id = (await make_user()).user_id
    request_id = await a_request("user:ada", user_id, "k")
    gift = {"amount": 5, "source": "promo"}
    item = {"operation": "grant", "user_id": str(user_id), "idempotency_key": "k", **gift}
    for is_done in (False, True):
        if is_done:
            await run_in_async_database_transaction(
                lambda session: operations.consent(session, request_id, decider="user:grace")
            )
        for path, body in (("grant", gift), ("adjust", {"amount": 5, "reason": "x"})):
            answer = await post(api, token, user_id, path, body, KEY)
            assert (answer.status_code, error_type_of(answer)) == (409, "IDEMPOTENCY_KEY_REUSED")
        batch = await api.call("POST", "/credits/batch", token, json={"items": [item]})
        assert batch.json()["results"][0]["error"]["error_type"] == "IDEMPOTENCY_KEY_REUSED"
    assert await balance_of(user_id) == 500


async def test_who_asked_is_told_to_wait_and_then_what_was_done(api: Api, bound: str) -> None:
    """The very same over HTTP, by the same person: one gift."""
    person, user_id = actor_of(bound), (await make_user()).user_id
    body = {"amount": 500, "source": "promo", "reference": "goodwill"}

    request_id = await a_request(person, user_id, "k")
    waiting = await post(api, bound, user_id, "grant", body, KEY)
    assert (waiting.status_code, error_type_of(waiting)) == (422, "CONSENT_NEEDED")
    await run_in_async_database_transaction(
        lambda session: operations.consent(session, request_id, decider="user:grace")
    )
    done = await post(api, bound, user_id, "grant", body, KEY)
    assert (done.status_code, done.json()["amount"]) == (200, 500)
    assert await balance_of(user_id) == 500


def actor_of(token: str) -> str:
    """What the books call whose token it is."""
    return f"user:{jwt.decode(token, options={'verify_signature': False})['sub']}"


@pytest.mark.parametrize("who", ["service", "person"])
async def test_a_refund_that_is_asked_for_has_its_key(api: Api, bound: str, who: str) -> None:
    """Nobody pays back with it over HTTP."""
    offline = offline_stripe(api)
    token = bound
    if who == "service":
        token = await make_api_key(Scope.PAYMENTS_REFUND, service_name="shop")
    bought = await purchase_of(api, offline)
    wish = RefundWish(bought.transaction_id, "k", "user:ada", amount_cents=200, reason="x")
    await run_in_async_database_transaction(
        lambda session: request_or_ask(session, wish, NOTHING_ALONE)
    )
    answer = await refund(api, token, bought.transaction_id, "k", amount_cents=50, reason="x")
    assert (answer.status_code, error_type_of(answer)) == (409, "IDEMPOTENCY_KEY_REUSED")
    assert list(offline.account.all("refund")) == []
