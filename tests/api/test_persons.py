"""An administrator's own token is a person's: above limits it is refused (rule 13)."""

import pytest

from src.common.accounts.api_keys import Scope
from tests.api.credits import fresh_key, post
from tests.api.stripe_side import offline_stripe
from tests.api.test_refunds import purchase_of, refund
from tests.api.tokens import make_token
from tests.fixtures.api import Api, balance_of, error_type_of, make_api_key, make_user


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
