"""What is stored of a request is read again as it was, or refused in words."""

import datetime as dt
import json
import uuid
from typing import Any

import pytest

from src.common.approvals.forms import (
    AdjustmentForm,
    CreditsForm,
    Form,
    GrantForm,
    KeyForm,
    PaymentForm,
    RefundForm,
    ReleaseForm,
    ReversalForm,
    command_of,
    form_of,
    read,
    written,
)
from src.common.exceptions import Conflict
from src.common.models.approval import ApprovalOperation
from src.common.models.credit_lot import LotSource

EXPIRY = dt.datetime(2099, 1, 31, 12, 30, 15, 123_456, tzinfo=dt.UTC)
CREDITS: list[CreditsForm] = [
    GrantForm(amount=5, source=LotSource.PROMO, priority=None, expires_at=None),
    GrantForm(amount=5, source=LotSource.SUBSCRIPTION, priority=7, expires_at=EXPIRY),
    AdjustmentForm(amount=-5),
    AdjustmentForm(amount=2**31 - 1),
    ReversalForm(seq=3, amount=5),
    ReleaseForm(hold_seq=3, amount=5),
]
PAYMENT = PaymentForm(stripe_object_id="cs_1", amount=5_000, amount_cents=None, currency=None)
KEY = KeyForm(
    key_id=uuid.UUID(int=1),
    key_hash="ab" * 32,
    last_four="abcd",
    service_name="shop",
    scopes=("credits:grant", "users:read"),
    expires_at=EXPIRY,
)
FORMS: list[Form] = [*CREDITS, RefundForm(amount_cents=500), PAYMENT, KEY]
WRITTEN_BY_VERSION_1: list[dict[str, Any]] = [
    {
        "operation": "grant",
        "version": 1,
        "amount": 5,
        "source": "promo",
        "priority": None,
        "expires_at": "2099-01-31T12:30:15.123456Z",
    },
    {"operation": "adjustment", "version": 1, "amount": -5},
    {"operation": "reversal", "version": 1, "seq": 3, "amount": 5},
    {"operation": "release", "version": 1, "hold_seq": 3, "amount": 5},
    {"operation": "refund", "version": 1, "amount_cents": 500},
    {
        "operation": "payment",
        "version": 1,
        "stripe_object_id": "cs_1",
        "amount": 5_000,
        "amount_cents": None,
        "currency": None,
    },
    {
        "operation": "api_key",
        "version": 1,
        "key_id": "00000000-0000-0000-0000-000000000001",
        "key_hash": "ab" * 32,
        "last_four": "abcd",
        "service_name": "shop",
        "scopes": ["credits:grant", "users:read"],
        "expires_at": "2099-01-31T12:30:15.123456Z",
    },
]
"""As the first release wrote them: they are read for ever, or refused in words."""


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_form_comes_back_as_it_was(form: Form) -> None:
    """Through JSON, as PostgreSQL keeps it."""
    assert read(json.loads(json.dumps(written(form)))) == form


@pytest.mark.parametrize("form", CREDITS, ids=str)
def test_a_command_s_form_makes_the_same_command(form: CreditsForm) -> None:
    """What is done is what was asked for."""
    command = command_of(form, user_id=uuid.UUID(int=1), actor="user:1", reason="why", key="k")
    assert form_of(command, form.amount) == form
    assert (command.noted, command.key, command.actor) == ("why", "k", "user:1")


@pytest.mark.parametrize("kept", WRITTEN_BY_VERSION_1, ids=lambda kept: kept["operation"])
def test_what_the_first_release_wrote_is_read(kept: dict[str, Any]) -> None:
    """Word for word; and every operation is among them."""
    assert json.loads(json.dumps(written(read(kept)))) == kept
    assert {each["operation"] for each in WRITTEN_BY_VERSION_1} == set(ApprovalOperation)


@pytest.mark.parametrize(
    "kept",
    [
        {},
        {"operation": "adjustment", "version": 2, "amount": 5},
        {"operation": "adjustment", "version": 1},
        {"operation": "adjustment", "version": 1, "amount": "5"},
        {"operation": "adjustment", "version": 1, "amount": 5, "currency": "usd"},
        {"operation": "gift", "version": 1, "amount": 5},
        {**WRITTEN_BY_VERSION_1[0], "source": "lottery"},
    ],
    ids=str,
)
def test_what_another_release_wrote_is_refused_in_words(kept: dict[str, Any]) -> None:
    """Nothing is guessed: an unknown version, field, source or operation."""
    with pytest.raises(Conflict, match="asked for anew") as caught:
        read(kept)
    assert caught.value.error_type == "APPROVAL_UNREADABLE"


def test_a_form_that_makes_no_command_any_more_is_refused_in_words() -> None:
    """The form is right, and the ledger has other bounds by now."""
    form = GrantForm(amount=5, source=LotSource.PURCHASE, priority=None, expires_at=None)
    with pytest.raises(Conflict) as caught:
        command_of(form, user_id=uuid.UUID(int=1), actor="user:1", reason="why", key="k")
    assert caught.value.error_type == "APPROVAL_UNREADABLE"
