"""Which columns can hold personal data, and what becomes of each when the person is erased."""

from enum import StrEnum

from sqlalchemy import Boolean, Column, DateTime, Integer, Uuid

from src.common.models import Base

_HOLDS_NO_TEXT = (Boolean, DateTime, Integer, Uuid)


class Fate(StrEnum):
    """What erasure does to a column."""

    ERASED = "erased"
    """Emptied, or replaced by a value that says nothing, at once."""
    BOUNDED = "bounded"
    """Emptied at once where nobody needs it any more, else once its time is over."""
    KEPT = "kept"
    """Ours, Stripe's or a caller's name of a thing: callers are told to name no person in it."""
    IMPERSONAL = "impersonal"
    """Written by us alone, and never about who the person is."""


def _each(fate: Fate, columns: str) -> dict[str, Fate]:
    return dict.fromkeys(columns.split(), fate)


FATES: dict[str, dict[str, Fate]] = {
    "users": {
        **_each(Fate.ERASED, "email password_hash first_name last_name profile_image_url phone"),
        **_each(Fate.ERASED, "stripe_customer_id preferences timezone language_preference"),
        **_each(Fate.ERASED, "last_login_at"),
        **_each(Fate.IMPERSONAL, "user_id credits_balance credits_version user_type is_active"),
        **_each(Fate.IMPERSONAL, "created_at updated_at erased_at"),
    },
    # Changed with the user, whose e-mail and customer they are.
    "users_directory": {
        **_each(Fate.ERASED, "email_lower stripe_customer_id"),
        **_each(Fate.IMPERSONAL, "schema"),
    },
    "payments_directory": _each(Fate.KEPT, "object_id"),
    "user_groups": _each(Fate.IMPERSONAL, "schema"),
    "group_turns": _each(Fate.IMPERSONAL, "work schema"),
    "credit_entry_metadata": _each(Fate.ERASED, "document"),
    "credit_entries": {
        # Part of the journal, which never changes, and of what a repeated key is compared with.
        **_each(Fate.KEPT, "idempotency_key reference actor request_digest"),
        **_each(Fate.IMPERSONAL, "kind entry_hash"),
    },
    # Hashes, and where checkpoints are kept: who somebody is goes into no hash.
    "anchor_checkpoints": _each(Fate.IMPERSONAL, "note checkpoint_hash"),
    "anchor_parts": _each(Fate.IMPERSONAL, "leaves"),
    "anchor_sinks": _each(Fate.IMPERSONAL, "sink problem explanation"),
    "anchor_turns": _each(Fate.IMPERSONAL, "contradiction"),
    "anchored_users": _each(Fate.IMPERSONAL, "last_hash"),
    "checkout_orders": {
        **_each(Fate.ERASED, "success_url cancel_url url idempotency_key request_digest"),
        **_each(Fate.KEPT, "stripe_session_id"),
        **_each(Fate.IMPERSONAL, "package_id currency status"),
    },
    "charged_requests": _each(Fate.ERASED, "key_digest request_digest headers body"),
    "refund_requests": {
        # Whoever asks again with the key must not be paid twice.
        **_each(Fate.KEPT, "idempotency_key request_digest actor refund_id"),
        # A refund that Stripe has not answered yet is asked for again as it was.
        **_each(Fate.BOUNDED, "reason"),
        **_each(Fate.IMPERSONAL, "status error"),
    },
    "stripe_events": {
        **_each(Fate.BOUNDED, "body"),
        **_each(Fate.KEPT, "event_id object_id"),
        **_each(Fate.IMPERSONAL, "type api_version status error remark"),
    },
    "unmatched_payments": {
        **_each(Fate.ERASED, "resolution"),
        **_each(Fate.KEPT, "stripe_object_id event_id actor"),
        **_each(Fate.IMPERSONAL, "reason explanation details status"),
    },
    "transactions": {
        **_each(Fate.KEPT, "stripe_session_id payment_intent_id invoice_id"),
        **_each(Fate.IMPERSONAL, "currency stripe_account"),
    },
    "stripe_reversals": {
        **_each(Fate.KEPT, "reversal_id payment_intent_id"),
        **_each(Fate.IMPERSONAL, "kind currency status stripe_account"),
    },
    "approvals": {
        **_each(Fate.ERASED, "reason note"),
        **_each(Fate.KEPT, "idempotency_key request_digest requester decider"),
        **_each(Fate.IMPERSONAL, "command status"),
    },
    "api_keys": _each(Fate.IMPERSONAL, "key_hash last_four service_name scopes"),
    "credit_holds": _each(Fate.IMPERSONAL, "status"),
    "credit_lots": _each(Fate.IMPERSONAL, "source"),
    "credit_notices": _each(Fate.IMPERSONAL, "type data status error"),
    # Whoever runs a service that is told: of no user.
    "notice_endpoints": _each(Fate.KEPT, "url types disabled_reason"),
    "notice_endpoint_states": _each(Fate.IMPERSONAL, "last_error"),
    "notice_secrets": _each(Fate.IMPERSONAL, "secret"),
    "credit_booking_failures": _each(Fate.IMPERSONAL, "error_type message"),
    "worker_failures": _each(Fate.IMPERSONAL, "work error_type message"),
    "worker_heartbeats": _each(Fate.IMPERSONAL, "work"),
    "console_actions": {
        # An audit trail, which never changes; a CHECK constraint refuses addresses in it.
        **_each(Fate.KEPT, "actor target reason request_id"),
        **_each(Fate.IMPERSONAL, "action before after"),
    },
    # Those who work here: who they were belongs to the audit trail.
    "console_people": {
        **_each(Fate.KEPT, "issuer subject name"),
        **_each(Fate.IMPERSONAL, "roles"),
    },
    "console_sessions": _each(Fate.IMPERSONAL, "secret_hash roles"),
    "reconciliations": _each(Fate.IMPERSONAL, "status stage cursor findings stripe_account"),
}
"""By table and column: each that could hold personal data (a test compares it with the models)."""


def to_classify() -> dict[str, set[str]]:
    """What `FATES` has to name: all columns of a user, and elsewhere each that can hold text."""
    named = {
        table.name: {
            column.name for column in table.columns if table.name == "users" or _holds_text(column)
        }
        for table in Base.metadata.sorted_tables
    }
    return {name: columns for name, columns in named.items() if columns}


def _holds_text(column: Column[object]) -> bool:
    return not isinstance(column.type, _HOLDS_NO_TEXT)
