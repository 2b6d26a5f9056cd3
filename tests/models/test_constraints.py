"""Every CHECK constraint refuses the row it is there for, and says its name on either driver."""

import datetime as dt
import uuid
from typing import Any

import pytest
from sqlalchemy import CheckConstraint, Insert, func, insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from src.common.models import (
    AnchorCheckpoint,
    AnchoredUser,
    AnchorPart,
    AnchorSink,
    AnchorTurn,
    ApiKey,
    Approval,
    Base,
    ChargedRequest,
    CheckoutOrder,
    ConsoleAction,
    ConsoleSession,
    CreditNotice,
    DirectoryPayment,
    DirectoryUser,
    GroupTurn,
    NoticeEndpoint,
    NoticeEndpointState,
    NoticeSecret,
    Reconciliation,
    RefundRequest,
    StripeEvent,
    StripeReversal,
    Transaction,
    UnmatchedPayment,
    User,
    UserGroup,
)
from src.common.postgres.errors import violated_constraint
from tests.models.examples import a_transaction, a_user
from tests.models.right_rows import NOW, RIGHT

_DONE = {"status": "dead", "finished_at": NOW, "next_attempt_at": None}
_DAYS_MAX = 366
_LOW = {"types": ["credits.low"], "low_threshold": 10}
_EXPIRING = {"types": ["credits.expiring"], "expiring_lead_seconds": 60}
_LONG = "a" * 256
_CONSENTED = {"status": "consented", "decider": "user:2", "decided_at": NOW}
RESOLVED = {"status": "resolved", "resolved_at": NOW, "resolution": "granted", "actor": "user:1"}
WRONG: list[tuple[type[Base], str, dict[str, Any]]] = [
    (AnchorCheckpoint, "ck_anchor_checkpoints_number_positive", {"number": 0}),
    (AnchorCheckpoint, "ck_anchor_checkpoints_hash_length", {"checkpoint_hash": bytes(31)}),
    (AnchorPart, "ck_anchor_parts_whole_leaves", {"leaves": b""}),
    (AnchorPart, "ck_anchor_parts_whole_leaves", {"leaves": bytes(57)}),
    (AnchorSink, "ck_anchor_sinks_number_positive", {"number": 0}),
    (AnchorSink, "ck_anchor_sinks_failures_not_negative", {"failures": -1}),
    (AnchorSink, "ck_anchor_sinks_problem", {"problem": "lost", "explanation": "e"}),
    (AnchorSink, "ck_anchor_sinks_problem_is_explained", {"problem": "gap"}),
    (AnchorSink, "ck_anchor_sinks_problem_is_explained", {"explanation": "e"}),
    (AnchorTurn, "ck_anchor_turns_one_row", {"turn_id": 2}),
    (AnchoredUser, "ck_anchored_users_version_not_negative", {"version": -1}),
    (AnchoredUser, "ck_anchored_users_hash_length", {"last_hash": bytes(33)}),
    (UserGroup, "ck_user_groups_schema_of_a_group", {"schema": "public"}),
    (UserGroup, "ck_user_groups_schema_of_a_group", {"schema": "g001"}),
    (UserGroup, "ck_user_groups_users_count_not_negative", {"users_count": -1}),
    (DirectoryPayment, "ck_payments_directory_object_id_not_empty", {"object_id": ""}),
    (User, "ck_users_credits_balance_not_negative", {"credits_balance": -1}),
    (User, "ck_users_credits_version_not_negative", {"credits_version": -1}),
    (User, "ck_users_email_has_at_sign", {"email": "ada.example.com"}),
    (User, "ck_users_email_has_at_sign", {"email": "@example.com"}),
    (User, "ck_users_email_length", {"email": f"{'a' * 309}@example.com"}),
    (User, "ck_users_password_hash_not_empty", {"password_hash": ""}),
    (User, "ck_users_preferences_is_object", {"preferences": ["company"]}),
    (User, "ck_users_company_length", {"preferences": {"company": "a" * 501}}),
    (User, "ck_users_erased_is_inactive", {"erased_at": NOW, "is_active": True}),
    (Transaction, "ck_transactions_stripe_session_id_not_empty", {"stripe_session_id": ""}),
    (Transaction, "ck_transactions_amount_paid_cents_not_negative", {"amount_paid_cents": -1}),
    (Transaction, "ck_transactions_credits_added_positive", {"credits_added": 0}),
    (Transaction, "ck_transactions_currency_is_iso_4217", {"currency": "USD"}),
    (Transaction, "ck_transactions_currency_is_iso_4217", {"currency": "euro"}),
    (Transaction, "ck_transactions_refunded_cents_not_negative", {"refunded_cents": -1}),
    (Transaction, "ck_transactions_disputed_cents_not_negative", {"disputed_cents": -1}),
    (StripeEvent, "ck_stripe_events_status", {"status": "lost"}),
    (StripeEvent, "ck_stripe_events_attempts_not_negative", {"attempts": -1}),
    (StripeEvent, "ck_stripe_events_event_id_not_empty", {"event_id": ""}),
    (UnmatchedPayment, "ck_unmatched_payments_status", {"status": "forgotten"}),
    *(
        (UnmatchedPayment, "ck_unmatched_payments_resolved_says_how", {**RESOLVED, column: None})
        for column in ("resolved_at", "resolution", "actor")
    ),
    (UnmatchedPayment, "ck_unmatched_payments_resolved_says_how", {**RESOLVED, "status": "open"}),
    (ApiKey, "ck_api_keys_key_hash_is_sha256", {"key_hash": bytes(31)}),
    (ApiKey, "ck_api_keys_last_four_length", {"last_four": "abc"}),
    (ApiKey, "ck_api_keys_service_name_not_empty", {"service_name": ""}),
    (ApiKey, "ck_api_keys_scopes_not_empty", {"scopes": []}),
    (Approval, "ck_approvals_command_is_versioned", {"command": {"operation": "adjustment"}}),
    (Approval, "ck_approvals_command_is_versioned", {"command": {"version": 1}}),
    (
        Approval,
        "ck_approvals_command_is_versioned",
        {"command": {"version": 1, "operation": "spend"}},
    ),
    (
        Approval,
        "ck_approvals_refund_names_purchase",
        {"command": {"version": 1, "operation": "refund"}},
    ),
    (
        Approval,
        "ck_approvals_key_names_no_user",
        {"command": {"version": 1, "operation": "api_key"}},
    ),
    (Approval, "ck_approvals_key_length", {"idempotency_key": ""}),
    (Approval, "ck_approvals_digest_is_sha256", {"request_digest": bytes(31)}),
    (Approval, "ck_approvals_reason_length", {"reason": _LONG}),
    (Approval, "ck_approvals_expires_later", {"expires_at": NOW}),
    (Approval, "ck_approvals_decided_says_by_whom", {"decider": "user:2"}),
    (Approval, "ck_approvals_decided_says_by_whom", {**_CONSENTED, "decided_at": None}),
    (Approval, "ck_approvals_status", {**_CONSENTED, "status": "lost"}),
    (Approval, "ck_approvals_note_length", {**_CONSENTED, "note": _LONG}),
    (
        Approval,
        "ck_approvals_decided_in_time",
        {**_CONSENTED, "decided_at": NOW + dt.timedelta(days=3)},
    ),
    (Approval, "ck_approvals_decided_by_somebody_else", {**_CONSENTED, "decider": "user:1"}),
    (Approval, "ck_approvals_decided_by_somebody_else", {**_CONSENTED, "status": "withdrawn"}),
    (CheckoutOrder, "ck_checkout_orders_status", {"status": "lost"}),
    (CheckoutOrder, "ck_checkout_orders_credits_positive", {"credits": 0}),
    (CheckoutOrder, "ck_checkout_orders_amount_cents_not_negative", {"amount_cents": -1}),
    (CheckoutOrder, "ck_checkout_orders_currency_is_iso_4217", {"currency": "USD"}),
    (CheckoutOrder, "ck_checkout_orders_key_length", {"idempotency_key": ""}),
    (CheckoutOrder, "ck_checkout_orders_digest_is_sha256", {"request_digest": bytes(31)}),
    (CheckoutOrder, "ck_checkout_orders_url_has_session", {"url": "https://stripe.test/1"}),
    (StripeReversal, "ck_stripe_reversals_reversal_id_not_empty", {"reversal_id": ""}),
    (StripeReversal, "ck_stripe_reversals_amount_cents_not_negative", {"amount_cents": -1}),
    (StripeReversal, "ck_stripe_reversals_currency_is_iso_4217", {"currency": "euro"}),
    (StripeReversal, "ck_stripe_reversals_status_goes_with_kind", {"status": "withdrawn"}),
    (StripeReversal, "ck_stripe_reversals_status_goes_with_kind", {"kind": "gift"}),
    (RefundRequest, "ck_refund_requests_status", {"status": "lost"}),
    (RefundRequest, "ck_refund_requests_amount_cents_positive", {"amount_cents": 0}),
    (RefundRequest, "ck_refund_requests_key_length", {"idempotency_key": "k" * 256}),
    (RefundRequest, "ck_refund_requests_digest_is_sha256", {"request_digest": bytes(33)}),
    (RefundRequest, "ck_refund_requests_accepted_has_refund", {"status": "accepted"}),
    (RefundRequest, "ck_refund_requests_refused_says_why", {"status": "refused"}),
    (ChargedRequest, "ck_charged_requests_key_is_sha256", {"key_digest": bytes(31)}),
    (ChargedRequest, "ck_charged_requests_digest_is_sha256", {"request_digest": bytes(33)}),
    (ChargedRequest, "ck_charged_requests_answer_is_whole", {"status": 200, "headers": []}),
    (
        ChargedRequest,
        "ck_charged_requests_body_is_bounded",
        {"status": 200, "headers": [], "body": func.decode(func.repeat("00", 16_777_217), "hex")},
    ),
    (Reconciliation, "ck_reconciliations_status", {"status": "lost"}),
    (Reconciliation, "ck_reconciliations_window_not_empty", {"since_at": NOW}),
    (Reconciliation, "ck_reconciliations_counts_not_negative", {"drift": -1}),
    (Reconciliation, "ck_reconciliations_finished_says_when", {"status": "finished"}),
    (ConsoleAction, "ck_console_actions_actor_is_a_person", {"actor": "system:1"}),
    (ConsoleAction, "ck_console_actions_actor_is_a_person", {"actor": "user:"}),
    (ConsoleAction, "ck_console_actions_action_not_empty", {"action": ""}),
    (ConsoleAction, "ck_console_actions_reason_length", {"reason": ""}),
    (ConsoleAction, "ck_console_actions_reason_length", {"reason": "a" * 501}),
    (ConsoleAction, "ck_console_actions_names_no_address", {"reason": "for ada@example.com"}),
    (ConsoleAction, "ck_console_actions_names_no_address", {"after": {"email": "a@b.c"}}),
    (ConsoleSession, "ck_console_sessions_secret_hash_is_sha256", {"secret_hash": bytes(31)}),
    (ConsoleSession, "ck_console_sessions_roles_are_known", {"roles": ["gardener"]}),
    (ConsoleSession, "ck_console_sessions_roles_are_known", {"roles": []}),
    (ConsoleSession, "ck_console_sessions_expires_later", {"expires_at": NOW}),
    (CreditNotice, "ck_credit_notices_type", {"type": "credits.lost"}),
    (CreditNotice, "ck_credit_notices_status", {**_DONE, "status": "lost"}),
    (CreditNotice, "ck_credit_notices_data_is_object", {"data": [1]}),
    (CreditNotice, "ck_credit_notices_attempts_not_negative", {"attempts": -1}),
    (CreditNotice, "ck_credit_notices_finished_or_tried_again", {"finished_at": NOW}),
    (CreditNotice, "ck_credit_notices_finished_or_tried_again", {"next_attempt_at": None}),
    (CreditNotice, "ck_credit_notices_finished_or_tried_again", {"status": "dead"}),
    (NoticeEndpoint, "ck_notice_endpoints_url_length", {"url": ""}),
    (NoticeEndpoint, "ck_notice_endpoints_url_length", {"url": "a" * 2001}),
    (NoticeEndpoint, "ck_notice_endpoints_types_are_known", {"types": []}),
    (NoticeEndpoint, "ck_notice_endpoints_types_are_known", {"types": ["credits.lost"]}),
    (NoticeEndpoint, "ck_notice_endpoints_low_threshold_positive", {**_LOW, "low_threshold": 0}),
    (NoticeEndpoint, "ck_notice_endpoints_low_has_threshold", {"low_threshold": 10}),
    (NoticeEndpoint, "ck_notice_endpoints_low_has_threshold", {**_LOW, "low_threshold": None}),
    (NoticeEndpoint, "ck_notice_endpoints_expiring_has_lead", {"expiring_lead_seconds": 60}),
    (
        NoticeEndpoint,
        "ck_notice_endpoints_expiring_has_lead",
        {**_EXPIRING, "expiring_lead_seconds": None},
    ),
    (
        NoticeEndpoint,
        "ck_notice_endpoints_expiring_lead_bounds",
        {**_EXPIRING, "expiring_lead_seconds": 86_400 * _DAYS_MAX + 1},
    ),
    (NoticeEndpoint, "ck_notice_endpoints_disabled_says_why", {"disabled_at": NOW}),
    (NoticeEndpoint, "ck_notice_endpoints_disabled_says_why", {"disabled_reason": "gone"}),
    (NoticeEndpointState, "ck_notice_endpoint_states_counts_not_negative", {"failures": -1}),
    (NoticeEndpointState, "ck_notice_endpoint_states_failure_says_why", {"last_error": "lost"}),
    (NoticeSecret, "ck_notice_secrets_secret_length", {"secret": bytes(23)}),
    (NoticeSecret, "ck_notice_secrets_secret_length", {"secret": bytes(65)}),
]
CASES = pytest.mark.parametrize(
    ("model", "constraint", "wrong"),
    WRONG,
    ids=[f"{name}-{wrong}"[:80] for _, name, wrong in WRONG],
)


