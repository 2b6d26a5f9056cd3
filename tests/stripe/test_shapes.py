"""Our wire models and our offline Stripe against Stripe's library and its old versions."""

import json
import uuid
from typing import Any

import pytest
import stripe

from src.common.purchases.packages import PACKAGES
from src.common.stripe.wire import CheckoutSession, Event, parse_event
from tests.stripe import development
from tests.stripe.payments import STARTER, make_event, make_session

USER = uuid.UUID(int=1)


def published_fields(model: type[stripe.StripeObject]) -> set[str]:
    """The fields Stripe's library declares for an object."""
    return {name for base in model.mro() for name in vars(base).get("__annotations__", {})}


def test_stripes_library_reads_our_sessions() -> None:
    """Parsed by Stripe's own code, every field we read has the value we wrote."""
    session = make_session(USER, STARTER)
    constructed = stripe.Event.construct_from(make_event(session), "sk_test_x")
    read = constructed.data.object
    assert isinstance(read, stripe.checkout.Session)
    ours = CheckoutSession.model_validate(session).as_payment()
    assert (read.id, read.mode, read.livemode) == (ours.stripe_session_id, ours.mode, ours.livemode)
    assert (read.payment_status, read.currency) == (ours.payment_status, ours.currency)
    assert read.amount_subtotal == ours.amount_subtotal_cents == STARTER.price_cents
    assert read.amount_total == ours.amount_total_cents == STARTER.price_cents
    assert read.payment_intent == ours.payment_intent_id
    assert read.metadata is not None
    assert read.metadata.to_dict() == {
        "user_id": str(ours.user_id),
        "credits": ours.credits,
        "package_id": ours.package_id,
        "env": ours.env,
    }


def test_stripes_library_verifies_our_deliveries() -> None:
    """`construct_event`, what Stripe tells its customers to use, accepts what we sign."""
    from src.common.stripe.signatures import sign

    body = json.dumps(make_event(make_session(USER)))
    event = stripe.Webhook.construct_event(body, sign(body, "whsec_x"), "whsec_x")
    assert event.type == "checkout.session.completed"


@pytest.mark.parametrize(
    ("ours", "published"),
    [(CheckoutSession, stripe.checkout.Session), (Event, stripe.Event)],
    ids=["session", "event"],
)
def test_every_field_we_read_is_published(ours: Any, published: type[stripe.StripeObject]) -> None:
    """A misspelt name would read None for ever."""
    assert set(ours.model_fields) <= published_fields(published)


def test_our_offline_stripe_invents_no_fields() -> None:
    """What development sends has only fields that Stripe's objects have."""
    session = make_session(USER)
    assert set(session) <= published_fields(stripe.checkout.Session)
    assert set(development.event(session)) <= published_fields(stripe.Event)


def test_our_offline_stripe_speaks_the_librarys_api_version() -> None:
    """The library's own version: the types above are of no other."""
    assert stripe.api_version == development.API_VERSION


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.package_id)
def test_our_offline_stripe_never_repeats_an_id(package: Any) -> None:
    """Each session, payment and event is a new one, unless its id is given."""
    sessions = [make_session(USER, package) for _ in range(100)]
    events = [development.event(session) for session in sessions]
    assert len({each["id"] for each in [*sessions, *events]}) == 200
    assert len({each["payment_intent"] for each in sessions}) == 100
    given = development.checkout_session(
        user_id=USER, package=package, env="local", session_id="cs_mine"
    )
    assert given["id"] == "cs_mine"


# The Checkout Session as older API versions had it: https://docs.stripe.com/changelog
OLD_VERSIONS: dict[str, dict[str, Any]] = {
    "2019-05-16, before mode, totals and payment_status": {
        "id": "cs_old",
        "object": "checkout.session",
        "livemode": False,
        "display_items": [{"amount": 500, "currency": "usd", "quantity": 1}],
        "payment_intent": "pi_1",
    },
    "2020-08-27, amounts and payment_status": {
        "id": "cs_old",
        "object": "checkout.session",
        "livemode": True,
        "mode": "payment",
        "amount_subtotal": 500,
        "amount_total": 500,
        "currency": "usd",
        "payment_status": "paid",
        "payment_intent": "pi_1",
        "shipping": None,
    },
    "2022-08-01, no PaymentIntent before it is needed": {
        "id": "cs_old",
        "object": "checkout.session",
        "livemode": False,
        "mode": "payment",
        "payment_intent": None,
        "payment_status": "unpaid",
        "metadata": {},
    },
    "a session of mode setup, nothing to pay": {
        "id": "cs_old",
        "object": "checkout.session",
        "livemode": False,
        "mode": "setup",
        "amount_total": None,
        "payment_status": "no_payment_required",
        "setup_intent": "seti_1",
        "metadata": None,
    },
}


@pytest.mark.parametrize("session", OLD_VERSIONS.values(), ids=OLD_VERSIONS.keys())
@pytest.mark.parametrize("api_version", ["2019-05-16", None])
def test_sessions_of_old_api_versions_are_read(
    session: dict[str, Any], api_version: str | None
) -> None:
    """What a version lacks is None, not an error; the endpoint's version is its owner's choice."""
    event = {
        "id": "evt_old",
        "object": "event",
        "api_version": api_version,
        "created": 1_558_000_000,
        "data": {"object": session},
        "livemode": session["livemode"],
        "type": "checkout.session.completed",
        "request": "req_1",
    }
    if api_version is None:
        del event["api_version"]
    parsed = parse_event(json.dumps(event).encode())
    assert isinstance(parsed, Event)
    assert (parsed.object_id, parsed.api_version) == ("cs_old", api_version)
    payment = CheckoutSession.model_validate(parsed.data.object).as_payment()
    assert payment.payment_intent_id == session.get("payment_intent")
    assert (payment.user_id, payment.package_id) == (None, None)
    assert payment.amount_total_cents == session.get("amount_total")


@pytest.mark.parametrize("user_id", ["", "ada", "1", str(USER) + "0", "{}", "null"])
def test_a_user_id_that_is_none_of_ours_is_read_as_none(user_id: str) -> None:
    """Metadata is what somebody typed into Stripe: not an error, nobody's."""
    session = make_session(USER, metadata={"user_id": user_id})
    assert CheckoutSession.model_validate(session).as_payment().user_id is None


def test_a_fraction_is_no_amount() -> None:
    """Money is whole cents: `500.0` or "500" is not read as 500."""
    for amount in (500.0, "500", True):
        with pytest.raises(ValueError, match="amount_total"):
            CheckoutSession.model_validate(make_session(USER, amount_total=amount))
