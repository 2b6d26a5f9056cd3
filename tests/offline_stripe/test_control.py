"""The controls over HTTP do what the methods do, and refuse what they refuse."""

import json
from typing import Any
from urllib.parse import urlencode

import pytest

from src.offline_stripe import OfflineStripe, Request
from src.offline_stripe.site import answer
from tests.offline_stripe.shop import Clock, Shop


def control(offline: OfflineStripe, address: str, /, **form: object) -> tuple[int, Any]:
    """One request below /_offline; its status and JSON."""
    body = urlencode(
        {
            name: str(value).lower() if isinstance(value, bool) else value
            for name, value in form.items()
        }
    )
    response = answer(offline, Request("POST", f"/_offline/{address}", body=body.encode()))
    return response.status, json.loads(response.body)


def test_a_whole_life(shop: Shop, clock: Clock) -> None:
    """Paid, disputed, escalated, won, refunded, the refund fails; the clock; each in turn."""
    session = shop.offer()
    status, paid = control(shop.offline, f"sessions/{session.id}/pay", email="ada@example.com")
    assert (status, paid["payment_status"]) == (200, "paid")
    charge = shop.charge_of(paid)["id"]
    _, dispute = control(shop.offline, f"charges/{charge}/dispute", inquiry=True, amount=100)
    assert (dispute["status"], dispute["amount"]) == ("warning_needs_response", 100)
    for decision, expected in (("escalate", "needs_response"), ("win", "won")):
        _, decided = control(shop.offline, f"disputes/{dispute['id']}/decide", decision=decision)
        assert decided["status"] == expected
    refund = shop.client.v1.refunds.create({"charge": charge})
    _, settled = control(shop.offline, f"refunds/{refund.id}/settle", status="failed")
    assert settled["status"] == "failed"
    _, now = control(shop.offline, "clock/advance", seconds=60)
    assert now == {"now": clock.now + 60}


def test_delayed_and_authenticated_payments(shop: Shop) -> None:
    """By session and by PaymentIntent."""
    delayed, asked = shop.sell(method="sepa"), shop.sell(method="authenticationRequired")
    control(shop.offline, f"sessions/{delayed['id']}/settle", succeeded=True)
    control(shop.offline, f"payment_intents/{asked['payment_intent']}/authenticate", passed=True)
    assert (delayed["payment_status"], asked["payment_status"]) == ("paid", "paid")


def test_webhooks_go_wrong_on_request(shop: Shop) -> None:
    """Dropped, then resent; paused; signed wrongly; and the endpoint's secrets are shown."""
    assert control(shop.offline, "webhooks/faults", drop=1, secret="rotated")[0] == 200
    shop.sell()
    assert shop.offline.webhooks.due() == []
    _, faults = control(shop.offline, "webhooks/faults", drop=0, secret="right", paused=True)
    assert (faults["drop"], faults["secret"], faults["paused"]) == (0, "right", True)
    event = next(shop.offline.account.all("event"))
    assert control(shop.offline, f"events/{event['id']}/resend")[0] == 200
    assert shop.deliver() == []
    control(shop.offline, "webhooks/faults", paused=False)
    assert [each.id for each in shop.deliver()] == [event["id"]]
    endpoint = next(shop.offline.account.all("webhook_endpoint"))["id"]
    _, secrets = control(shop.offline, f"webhook_endpoints/{endpoint}/secrets")
    assert {"secret", "next_secret"} <= set(secrets)


def test_a_bad_day_on_request(shop: Shop) -> None:
    """Only for the requests that were named."""
    control(shop.offline, "troubles/add", kind="error", method="POST", path="/v1/refunds", times=2)
    headers = {"authorization": "Bearer sk_test_1"}
    statuses = [
        answer(shop.offline, Request(method, path, headers=headers)).status
        for method, path in [
            ("GET", "/v1/refunds"),
            ("POST", "/v1/refunds"),
            ("POST", "/v1/refunds"),
            ("POST", "/v1/refunds"),
            ("GET", "/v1/customers"),
        ]
    ]
    assert statuses == [200, 500, 500, 400, 200]


@pytest.mark.parametrize(
    ("path", "form", "status"),
    [
        ("nothing", {}, 404),
        ("sessions/pay", {}, 404),
        ("clock/1/advance", {"seconds": 1}, 404),
        ("clock/advance", {}, 400),
        ("clock/advance", {"seconds": "x"}, 400),
        ("account/defaults", {"tax_percent": "NaN"}, 400),
        ("webhooks/faults", {"drop": 2}, 400),
        ("webhooks/faults", {"secret": "none"}, 400),
        ("sessions/cs_nothing/pay", {}, 404),
        ("sessions/cs_nothing/pay", {"method": "gold"}, 400),
        ("refunds/re_nothing/settle", {"status": "lost"}, 400),
        ("disputes/dp_nothing/decide", {"decision": "draw"}, 400),
    ],
)
def test_what_cannot_be_is_refused(
    offline: OfflineStripe, path: str, form: dict[str, object], status: int
) -> None:
    """With a sentence."""
    found, body = control(offline, path, **form)
    assert found == status
    assert body["error"]["message"]
