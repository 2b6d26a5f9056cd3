"""Reading requests for consent: one, a page of them, what they would do now, how many wait.

Nothing here writes. What became of a request that was consented to is read from the entry
or the refund that has its key.
"""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Select, String, and_, case, cast, func, select, tuple_
from sqlalchemy.orm import Session

from src.common.approvals import askers, deeds, forms, payments
from src.common.approvals.asking import approval_not_found
from src.common.approvals.forms import Form, KeyForm, PaymentForm, RefundForm
from src.common.approvals.payments import PaymentPreview, Settlement
from src.common.approvals.rules import ApprovalStatus, status_of
from src.common.credits import queries as ledger_queries
from src.common.credits.domain import own_commands
from src.common.credits.domain.reversals import credits_to_be_back
from src.common.credits.domain.views import Preview
from src.common.exceptions import Conflict
from src.common.models.approval import Approval, ApprovalOperation, Decision
from src.common.models.credit_entry import CreditEntry
from src.common.models.refund_request import RefundRequest
from src.common.models.transaction import Transaction
from src.common.postgres.pagination import PAGE_SIZE_DEFAULT, Page, decode_cursor, page_of
from src.common.purchases.refunds import RefundWish, get_transaction, refundable_amount

_KEY = func.concat(own_commands.APPROVAL_KEY_PREFIX, cast(Approval.approval_id, String))
_ENTRY_KEY = case(
    (
        Approval.command["operation"].astext == ApprovalOperation.PAYMENT,
        func.concat(own_commands.PURCHASE_KEY_PREFIX, Approval.command["stripe_object_id"].astext),
    ),
    else_=_KEY,
)
"""Of the entry that did it: a payment is credited with its own key."""


@dataclass(frozen=True, kw_only=True)
class ApprovalState:
    """A request and how it stands."""

    approval: Approval
    status: ApprovalStatus
    form: Form | None
    """What is asked for; None where another release wrote it and this one cannot read it."""
    entry_seq: int | None
    """The user's entry that did it."""
    refund: RefundRequest | None
    """The refund that was written down: Stripe has answered it, or is still to be asked."""
    currency: str | None
    """Of the purchase, where a refund is asked for."""


@dataclass(frozen=True, kw_only=True)
class RefundPreview:
    """What a refund would do now."""

    amount_cents: int
    currency: str
    credits: int
    """Whole credits that the money bought: they are taken back, or owed where they are spent."""
    balance: int
    """What the user may spend now."""


