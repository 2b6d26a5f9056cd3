"""Schemathesis over the OpenAPI document: no 5xx, and every answer is one that it promises."""

import asyncio
import copy
import uuid
from collections.abc import Generator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, cast

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks

from src.api.src.main import create_app
from src.common.settings import get_settings
from src.common.stripe.signatures import sign
from src.local_postgres import ConnectionParameters
from tests.api.stripe_side import offline_stripe
from tests.api.tokens import ISSUER, jwk_set, make_token
from tests.fixtures.api import (
    WEBHOOK_SECRET,
    Api,
    client_of,
    logging_restored,
    make_api_key,
    make_user,
)

EXAMPLES = 12
BASE_URL = "http://api.test"
# The checks send requests of their own, past our client; or judge 400 for any object that is no
# Stripe event, and 403 and 409 that depend on rows, as too strict.
NOT_FOR_US: list[Any] = [checks.ignored_auth, checks.positive_data_acceptance]


@dataclass(frozen=True)
class Harness:
    """The API in an event loop of its own, since Hypothesis calls tests synchronously."""

    api: Api
    loop: asyncio.Runner
    user_id: uuid.UUID
    bearers: dict[str, str]

    def operations(self) -> Iterator[schemathesis.APIOperation[Any, Any, Any, Any]]:
        """Every operation of the document; the bearer token is ours to send, not to generate."""
        document = copy.deepcopy(self.api.app.openapi())
        for operations in document["paths"].values():
            for operation in operations.values():
                operation.pop("security", None)
        schema = schemathesis.openapi.from_dict(document)
        for found in cast("Iterator[Any]", schema.get_all_operations()):
            assert isinstance(found, Ok), found
            yield found.ok()

    def send(self, case: Case[Any], bearer: str) -> httpx.Response:
        """Send the case, the webhook signed, everything else with the bearer token."""
        request = requests.Request(**case.as_transport_kwargs(base_url=BASE_URL)).prepare()
        assert isinstance(request.body, (str, bytes, type(None)))
        body = request.body.encode() if isinstance(request.body, str) else request.body or b""
        headers = httpx.Headers({"Authorization": f"Bearer {bearer}"})
        headers.update({name: str(value) for name, value in request.headers.items()})
        if "Stripe-Signature" in headers:
            headers["Stripe-Signature"] = sign(body.decode(errors="replace"), WEBHOOK_SECRET)
        return self.loop.run(
            self.api.client.request(
                str(request.method), str(request.url), headers=headers, content=body
            )
        )


@pytest.fixture
def harness(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> Generator[Harness]:
    """The API on a database of its own, with a user and keys."""
    assert fresh_database
    for name, value in {
        "AUTH_JWT_SECRET": jwk_set(),
        "AUTH_JWT_ISSUER": ISSUER,
        "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "CREDITS_STREAM_MAX_SECONDS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    with logging_restored(), asyncio.Runner() as loop:
        stack = AsyncExitStack()

        async def start() -> Harness:
            app = create_app()
            await stack.enter_async_context(app.router.lifespan_context(app))
            api = await stack.enter_async_context(client_of(app))
            offline_stripe(api)
            user = await make_user()
            bearers = {
                "a user": make_token(user.user_id, email=user.email),
                "a key": await make_api_key("users:read"),
                "nobody": "nonsense",
            }
            return Harness(api, loop, user.user_id, bearers)

        yield loop.run(start())
        loop.run(stack.aclose())


@pytest.mark.parametrize("caller", ["a user", "a key", "nobody"])
@pytest.mark.parametrize("mode", list(GenerationMode), ids=str)
def test_every_answer_is_documented(harness: Harness, caller: str, mode: GenerationMode) -> None:
    """Valid and invalid requests of all kinds, as a user, as a scoped key and as nobody."""
    answered: set[int] = set()
    for operation in harness.operations():
        takes_anything = any([*operation.iter_parameters(), *operation.body])
        if mode is GenerationMode.NEGATIVE and not takes_anything:
            continue  # there is nothing to get wrong

        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def promise(case: Case[Any]) -> None:
            if mode is GenerationMode.POSITIVE and "user_id" in case.path_parameters:
                case.path_parameters["user_id"] = str(harness.user_id)
            answer = harness.send(case, harness.bearers[caller])
            answered.add(answer.status_code)
            case.validate_response(answer, excluded_checks=NOT_FOR_US)

        promise()
    assert {200, 401, 403} & answered
