"""Reading purchases, for operators: lists of them, and all about one; nothing locks or writes."""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, or_, select, tuple_
from sqlalchemy.orm import Session

from src.common.accounts.queries import get_user
from src.common.accounts.rules import storable
from src.common.credits.domain.views import HistoryEntry
from src.common.credits.entries import entries_of_lot
from src.common.exceptions import Invalid, NotFound
from src.common.models.checkout_order import CheckoutOrder
from src.common.models.credit_lot import CreditLot
from src.common.models.refund_request import RefundRequest
from src.common.models.stripe_reversal import StripeReversal
from src.common.models.transaction import Transaction
from src.common.models.user import User
from src.common.postgres.lagging_reads import may_lag
from src.common.postgres.pagination import (
    Page,
    decode_cursor,
    encode_cursor,
    merge_pages,
    page_of,
)

SHOWN_MAX = 200
"""How many entries, refunds and requests of one purchase are shown; few have more than three."""
_OF_REVERSALS = ("re_", "pyr_", "dp_", "du_", "cn_")
_OF_CHARGES = ("ch_", "py_")


class PurchaseState(StrEnum):
    """How a purchase stands; the first of these that holds."""

    UNCREDITED = "uncredited"
    """Application code wrote it without crediting anybody."""
    DISPUTED = "disputed"
    REFUNDED = "refunded"
    PARTLY_REFUNDED = "partly_refunded"
    PAID = "paid"


@dataclass(frozen=True, kw_only=True)
class PurchaseFilter:
    """Which purchases are wanted: those that all of it holds of."""

    user_id: uuid.UUID | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    state: PurchaseState | None = None
    stripe_id: str | None = None
    """A session, PaymentIntent, invoice, customer, refund, dispute or credit note."""


@dataclass(frozen=True, kw_only=True)
class Purchase:
    """A purchase and how it stands."""

    transaction: Transaction
    package_id: str | None
    """None where the payment was of no order of ours."""
    state: PurchaseState
    lot_seq: int | None
    credits_left: int | None
    """Of what it bought; None where no lot of its own holds that."""


@dataclass(frozen=True, kw_only=True)
class PurchaseDetails:
    """All about one purchase."""

    purchase: Purchase
    order: CheckoutOrder | None
    reversals: Sequence[StripeReversal]
    """Refunds, disputes and credit notes; the oldest first."""
    refund_requests: Sequence[RefundRequest]
    """What was asked through us; the oldest first."""
    entries: Sequence[HistoryEntry]
    """Its grant, and what money back took and gave; the oldest first."""


_IS_CREDITED = or_(Transaction.predates_ledger, CreditLot.seq.is_not(None))
_IS_REFUNDED = Transaction.refunded_cents >= Transaction.amount_paid_cents
_CONDITIONS: dict[PurchaseState, ColumnElement[bool]] = {
    PurchaseState.UNCREDITED: ~_IS_CREDITED,
    PurchaseState.DISPUTED: and_(_IS_CREDITED, Transaction.disputed_cents > 0),
    PurchaseState.REFUNDED: and_(
        _IS_CREDITED,
        Transaction.disputed_cents == 0,
        Transaction.refunded_cents > 0,
        _IS_REFUNDED,
    ),
    PurchaseState.PARTLY_REFUNDED: and_(
        _IS_CREDITED,
        Transaction.disputed_cents == 0,
        Transaction.refunded_cents > 0,
        ~_IS_REFUNDED,
    ),
    PurchaseState.PAID: and_(
        _IS_CREDITED, Transaction.disputed_cents == 0, Transaction.refunded_cents == 0
    ),
}
"""Written out, so that each finds its index; they exclude one another."""
_STATE = case(*((condition, str(state)) for state, condition in _CONDITIONS.items()))
_LEFT = case((CreditLot.expires_at <= func.statement_timestamp(), 0), else_=CreditLot.remaining)


@may_lag
def list_purchases_of(
    session: Session, user_id: uuid.UUID, *, cursor: str | None, limit: int
) -> Page[Purchase]:
    """One page of one user's purchases, newest first.

    Raises:
        NotFound: USER_NOT_FOUND.
        Invalid: VALIDATION_ERROR, the cursor is not one of ours.
    """
    get_user(session, user_id)
    wanted = PurchaseFilter(user_id=user_id)
    return list_purchases(session, wanted, cursor=cursor, limit=limit)


@may_lag
def list_purchases(
    session: Session, wanted: PurchaseFilter, *, cursor: str | None, limit: int
) -> Page[Purchase]:
    """One page of everybody's purchases, newest first.

    By user, time or Stripe's id it is a range of an index, and so it is for what money went back
    of. Any other state alone looks through all purchases until the page is full.

    Raises:
        Invalid: VALIDATION_ERROR, the cursor is not one of ours, or an id that we do not keep.
    """
    statement = (
        _purchases()
        .where(*_conditions(wanted))
        .order_by(Transaction.created_at.desc(), Transaction.transaction_id.desc())
        .limit(limit + 1)
    )
    if cursor is not None:
        statement = statement.where(
            tuple_(Transaction.created_at, Transaction.transaction_id)
            < tuple_(*decode_cursor(cursor))
        )
    rows = [_purchase(*row) for row in session.execute(statement)]
    return page_of(
        rows, limit, lambda last: (last.transaction.created_at, last.transaction.transaction_id)
    )


