"""Refund requests: written down before Stripe is asked, so that none is lost or done twice.

On the caller's open session, never committing. Stripe is asked in between, by
`src.common.stripe.refunds`; its answer is settled like any refund of Stripe's.
"""

import datetime as dt
import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from src.common.accounts.operations import lock_user
from src.common.accounts.rules import storable
from src.common.credits.domain.commands import OWN_KEY_PREFIX
from src.common.credits.domain.digest import digest_of
from src.common.credits.domain.errors import key_reused
from src.common.credits.domain.own_commands import APPROVAL_KEY_PREFIX
from src.common.exceptions import Invalid, NotFound
from src.common.models.refund_request import RefundRequest
from src.common.models.transaction import Transaction
from src.html_pages import money


@dataclass(frozen=True)
class RefundWish:
    """What somebody wants paid back."""

    transaction_id: uuid.UUID
    """The purchase."""
    key: str
    """The idempotency key, 1 to 255 characters, unique for this purchase's refunds."""
    actor: str
    """Who asks: `user:`, `key:` or `system:` and an id, never a name."""
    amount_cents: int | None = None
    """In the smallest unit of the purchase's currency, 1 or more. None is all that is left."""
    reason: str | None = None
    """Why; Stripe keeps it in the refund's metadata."""
    is_own: bool = False
    """Whether we ask it ourselves; only then the key may begin with `~`."""

    @property
    def digest(self) -> bytes:
        """What decides whether the same key came with the same request."""
        return digest_of(self.actor, "refund", "", self.amount_cents, self.reason)


def request_name(transaction_id: uuid.UUID, key: str) -> str:
    """What a request is called at Stripe: in its idempotency key, and in its refund's metadata."""
    return hashlib.sha256(f"{transaction_id}:{key}".encode()).hexdigest()


def get_transaction(session: Session, transaction_id: uuid.UUID) -> Transaction:
    """The purchase of this id.

    Raises:
        NotFound: TRANSACTION_NOT_FOUND.
    """
    found = session.get(Transaction, transaction_id)
    if found is None:
        raise NotFound("No such purchase", "TRANSACTION_NOT_FOUND")
    return found


def request_refund(session: Session, wish: RefundWish) -> RefundRequest:
    """The request of this key, written now or before.

    Raises:
        NotFound: TRANSACTION_NOT_FOUND.
        Invalid: REFUND_EXCEEDS_PAYMENT, VALIDATION_ERROR.
        Conflict: IDEMPOTENCY_KEY_REUSED.
    """
    transaction = get_transaction(session, wish.transaction_id)
    lock_user(session, transaction.user_id)
    session.refresh(transaction)
    found = session.get(RefundRequest, (wish.transaction_id, wish.key))
    if found is not None:
        if found.request_digest != wish.digest:
            raise key_reused()
        return found
    amount = refundable_amount(session, transaction, wish)
    return session.scalars(
        insert(RefundRequest)
        .values(
            transaction_id=wish.transaction_id,
            idempotency_key=wish.key,
            request_digest=wish.digest,
            amount_cents=amount,
            reason=wish.reason,
            actor=wish.actor,
        )
        .returning(RefundRequest)
    ).one()


def refundable_amount(session: Session, transaction: Transaction, wish: RefundWish) -> int:
    """How much a wish asks for, in cents, where so much is left. The user's row is locked.

    Raises:
        Invalid: REFUND_EXCEEDS_PAYMENT, VALIDATION_ERROR.
    """
    _check(wish)
    left = refundable_cents(session, transaction)
    amount = wish.amount_cents if wish.amount_cents is not None else left
    if not 0 < amount <= left:
        raise refund_exceeds_payment(left, transaction.currency)
    return amount


def refundable_cents(session: Session, transaction: Transaction) -> int:
    """How much is left to pay back, in the currency's smallest unit; 0 or more."""
    # Asked for, and not yet among the refunds that Stripe has told of.
    asked_for = session.scalars(
        select(func.coalesce(func.sum(RefundRequest.amount_cents), 0)).where(
            RefundRequest.transaction_id == transaction.transaction_id,
            RefundRequest.status == "requested",
        )
    ).one()
    return max(transaction.amount_paid_cents - transaction.refunded_cents - int(asked_for), 0)


