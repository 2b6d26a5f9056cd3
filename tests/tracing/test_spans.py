"""A request's trace: FastAPI, SQL, the engine's batches, Stripe; and nothing of anybody's in it."""

import asyncio
import json
import uuid
from collections.abc import Callable, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from src.common.async_database import run_in_async_database_transaction
from src.common.credits import ledger
from tests.api.tokens import make_token
from tests.fixtures.api import StartApi, make_api_key, make_user
from tests.stripe.payments import make_event, make_session

Spans = Callable[[], Sequence[ReadableSpan]]
KEY = {"Idempotency-Key": "ada-wants-slides@example.com"}


def named(spans: Sequence[ReadableSpan], name: str) -> list[ReadableSpan]:
    """Those of this name."""
    return [each for each in spans if each.name == name]


def trace_of(span: ReadableSpan) -> int:
    """Its trace."""
    assert span.context is not None
    found: int = span.context.trace_id
    return found


async def test_a_request_s_statements_are_spans_of_its_trace(
    spans: Spans, start_api: StartApi
) -> None:
    """Below FastAPI's own span, which has the route's template and the status."""
    api = await start_api()
    user = await make_user()
    token = make_token(user.user_id)
    assert (await api.get(f"/user/{user.user_id}/transactions", token)).status_code == 200
    [request] = named(spans(), "GET /api/v1/user/{user_id}/transactions")
    attributes = request.attributes or {}
    assert attributes["http.route"] == "/api/v1/user/{user_id}/transactions"
    assert attributes["url.path"] == attributes["http.route"]
    assert attributes["http.response.status_code"] == 200
    statements = [
        each
        for each in spans()
        if "db.statement" in (each.attributes or {}) and trace_of(each) == trace_of(request)
    ]
    assert statements


async def test_a_batch_and_its_callers_link_to_each_other(
    spans: Spans, start_api: StartApi
) -> None:
    """Many requests at once, few batches: each request is linked from one, and links to it."""
    api = await start_api()
    user = await make_user()
    key = await make_api_key("credits:spend", "credits:grant")
    await run_in_async_database_transaction(
        lambda session: ledger.grant(session, user.user_id, 100, key="start")
    )
    path = f"/user/{user.user_id}/credits/spend"
    answers = await asyncio.gather(*(
        api.call("POST", path, key, json={"amount": 1}, headers={"Idempotency-Key": f"{number}"})
        for number in range(20)
    ))  # fmt: skip
    assert {each.status_code for each in answers} <= {200, 201}
    requests = named(spans(), "POST /api/v1/user/{user_id}/credits/spend")
    assert len(requests) == 20
    batches = named(spans(), "credits batch")
    linked = {link.context.span_id for batch in batches for link in batch.links}
    assert {each.context.span_id for each in requests if each.context} <= linked
    ids = {each.context.span_id for each in batches if each.context}
    assert all(any(link.context.span_id in ids for link in each.links) for each in requests)
    assert sum((each.attributes or {})["operations"] for each in batches) == 20  # type: ignore[misc]


async def test_a_batch_of_webhooks_and_its_callers_link_to_each_other(
    spans: Spans, start_api: StartApi
) -> None:
    """Each delivery is linked from the batch that settled it, and links to it."""
    api = await start_api()
    users = [await make_user() for _ in range(4)]
    answers = await asyncio.gather(*(api.deliver(make_event(make_session(each))) for each in users))
    assert {each.status_code for each in answers} == {200}
    batches = named(spans(), "webhook batch")
    linked = {link.context.span_id for batch in batches for link in batch.links}
    ids = {each.context.span_id for each in batches if each.context}
    requests = [each for each in spans() if each.name.startswith("POST ")]
    assert len(requests) == 4
    assert {each.context.span_id for each in requests if each.context} == linked
    assert all(any(link.context.span_id in ids for link in each.links) for each in requests)
    assert sum((each.attributes or {})["events"] for each in batches) == 4  # type: ignore[misc]


async def test_a_caller_s_trace_goes_on_here(spans: Spans, start_api: StartApi) -> None:
    """By the standard header; and the log says which trace and which request a line belongs to."""
    api = await start_api()
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
    await api.client.get("/livez", headers=headers)
    [request] = named(spans(), "GET /livez")
    assert f"{trace_of(request):032x}" == trace_id


async def test_log_lines_name_request_and_trace(
    spans: Spans, start_api: StartApi, capfd: pytest.CaptureFixture[str]
) -> None:
    """As JSON, which a log store reads."""
    api = await start_api(ENV="local")
    capfd.readouterr()
    answer = await api.client.get("/livez")
    [request] = named(spans(), "GET /livez")
    [line] = [each for each in capfd.readouterr().err.splitlines() if "path=/livez" in each]
    assert f"trace_id={trace_of(request):032x}" in line
    assert f"request_id={answer.headers['X-Request-ID']}" in line


async def test_nothing_of_anybody_s_leaves_in_a_span(spans: Spans, start_api: StartApi) -> None:
    """Neither e-mails nor tokens, keys, secrets, names, queries, bodies; nor in errors."""
    api = await start_api()
    email = f"ada-{uuid.uuid4().hex}@example.com"
    user = await make_user(email=email, first_name="Augusta")
    token = make_token(user.user_id, email=email)
    key = await make_api_key("credits:spend", "users:read", "credits:read")
    other = make_token(uuid.uuid4(), email=email)
    spend = {"amount": 1, "reference": email}
    await api.sign_in(user.user_id, email=email)
    await api.call("POST", "/authenticate-jwt", other)  # its e-mail is taken
    await api.call("PATCH", "/update_profile", token, json={"first_name": "Augusta"})
    await api.get(f"/user/{user.user_id}?email={email}", key)
    await api.get(f"/user/{email}", key)
    await api.get(f"/nowhere/{email}", token)
    await api.call("SECRETBREW", f"/nowhere/{email}", token)
    await api.call("POST", f"/user/{user.user_id}/credits/spend", key, json=spend, headers=KEY)
    await api.deliver(make_event(make_session(user)))
    await api.deliver(make_event(make_session(user)), secret="whsec_wrong")
    told = json.dumps([json.loads(each.to_json()) for each in spans()])
    assert len(spans()) > 20
    secrets = [email, "Augusta", "SECRETBREW", key, token, other, KEY["Idempotency-Key"]]
    secrets += ["whsec", "@example.com", "eyJ"]
    assert [each for each in secrets if each in told] == []


async def test_an_error_of_the_database_is_told_without_its_words(
    spans: Spans, start_api: StartApi
) -> None:
    """PostgreSQL quotes the value it refuses; the span has the statement and that it failed."""
    await start_api()
    email = f"ada-{uuid.uuid4().hex}@example.com"
    await make_user(email=email)
    with pytest.raises(Exception, match="duplicate key"):
        await make_user(email=email)
    [failed] = [each for each in spans() if not each.status.is_unset]
    assert failed.status.description is None
    assert "INSERT" in str((failed.attributes or {})["db.statement"])
    assert email not in failed.to_json()