def merge_purchases(pages: Sequence[Page[Purchase]], limit: int) -> Page[Purchase]:
    """One page of the purchases of several groups of users."""
    return merge_pages(
        pages,
        limit,
        lambda found: (found.transaction.created_at, found.transaction.transaction_id),
        read_cursor=decode_cursor,
        write_cursor=encode_cursor,
    )


def find_purchase(session: Session, name: str) -> PurchaseDetails:
    """The purchase of this id, ours or any of Stripe's.

    Raises:
        NotFound: TRANSACTION_NOT_FOUND.
        Invalid: VALIDATION_ERROR, several purchases have it, or an id that we do not keep.
    """
    try:
        condition = Transaction.transaction_id == uuid.UUID(name)
    except ValueError:
        condition = _has_stripe_id(name)
    rows = session.execute(_purchases().where(condition).limit(2)).all()
    if not rows:
        raise NotFound(f"No purchase has the id {name}", "TRANSACTION_NOT_FOUND")
    if len(rows) > 1:
        raise Invalid(f"Several purchases have the id {name}: list them", "VALIDATION_ERROR")
    found = _purchase(*rows[0])
    transaction_id = found.transaction.transaction_id
    return PurchaseDetails(
        purchase=found,
        order=session.scalars(
            select(CheckoutOrder).where(
                CheckoutOrder.stripe_session_id == found.transaction.stripe_session_id
            )
        ).one_or_none(),
        reversals=session.scalars(
            select(StripeReversal)
            .where(StripeReversal.transaction_id == transaction_id)
            .order_by(StripeReversal.created_at, StripeReversal.reversal_id)
            .limit(SHOWN_MAX)
        ).all(),
        refund_requests=session.scalars(
            select(RefundRequest)
            .where(RefundRequest.transaction_id == transaction_id)
            .order_by(RefundRequest.created_at, RefundRequest.idempotency_key)
            .limit(SHOWN_MAX)
        ).all(),
        entries=[]
        if found.lot_seq is None
        else entries_of_lot(session, found.transaction.user_id, found.lot_seq, limit=SHOWN_MAX),
    )


def _purchases() -> Select[*tuple[Any, ...]]:
    return (
        select(Transaction, CheckoutOrder.package_id, _STATE, CreditLot.seq, _LEFT)
        .outerjoin(CheckoutOrder, CheckoutOrder.stripe_session_id == Transaction.stripe_session_id)
        .outerjoin(
            CreditLot,
            and_(
                CreditLot.user_id == Transaction.user_id,
                CreditLot.transaction_id == Transaction.transaction_id,
            ),
        )
    )


def _purchase(
    transaction: Transaction,
    package_id: str | None,
    state: str,
    lot_seq: int | None,
    credits_left: int | None,
) -> Purchase:
    return Purchase(
        transaction=transaction,
        package_id=package_id,
        state=PurchaseState(state),
        lot_seq=lot_seq,
        credits_left=credits_left,
    )


def _conditions(wanted: PurchaseFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.user_id is not None:
        conditions.append(Transaction.user_id == wanted.user_id)
    if wanted.since is not None:
        conditions.append(Transaction.created_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(Transaction.created_at < wanted.until)
    if wanted.state is not None:
        conditions.append(_CONDITIONS[wanted.state])
    if wanted.stripe_id is not None:
        conditions.append(_has_stripe_id(wanted.stripe_id))
    return conditions


def _has_stripe_id(stripe_id: str) -> ColumnElement[bool]:
    if stripe_id.startswith(_OF_CHARGES):
        raise Invalid(
            "stripe_id: charges are not kept; name the PaymentIntent (pi_…), the session or the "
            "refund",
            "VALIDATION_ERROR",
            field="stripe_id",
        )
    if stripe_id != storable(stripe_id):
        raise Invalid("stripe_id: must be text", "VALIDATION_ERROR", field="stripe_id")
    if stripe_id.startswith("cus_"):
        customer = select(User.user_id).where(User.stripe_customer_id == stripe_id)
        return Transaction.user_id == customer.scalar_subquery()
    if stripe_id.startswith(_OF_REVERSALS):
        reversals = select(StripeReversal.transaction_id).where(
            StripeReversal.livemode.in_((False, True)),  # both, so that the primary key serves
            StripeReversal.reversal_id == stripe_id,
        )
        return Transaction.transaction_id.in_(reversals)
    return or_(
        Transaction.stripe_session_id == stripe_id,
        Transaction.payment_intent_id == stripe_id,
        Transaction.invoice_id == stripe_id,
    )