def row(model: type[Base], user: User, **columns: Any) -> Insert:
    """An INSERT of a row that is right but for `columns`."""
    owned = {Transaction, CheckoutOrder, ChargedRequest, Approval}
    owner = {"user_id": user.user_id} if model in owned else {}
    paid = {"transaction_id": uuid.UUID(int=1)} if model is RefundRequest else {}
    return insert(model).values({**RIGHT[model], **owner, **paid, **columns})


def a_buyer() -> User:
    """A user with a purchase."""
    return a_user(transactions=[a_transaction(transaction_id=uuid.UUID(int=1))])


@CASES
def test_a_wrong_row_is_refused(
    db: Session, model: type[Base], constraint: str, wrong: dict[str, Any]
) -> None:
    """The row with one wrong value violates the constraint that is named for it."""
    user = a_buyer()
    db.add(user)
    db.flush()
    with pytest.raises(IntegrityError) as caught, db.begin_nested():
        db.connection().execute(row(model, user, **wrong))  # the session itself refuses balances
    assert violated_constraint(caught.value) == constraint


@CASES
async def test_a_wrong_row_is_refused_on_the_async_driver(
    async_db: AsyncSession, model: type[Base], constraint: str, wrong: dict[str, Any]
) -> None:
    """As above: the name is read from asyncpg's error just as well."""
    user = a_buyer()
    async_db.add(user)
    await async_db.flush()
    connection = await async_db.connection()
    with pytest.raises(IntegrityError) as caught:
        async with async_db.begin_nested():
            await connection.execute(row(model, user, **wrong))
    assert violated_constraint(caught.value) == constraint


