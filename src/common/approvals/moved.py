"""What one person gave, took or paid back by hand lately, without another's consent.

The user's row is locked, so that nobody gives at the same time.
"""

import uuid

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session, aliased

from src.common.approvals.rules import WINDOW, Credited, Limits, credits_beyond_price
from src.common.credits.domain.commands import OWN_KEY_PREFIX
from src.common.models.approval import Approval, ApprovalOperation, Decision
from src.common.models.credit_entry import CreditEntry, EntryKind
from src.common.models.refund_request import RefundRequest
from src.common.models.transaction import Transaction
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.purchases.rules import Reason

_GIVING = (EntryKind.GRANT, EntryKind.ADJUSTMENT, EntryKind.REVERSAL, EntryKind.RELEASE)
_TAKING = (EntryKind.ADJUSTMENT,)
"""Not a reversal: it takes no more than somebody gave by hand, out of the very lot."""


def credits_moved(session: Session, user_id: uuid.UUID, actor: str, *, gives: bool) -> int:
    """Whole credits that `actor` gave the user within the window, or took from them; 0 or more.

    What another person consented to does not count: its key is ours. Entries are read from the
    newest back to the first that is too old.
    """
    since = func.clock_timestamp() - WINDOW
    older = aliased(CreditEntry)
    newest_old = (
        select(older.seq)
        .where(older.user_id == user_id, older.created_at < since)
        .order_by(older.seq.desc())
        .limit(1)
        .scalar_subquery()
    )
    amount = CreditEntry.amount
    total = session.scalars(
        select(func.coalesce(func.sum(func.abs(amount)), 0)).where(
            CreditEntry.user_id == user_id,
            CreditEntry.seq > func.coalesce(newest_old, 0),
            CreditEntry.actor == actor,
            CreditEntry.kind.in_(_GIVING if gives else _TAKING),
            amount > 0 if gives else amount < 0,
            func.left(CreditEntry.idempotency_key, 1) != OWN_KEY_PREFIX,
        )
    ).one()
    return int(total)


def credits_of_payments(session: Session, user_id: uuid.UUID, actor: str, limits: Limits) -> int:
    """Whole credits, beyond what the money buys, of payments that `actor` credited to the user.

    Within the window. The money buys this user something only where the payment itself names them:
    one that names somebody else, or nobody, is anybody's. What application code wrote is no
    decision of theirs, and what another person consented to does not
    count.
    """
    consented = (
        select(Approval.approval_id)
        .where(
            Approval.user_id == user_id,
            Approval.status == Decision.CONSENTED,
            Approval.command["operation"].astext == ApprovalOperation.PAYMENT,
            Approval.command["stripe_object_id"].astext == UnmatchedPayment.stripe_object_id,
        )
        .exists()
    )
    payer = UnmatchedPayment.details["user_id"].astext
    rows = session.execute(
        select(
            Transaction.credits_added,
            Transaction.amount_paid_cents,
            Transaction.currency,
            UnmatchedPayment.livemode,
            and_(
                UnmatchedPayment.details["amount_total_cents"].astext.is_not(None),
                func.coalesce(payer, "") == str(user_id),
            ),
        )
        .join(
            UnmatchedPayment,
            and_(
                UnmatchedPayment.livemode.in_([True, False]),  # as the key has it
                UnmatchedPayment.stripe_object_id == Transaction.stripe_session_id,
            ),
        )
        .where(
            Transaction.user_id == user_id,
            UnmatchedPayment.actor == actor,
            UnmatchedPayment.resolved_at >= func.clock_timestamp() - WINDOW,
            UnmatchedPayment.reason != Reason.TRANSACTION_WITHOUT_CREDIT,
            ~consented,
        )
    )
    return sum(
        credits_beyond_price(
            Credited(
                credits=credits_added,
                paid_cents=paid_cents if buys else None,
                currency=currency,
                livemode=livemode,
            ),
            limits,
        )
        for credits_added, paid_cents, currency, livemode, buys in rows
    )


def cents_paid_back(session: Session, user_id: uuid.UUID, actor: str, currency: str) -> int:
    """What `actor` paid back to the user within the window, in the currency's smallest unit.

    Refunds that Stripe has not answered yet count, those that it refused do not.
    """
    total = session.scalars(
        select(func.coalesce(func.sum(RefundRequest.amount_cents), 0))
        .join(Transaction, Transaction.transaction_id == RefundRequest.transaction_id)
        .where(
            Transaction.user_id == user_id,
            Transaction.currency == currency,
            RefundRequest.actor == actor,
            RefundRequest.status != "refused",
            RefundRequest.created_at >= func.clock_timestamp() - WINDOW,
            func.left(RefundRequest.idempotency_key, 1) != OWN_KEY_PREFIX,
        )
    ).one()
    return int(total)