def accept_request(session: Session, transaction: Transaction, name: str, refund_id: str) -> bool:
    """Note that a refund of Stripe's is the one we asked for by this name; whether that was news.

    Whoever sees the refund first calls it: the request's own answer, an event, reconciliation. From
    then on the request is counted by its refund alone.
    """
    waiting = session.scalars(
        select(RefundRequest)
        .where(
            RefundRequest.transaction_id == transaction.transaction_id,
            RefundRequest.status != "accepted",
        )
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    for request in waiting:
        if request_name(transaction.transaction_id, request.idempotency_key) == name:
            request.status, request.refund_id, request.error = "accepted", refund_id, None
            session.flush()
            return True
    return False


def open_requests(
    session: Session,
    *,
    transaction_id: uuid.UUID | None = None,
    livemode: bool | None = None,
    older_than: dt.timedelta | None = None,
    approved: bool | None = None,
    limit: int,
) -> Sequence[RefundRequest]:
    """Requests of which nobody knows yet whether Stripe heard of them, oldest first.

    `approved` picks those that a second person consented to (rule 13), or all others.
    """
    statement = (
        select(RefundRequest)
        .where(RefundRequest.status == "requested")
        .order_by(RefundRequest.created_at, RefundRequest.idempotency_key)
        .limit(limit)
    )
    if transaction_id is not None:
        statement = statement.where(RefundRequest.transaction_id == transaction_id)
    if older_than is not None:
        statement = statement.where(RefundRequest.created_at < func.now() - older_than)
    if approved is not None:
        is_approved = RefundRequest.idempotency_key.startswith(APPROVAL_KEY_PREFIX)
        statement = statement.where(is_approved == approved)
    if livemode is not None:
        statement = statement.join(
            Transaction, Transaction.transaction_id == RefundRequest.transaction_id
        ).where(or_(Transaction.livemode == livemode, Transaction.livemode.is_(None)))
    return session.scalars(statement).all()


def note_account(session: Session, transaction_id: uuid.UUID, account: str) -> None:
    """Note the connected account that was paid, where a purchase does not say it."""
    session.execute(
        update(Transaction)
        .where(Transaction.transaction_id == transaction_id, Transaction.stripe_account.is_(None))
        .values(stripe_account=account)
    )


def refuse_request(session: Session, transaction_id: uuid.UUID, key: str, error: str) -> None:
    """Note why there is no refund; the request no longer counts.

    Should one be seen all the same, it is accepted by that.
    """
    request = session.get_one(
        RefundRequest,
        (transaction_id, key),
        with_for_update=True,
        populate_existing=True,
    )
    if request.status == "requested":
        request.status, request.error = "refused", error
        session.flush()


def refund_exceeds_payment(left: int | None, currency: str) -> Invalid:
    """More was asked for than is left of the payment, which is None where nobody could say it."""
    if left is None:
        return Invalid("More was asked for than is left of the payment", "REFUND_EXCEEDS_PAYMENT")
    return Invalid(
        f"{money(left, currency)} of the payment are left to refund",
        "REFUND_EXCEEDS_PAYMENT",
        refundable_cents=left,
    )


def _check(wish: RefundWish) -> None:
    for name, text in (("key", wish.key), ("reason", wish.reason)):
        if text is not None and (not 1 <= len(text) <= 255 or text != storable(text)):  # noqa: PLR2004  as everywhere
            raise Invalid(
                f"{name}: must be 1 to 255 characters long", "VALIDATION_ERROR", field=name
            )
    if wish.key.startswith(OWN_KEY_PREFIX) and not wish.is_own:
        raise Invalid(
            f"key: must not begin with {OWN_KEY_PREFIX!r}", "VALIDATION_ERROR", field="key"
        )
    if wish.amount_cents is not None and wish.amount_cents <= 0:
        raise Invalid("amount_cents: must be positive", "VALIDATION_ERROR", field="amount_cents")
