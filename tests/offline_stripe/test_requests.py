"""Requests are read as Stripe reads them: keys, nested forms, and every wrong parameter named."""

import base64
import json
from typing import Any
from urllib.parse import urlencode

import pytest
import stripe

from src.offline_stripe import API_VERSION, OfflineStripe, Request, Response
from tests.offline_stripe.published import differences, one_reading
from tests.offline_stripe.shop import Shop

BEARER = {"authorization": "Bearer sk_test_1"}


def ask(offline: OfflineStripe, method: str, path: str, form: str = "", **headers: str) -> Response:
    """One request with a key, or with the headers given."""
    request = Request(method, path, headers=headers or BEARER, body=form.encode())
    return offline.handle(request)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": "Bearer sk_test_1"}, 200),
        ({"authorization": "Bearer rk_test_1"}, 200),
        ({"authorization": "Basic " + base64.b64encode(b"sk_test_1:").decode()}, 200),
        ({"authorization": "Basic §§§"}, 401),
        ({"authorization": "Bearer sk_live_1"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"accept": "*/*"}, 401),
    ],
)
def test_a_test_key_is_needed(offline: OfflineStripe, headers: dict[str, str], status: int) -> None:
    """Any will do; a live one never."""
    answer = ask(offline, "GET", "/v1/customers", **headers)
    assert answer.status == status
    assert answer.headers["Request-Id"].startswith("req_")
    assert "sk_live_1" not in answer.body.decode()


@pytest.mark.parametrize(
    ("form", "param", "code"),
    [
        ({"amount": "1.5", "currency": "usd"}, "amount", "parameter_invalid_integer"),
        ({"amount": "1e9", "currency": "usd"}, "amount", "parameter_invalid_integer"),
        ({"amount": "0", "currency": "usd"}, "amount", "parameter_invalid_integer"),
        ({"amount": "49", "currency": "usd"}, "amount", "amount_too_small"),
        ({"amount": "29", "currency": "GBP"}, "amount", "amount_too_small"),
        ({"amount": "49", "currency": "jpy"}, "amount", "amount_too_small"),
        ({"amount": "100000000", "currency": "usd"}, "amount", "amount_too_large"),
        ({"amount": "500", "currency": "btc"}, "currency", None),
        ({"amount": "500", "currency": "usd", "capture_method": "later"}, "capture_method", None),
        ({"amount": "500", "currency": "usd", "setup_future_usage": "any"}, None, None),
        (
            {"amount": "500", "currency": "usd", "receipt_email": "ada"},
            "receipt_email",
            "email_invalid",
        ),
        ({"amount": "500"}, "currency", "parameter_missing"),
        ({"amount": "500", "currency": ""}, "currency", "parameter_invalid_empty"),
        ({"amount": "500", "currency": "usd", "confrim": "1"}, "confrim", "parameter_unknown"),
        ({"amount": "500", "currency": "usd", "confirm": "yes"}, "confirm", None),
        ({"amount": "500", "currency": "usd", "metadata[a][b]": "1"}, "metadata[a]", None),
        ({"amount": "500", "currency": "usd", "metadata": "x"}, "metadata", None),
        ({"amount": "500", "currency": "usd", "payment_method_types": "card"}, None, None),
        ({"amount": "500", "currency": "usd", "a]": "card"}, "a]", None),
        ({"amount": "500", "currency": "usd", "shipping[nmae]": "x"}, "shipping[nmae]", None),
        ({"amount": "500", "currency": "usd", "customer": "cus_1"}, "customer", "resource_missing"),
    ],
)
def test_a_wrong_parameter_is_named(
    offline: OfflineStripe, form: dict[str, str], param: str | None, code: str | None
) -> None:
    """With Stripe's code for what is wrong with it, and nothing is done."""
    answer = ask(offline, "POST", "/v1/payment_intents", urlencode(form))
    assert answer.status == 400
    error = json.loads(answer.body)["error"]
    assert error["type"] == "invalid_request_error"
    assert error.get("param") == param or param is None, error
    assert code is None or error["code"] == code
    assert list(offline.account.all("payment_intent")) == []


def test_lists_in_forms_come_with_and_without_numbers(offline: OfflineStripe) -> None:
    """`a[]=…` and `a[0]=…` are the same."""
    for style in ("payment_method_types[]", "payment_method_types[0]"):
        form = urlencode({"amount": "500", "currency": "usd", style: "sepa_debit"})
        assert ask(offline, "POST", "/v1/payment_intents", form).status == 200
    assert [each["payment_method_types"] for each in offline.account.all("payment_intent")] == [
        ["sepa_debit"],
        ["sepa_debit"],
    ]


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1", "/", "/v1/customers/a/b/c", "/v2/core"])
def test_an_address_that_stripe_has_not_is_404(offline: OfflineStripe, path: str) -> None:
    """Said in Stripe's words."""
    answer = ask(offline, "GET", path)
    assert (answer.status, b"Unrecognized request URL" in answer.body) == (404, True)