@pytest.mark.parametrize("model", RIGHT)
def test_a_right_row_is_taken(db: Session, model: type[Base]) -> None:
    """The rows above are refused for their one wrong value only."""
    user = a_buyer()
    db.add(user)
    db.flush()
    if model is ConsoleAction:  # of somebody who is signed in
        db.execute(row(ConsoleSession, user))
    if model is AnchorPart:
        db.execute(row(AnchorCheckpoint, user))
    if model in {NoticeSecret, NoticeEndpointState}:
        db.execute(row(NoticeEndpoint, user))
    if model in {DirectoryUser, DirectoryPayment, GroupTurn}:
        db.execute(row(UserGroup, user))
    if model is DirectoryPayment:
        db.execute(row(DirectoryUser, user))
    db.execute(row(model, user))


def test_a_resolved_payment_is_taken(db: Session) -> None:
    """A payment that says who resolved it, when and how is right."""
    db.execute(insert(UnmatchedPayment).values({**RIGHT[UnmatchedPayment], **RESOLVED}))


def test_no_constraint_of_these_tables_is_forgotten() -> None:
    """Each CHECK of these tables is violated above."""
    named = {
        constraint.name
        for model in RIGHT
        for constraint in Base.metadata.tables[model.__tablename__].constraints
        if isinstance(constraint, CheckConstraint)
    }
    assert named == {constraint for _, constraint, _ in WRONG}