Foreseen: TypeAlias = Preview | RefundPreview | PaymentPreview | KeyForm
"""What consent would do."""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What waits for people, and for Stripe."""

    open: int
    """Requests that somebody may still decide about."""
    oldest_seconds: float
    """How long the oldest of them has waited; 0 where there is none."""
    refunds: int
    """Refunds that were consented to and that Stripe has not answered."""
    oldest_refund_seconds: float
    """How long ago the oldest of them was consented to."""


def find_approval(session: Session, approval_id: uuid.UUID) -> ApprovalState:
    """A request and how it stands.

    Raises:
        NotFound: APPROVAL_NOT_FOUND.
    """
    row = session.execute(_states().where(Approval.approval_id == approval_id)).one_or_none()
    if row is None:
        raise approval_not_found()
    return _state(*row)


def list_approvals(
    session: Session,
    *,
    status: ApprovalStatus | None = None,
    user_id: uuid.UUID | None = None,
    cursor: str | None = None,
    limit: int = PAGE_SIZE_DEFAULT,
) -> Page[ApprovalState]:
    """One page of requests, the newest first.

    Args:
        session: May be in a database transaction or not; it is not committed.
        status: Only those that stand so now.
        user_id: Only those about this user.
        cursor: `next_cursor` of the page before; None is the first page.
        limit: How many at most, 1 or more.

    Raises:
        Invalid: VALIDATION_ERROR, the cursor is not one of ours.
    """
    statement = (
        _states().order_by(Approval.created_at.desc(), Approval.approval_id.desc()).limit(limit + 1)
    )
    if status is not None:
        statement = statement.where(_stands(status))
    if user_id is not None:
        statement = statement.where(Approval.user_id == user_id)
    if cursor is not None:
        place = tuple_(Approval.created_at, Approval.approval_id)
        statement = statement.where(place < tuple_(*decode_cursor(cursor)))
    rows = [_state(*row) for row in session.execute(statement)]
    return page_of(rows, limit, lambda last: (last.approval.created_at, last.approval.approval_id))


def preview(session: Session, state: ApprovalState) -> Foreseen:
    """What consent would do now; nothing is written. A key is what it is.

    Raises:
        ExceptionWithErrorType: what it would be refused with, APPROVAL_UNREADABLE among it.
    """
    approval, form = state.approval, state.form
    if form is None:
        form = forms.read(approval.command)  # says why it cannot be read
    askers.check_asker(session, approval)
    if isinstance(form, RefundForm):
        return preview_refund(session, deeds.refund_wish(approval, form))
    if isinstance(form, PaymentForm):
        foreseen = payments.foresee(session, _settlement(approval, form), None)
        session.refresh(approval)  # all that was read is forgotten with what was undone
        return foreseen
    if isinstance(form, KeyForm):
        return form
    return ledger_queries.preview(session, deeds.command_of(approval, form))


def _settlement(approval: Approval, form: PaymentForm) -> Settlement:
    return Settlement(
        form.stripe_object_id,
        approval.reason or "",
        approval.requester,
        approval.idempotency_key,
        deeds.ruling_of(approval, form),
    )


def preview_refund(session: Session, wish: RefundWish) -> RefundPreview:
    """What a refund would do now; nothing is written.

    Raises:
        NotFound: TRANSACTION_NOT_FOUND.
        Invalid: REFUND_EXCEEDS_PAYMENT, VALIDATION_ERROR.
    """
    transaction = get_transaction(session, wish.transaction_id)
    amount = refundable_amount(session, transaction, wish)
    back = transaction.refunded_cents + transaction.disputed_cents
    before, after = (
        credits_to_be_back(transaction.credits_added, transaction.amount_paid_cents, reversed_cents)
        for reversed_cents in (back, back + amount)
    )
    return RefundPreview(
        amount_cents=amount,
        currency=transaction.currency,
        credits=after - before,
        balance=ledger_queries.balance(session, transaction.user_id).balance,
    )


def user_of_approval(session: Session, approval_id: uuid.UUID) -> uuid.UUID | None:
    """Whom a request is about; None where that is nobody.

    Raises:
        NotFound: APPROVAL_NOT_FOUND.
    """
    row = session.execute(
        select(Approval.user_id).where(Approval.approval_id == approval_id)
    ).one_or_none()
    if row is None:
        raise approval_not_found()
    user_id: uuid.UUID | None = row.user_id
    return user_id


def merge_states(pages: Sequence[Page[ApprovalState]]) -> Page[ApprovalState]:
    """The same page, as several groups of users have it: each knows what became of its users'.

    It is empty where there is no group yet.
    """
    if not pages:
        return Page([], None)
    known: dict[uuid.UUID, ApprovalState] = {}
    for page in pages:
        for state in page.items:
            facts = (state.entry_seq, state.refund, state.currency)
            if any(each is not None for each in facts):
                known[state.approval.approval_id] = state
    first = pages[0]
    items = [known.get(state.approval.approval_id, state) for state in first.items]
    return Page(items, first.next_cursor)


def count_open(session: Session) -> int:
    """How many requests somebody may still decide about."""
    return session.scalars(select(func.count()).where(_stands(ApprovalStatus.OPEN))).one()


def count_waiting(session: Session) -> Waiting:
    """What waits: ranges of partial indexes."""
    now = func.statement_timestamp()
    number, oldest = session.execute(
        select(func.count(), func.min(Approval.created_at)).where(_stands(ApprovalStatus.OPEN))
    ).one()
    is_approved = RefundRequest.idempotency_key.startswith(own_commands.APPROVAL_KEY_PREFIX)
    refunds, oldest_refund, read_at = session.execute(
        select(func.count(), func.min(RefundRequest.created_at), now).where(
            RefundRequest.status == "requested", is_approved
        )
    ).one()
    return Waiting(
        open=number,
        oldest_seconds=_age(oldest, read_at),
        refunds=refunds,
        oldest_refund_seconds=_age(oldest_refund, read_at),
    )


def _states() -> Select[*tuple[Any, ...]]:
    """Each request with the clock, and what has its key."""
    return (
        select(
            Approval, func.clock_timestamp(), CreditEntry.seq, RefundRequest, Transaction.currency
        )
        .outerjoin(Transaction, Transaction.transaction_id == Approval.transaction_id)
        .outerjoin(
            CreditEntry,
            and_(
                Approval.status == Decision.CONSENTED,
                CreditEntry.user_id == Approval.user_id,
                CreditEntry.idempotency_key == _ENTRY_KEY,
            ),
        )
        .outerjoin(
            RefundRequest,
            and_(
                RefundRequest.transaction_id == Approval.transaction_id,
                RefundRequest.idempotency_key == _KEY,
            ),
        )
    )


def _state(
    approval: Approval,
    now: dt.datetime,
    entry_seq: int | None,
    refund: RefundRequest | None,
    currency: str | None,
) -> ApprovalState:
    try:
        form = forms.read(approval.command)
    except Conflict:
        form = None
    return ApprovalState(
        approval=approval,
        status=status_of(approval, now),
        form=form,
        entry_seq=entry_seq,
        refund=refund,
        currency=currency,
    )


def _stands(status: ApprovalStatus) -> ColumnElement[bool]:
    is_open = Approval.status == Decision.OPEN
    is_over = Approval.expires_at <= func.statement_timestamp()
    if status is ApprovalStatus.OPEN:
        return and_(is_open, ~is_over)
    if status is ApprovalStatus.EXPIRED:
        return and_(is_open, is_over)
    return Approval.status == status


def _age(instant: dt.datetime | None, now: dt.datetime) -> float:
    return 0.0 if instant is None else max((now - instant).total_seconds(), 0.0)
