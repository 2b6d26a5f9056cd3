"""Only what Stripe signed with one of our secrets within 300 seconds is accepted."""

import hashlib
import hmac
import json
import time

import pytest
import time_machine
from sqlalchemy import func, select

from src.common.exceptions import BadRequest
from src.common.models.stripe_event import StripeEvent
from src.common.stripe.signatures import sign, verify_signature
from tests.fixtures.api import WEBHOOK_SECRET, Api, error_type_of, fetch, make_user
from tests.stripe.payments import make_event, make_session

BODY = '{"id": "evt_1"}'


def is_accepted(body: bytes, header: str | None, *secrets: str) -> bool:
    """Whether the signature is accepted."""
    try:
        verify_signature(body, header, secrets or (WEBHOOK_SECRET,))
    except BadRequest as error:
        assert error.error_type == "WEBHOOK_SIGNATURE_INVALID"  # noqa: PT017
        return False
    return True


def test_a_signature_is_stripes_documented_hmac() -> None:
    """`t=…,v1=HMAC-SHA256(secret, t.body)`: computed by hand it is accepted."""
    now = int(time.time())
    signed = f"{now}.{BODY}".encode()
    digest = hmac.new(WEBHOOK_SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert is_accepted(BODY.encode(), f"t={now},v1={digest}")
    assert is_accepted(BODY.encode(), f"t={now},v1={'0' * 64},v1={digest},v0=old")
    assert not is_accepted(BODY.encode(), f"t={now},v0={digest}")


def test_a_signature_is_good_for_300_seconds() -> None:
    """The last second passes, the next does not."""
    with time_machine.travel("2026-11-22T12:00:00Z", tick=False) as traveller:
        header = sign(BODY, WEBHOOK_SECRET)
        traveller.shift(300)
        assert is_accepted(BODY.encode(), header)
        traveller.shift(1)
        assert not is_accepted(BODY.encode(), header)


def test_secrets_rotate() -> None:
    """While both secrets are configured both sign; the one taken out signs no more."""
    header = sign(BODY, "whsec_old")
    assert is_accepted(BODY.encode(), header, "whsec_new", "whsec_old")
    assert is_accepted(BODY.encode(), sign(BODY, "whsec_new"), "whsec_new", "whsec_old")
    assert not is_accepted(BODY.encode(), header, "whsec_new")


FORGED: dict[str, str | None] = {
    "missing": None,
    "empty": "",
    "of another secret": sign(BODY, "whsec_of_somebody_else"),
    "of another body": sign(BODY + " ", WEBHOOK_SECRET),
    "no pairs": "garbage",
    "pairs without values": "t,v1",
    "no time": "v1=" + "0" * 64,
    "a time that is none": "t=now,v1=" + "0" * 64,
    "a time that is huge": f"t={'9' * 4_000},v1={'0' * 64}",
    "a time that is not decimal": "t=²,v1=" + "0" * 64,
    "no scheme of ours": f"t={int(time.time())},v0={'0' * 64}",
    "not ASCII": f"t={int(time.time())},v1=é",
}


@pytest.mark.parametrize("header", FORGED.values(), ids=FORGED.keys())
async def test_a_forged_signature_is_400_and_stores_nothing(api: Api, header: str | None) -> None:
    """Never a 500, never a row."""
    headers = {} if header is None else {b"Stripe-Signature": header.encode("latin-1")}
    answer = await api.client.post("/api/v1/webhook", content=BODY, headers=headers)
    assert (answer.status_code, error_type_of(answer)) == (400, "WEBHOOK_SIGNATURE_INVALID")
    assert await fetch(select(func.count(StripeEvent.event_id))) == 0


@pytest.mark.parametrize("body", [b"\xff\xfe", b"", b'{"id": "\xe9"}', b"\x00"])
async def test_a_body_that_is_not_what_was_signed_is_400(api: Api, body: bytes) -> None:
    """Whatever the bytes, also those that are no UTF-8."""
    headers = {"Stripe-Signature": sign(BODY, WEBHOOK_SECRET)}
    answer = await api.call("POST", "/webhook", content=body, headers=headers)
    assert (answer.status_code, error_type_of(answer)) == (400, "WEBHOOK_SIGNATURE_INVALID")


async def test_the_signature_is_of_the_bytes_not_of_their_meaning(api: Api) -> None:
    """The same JSON with other spaces is not what Stripe signed."""
    event = make_event(make_session(await make_user()))
    headers = {"Stripe-Signature": sign(json.dumps(event), WEBHOOK_SECRET)}
    body = json.dumps(event, indent=1)
    answer = await api.call("POST", "/webhook", content=body, headers=headers)
    assert (answer.status_code, error_type_of(answer)) == (400, "WEBHOOK_SIGNATURE_INVALID")


NO_EVENTS = {
    "no JSON": "{",
    "nothing": "",
    "no object": "[]",
    "no id": '{"type": "x", "created": 1, "livemode": false, "data": {"object": {}}}',
    "an empty id": json.dumps(make_event({}, id="")),
    "a time that is a fraction": json.dumps(make_event({}, created=1.5)),
    "an id too long": json.dumps(make_event({}, id="e" * 256)),
    "no data": json.dumps({**make_event({}), "data": None}),
    "an object that is none": json.dumps({**make_event({}), "data": {"object": "cs_1"}}),
    "a date for a time": json.dumps(make_event({}, created="2026-11-22T12:00:00")),
    "a time out of range": json.dumps(make_event({}, created=10**18)),
    "a time before all time": json.dumps(make_event({}, created=-(10**18))),
    "a list nested too deeply": "[" * 100_000,
    "half a character": '{"id": "\\ud800"}',
}


@pytest.mark.parametrize("body", NO_EVENTS.values(), ids=NO_EVENTS.keys())
async def test_a_signed_body_that_is_no_event_is_400(api: Api, body: str) -> None:
    """Signed nonsense is told apart from forgery, and stores nothing."""
    answer = await api.deliver(body)
    assert (answer.status_code, error_type_of(answer)) == (400, "WEBHOOK_PAYLOAD_INVALID")
    assert await fetch(select(func.count(StripeEvent.event_id))) == 0


async def test_without_a_secret_nothing_is_accepted(api: Api) -> None:
    """No secret configured: 503 with Retry-After, also for a body signed with an empty one."""
    settings = api.app.state.settings
    api.app.state.settings = settings.model_copy(update={"stripe_webhook_secret": None})
    for secret in (WEBHOOK_SECRET, ""):
        answer = await api.deliver(make_event({}), secret=secret)
        assert (answer.status_code, error_type_of(answer)) == (503, "WEBHOOK_NOT_CONFIGURED")
        assert answer.headers["Retry-After"] == "1"
    assert await fetch(select(func.count(StripeEvent.event_id))) == 0
