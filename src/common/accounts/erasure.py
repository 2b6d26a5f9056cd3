"""Erases a person's data outside `users`; `models/personal_data.py` says which and why.

On the caller's open session, never committing. The user's row is locked and has its `erased_at`.
"""

import uuid
from collections.abc import Iterable

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    cast,
    delete,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from src.common.models.approval import ERASURE_ACTOR, Approval, Decision
from src.common.models.charged_request import ChargedRequest
from src.common.models.checkout_order import CheckoutOrder
from src.common.models.credit_entry import CreditEntryMetadata
from src.common.models.refund_request import RefundRequest
from src.common.models.stripe_event import StripeEvent
from src.common.models.transaction import Transaction
from src.common.models.unmatched_payment import UnmatchedPayment

ERASED_TEXT = "erased"
NO_DIGEST = bytes(32)
_TRIED_NO_MORE = ("processed", "ignored", "unmatched", "dead")


def forget_elsewhere(session: Session, user_id: uuid.UUID, names: Iterable[str]) -> None:
    """Empty what other tables have of the person; `names` are what Stripe's events call them."""
    for statement in (
        delete(CreditEntryMetadata).where(CreditEntryMetadata.user_id == user_id),
        delete(ChargedRequest).where(ChargedRequest.user_id == user_id),
        # An erased user orders no more, so that nobody comes back with the key.
        update(CheckoutOrder)
        .where(CheckoutOrder.user_id == user_id)
        .values(
            success_url="",
            cancel_url="",
            url=None,
            idempotency_key=literal("erased:") + cast(CheckoutOrder.order_id, String),
            request_digest=NO_DIGEST,
        ),
        update(RefundRequest)
        .where(RefundRequest.transaction_id.in_(_purchases(user_id)))
        .where(RefundRequest.status != "requested")
        .values(reason=None),
        # Nobody is to decide about a person who is gone, or could any more without the reason.
        update(Approval)
        .where(Approval.user_id == user_id, Approval.status == Decision.OPEN)
        .where(Approval.expires_at > func.statement_timestamp())
        .values(
            status=Decision.WITHDRAWN,
            decider=ERASURE_ACTOR,
            decided_at=func.statement_timestamp(),
        ),
        update(Approval).where(Approval.user_id == user_id).values(reason=None, note=None),
        update(UnmatchedPayment)
        .where(_is_theirs(session, user_id), UnmatchedPayment.status == "resolved")
        .values(resolution=ERASED_TEXT),
        update(StripeEvent)
        .where(StripeEvent.status.in_(_TRIED_NO_MORE), StripeEvent.body.is_not(None))
        .where(_mentions([str(user_id), *names]))
        .values(body=None),
    ):
        session.execute(statement.execution_options(synchronize_session="fetch"))


def _purchases(user_id: uuid.UUID) -> Select[uuid.UUID]:
    return select(Transaction.transaction_id).where(Transaction.user_id == user_id)


def _is_theirs(session: Session, user_id: uuid.UUID) -> ColumnElement[bool]:
    """Payments that named the user, and money back of their purchases.

    These are read before: on Citus they are on another node than unmatched payments.
    """
    bought = session.execute(
        select(Transaction.transaction_id, Transaction.stripe_session_id).where(
            Transaction.user_id == user_id
        )
    ).all()
    details = UnmatchedPayment.details
    return or_(
        details["user_id"].astext == str(user_id),
        details["transaction_id"].astext.in_([str(each.transaction_id) for each in bought]),
        UnmatchedPayment.stripe_object_id.in_([each.stripe_session_id for each in bought]),
    )


def _mentions(names: Iterable[str]) -> ColumnElement[bool]:
    """Whether a raw body has any of these. It reads all bodies kept: erasure is rare."""
    return or_(*(func.pg_catalog.position(StripeEvent.body, name.encode()) > 0 for name in names))