def test_a_body_that_is_no_form_is_refused(offline: OfflineStripe) -> None:
    """Bytes that are no UTF-8 are no form."""
    request = Request("POST", "/v1/customers", headers=BEARER, body=b"name=\xff")
    assert offline.handle(request).status == 400


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"success_url": "shop"}, "success_url"),
        ({"customer_email": "ada@example"}, "customer_email"),
        ({"locale": "martian"}, "locale"),
        ({"mode": "setup"}, "mode"),
        ({"line_items": []}, "line_items"),
        ({"line_items": [{"price": "price_nothing"}]}, "line_items[0][price]"),
        ({"expires_at": 1}, "expires_at"),
        ({"client_reference_id": "x" * 201}, "client_reference_id"),
        ({"metadata": {"k" * 41: "v"}}, "metadata"),
        ({"metadata": {"k": "v" * 501}}, "metadata[k]"),
        ({"metadata": {str(number): "v" for number in range(51)}}, "metadata"),
        ({"locale": "", "mode": "payment"}, "locale"),
        ({"customer": "cus_1", "customer_email": "a@example.com"}, None),
    ],
)
def test_a_session_is_checked_as_stripe_checks_it(
    shop: Shop, changes: dict[str, Any], param: str | None
) -> None:
    """Limits of Stripe's reference, each with the parameter's name."""
    with pytest.raises(stripe.InvalidRequestError) as wrong:
        shop.offer(**changes)
    assert wrong.value.param == param
    assert list(shop.offline.account.all("checkout.session")) == []


def test_a_session_comes_to_what_stripe_charges_at_least_or_to_nothing(shop: Shop) -> None:
    """As it is offered; what its items cost each is no matter."""
    with pytest.raises(stripe.InvalidRequestError, match=r"add up to at least \$0.50") as little:
        shop.offer(49)
    assert little.value.code == "amount_too_small"
    assert shop.offer(0).payment_status == "no_payment_required"
    price: Any = {"currency": "usd", "unit_amount": 1, "product_data": {"name": "Drop"}}
    assert shop.offer(line_items=[{"price_data": price, "quantity": 50}]).amount_total == 50


@one_reading
@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("customers", {"balance": 5, "tax_exempt": "exempt", "preferred_locales": ["de"]}),
        ("products", {"statement_descriptor": "SLIDES", "tax_code": "txcd_1"}),
        ("products", {"marketing_features": [{"name": "Fonts"}]}),
        ("payment_intents", {"statement_descriptor": "SLIDES", "transfer_group": "g"}),
        ("payment_intents", {"excluded_payment_method_types": ["alipay"]}),
        ("payment_intents", {"automatic_payment_methods": {"enabled": True}}),
        ("sessions", {"integration_identifier": "ours"}),
        ("sessions", {"phone_number_collection": {"enabled": True}}),
    ],
    ids=str,
)
def test_what_is_given_is_kept(shop: Shop, kind: str, given: dict[str, Any]) -> None:
    """The object says what the request said."""
    v1: Any = shop.client.v1
    needed: dict[str, Any] = {
        "customers": {},
        "products": {"name": "Slides"},
        "payment_intents": {"amount": 500, "currency": "usd"},
    }
    made = (
        shop.offer(**given)
        if kind == "sessions"
        else getattr(v1, kind).create({**needed[kind], **given})
    )
    kept = shop.offline.get(made.id)
    assert {name: kept[name] for name in given} == given
    assert differences(kept) == []


def test_more_of_a_session_than_its_metadata_is_not_changed(shop: Shop) -> None:
    """Refused, not ignored."""
    sessions: Any = shop.client.v1.checkout.sessions
    with pytest.raises(stripe.InvalidRequestError, match="metadata alone"):
        sessions.update(shop.offer().id, {"shipping_options": ""})


def test_an_endpoint_has_events_of_the_one_version(shop: Shop) -> None:
    """Another one is refused, not ignored; so is an event that Stripe has not."""
    endpoints: Any = shop.client.v1.webhook_endpoints
    asked: Any = {"url": "https://shop.test/hook", "enabled_events": ["charge.succeeded"]}
    assert endpoints.create({**asked, "api_version": API_VERSION}).api_version == API_VERSION
    assert endpoints.create(asked).api_version is None
    with pytest.raises(stripe.InvalidRequestError, match=f"{API_VERSION} only"):
        endpoints.create({**asked, "api_version": "2025-09-30.clover"})
    with pytest.raises(stripe.InvalidRequestError, match=r"Invalid enabled_events\[0\]"):
        endpoints.create({**asked, "enabled_events": ["charge.paid"]})