@pytest.mark.parametrize("other", ["Ada@Example.com", "ADA@EXAMPLE.COM", "ada@example.com"])
def test_an_email_is_unique_without_regard_to_case(db: Session, other: str) -> None:
    """A second user with the same e-mail, however it is written, is refused."""
    db.add(a_user(email="ada@example.com"))
    db.flush()
    db.add(a_user(email=other))
    with pytest.raises(IntegrityError) as caught:
        db.flush()
    db.rollback()
    name = "ix_users_email" if other == "ada@example.com" else "uq_users_email_lower"
    assert violated_constraint(caught.value) == name


def test_an_email_keeps_the_case_it_was_given_in(db: Session) -> None:
    """Nothing but comparison ignores case."""
    user = a_user(email="Ada@Example.com")
    db.add(user)
    db.flush()
    db.expire(user)
    assert user.email == "Ada@Example.com"


@pytest.mark.parametrize("column", ["payment_intent_id", "invoice_id", "stripe_session_id"])
def test_one_payment_is_one_row(db: Session, column: str) -> None:
    """No Stripe object that paid is stored twice."""
    user = a_user()
    db.add(user)
    db.flush()
    db.execute(row(Transaction, user, **{column: "the same"}))
    other = {"stripe_session_id": "cs_2", column: "the same"}
    with pytest.raises(IntegrityError) as caught, db.begin_nested():
        db.execute(row(Transaction, user, **other))
    assert violated_constraint(caught.value) == f"uq_transactions_{column}"
