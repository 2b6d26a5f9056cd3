"""What a customer is told of a Checkout Session that was paid; nothing here locks or writes."""

import uuid
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.models.credit_entry import CreditEntry
from src.common.models.credit_lot import CreditLot
from src.common.models.transaction import Transaction


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What a Checkout Session bought, and what it made of the balance."""

    amount_paid_cents: int
    currency: str
    credits_added: int
    balance_before: int
    balance_after: int
    """Less than both together where credits were owed."""


def find_receipt(session: Session, user_id: uuid.UUID, stripe_session_id: str) -> Receipt | None:
    """The receipt of a user's credited Checkout Session; None where the ledger granted nothing."""
    statement = (
        select(
            Transaction.amount_paid_cents,
            Transaction.currency,
            Transaction.credits_added,
            (CreditEntry.balance_after - CreditEntry.amount).label("balance_before"),
            CreditEntry.result_balance.label("balance_after"),
        )
        .join(
            CreditLot,
            (CreditLot.user_id == Transaction.user_id)
            & (CreditLot.transaction_id == Transaction.transaction_id),
        )
        .join(
            CreditEntry,
            (CreditEntry.user_id == CreditLot.user_id) & (CreditEntry.seq == CreditLot.seq),
        )
        .where(Transaction.user_id == user_id, Transaction.stripe_session_id == stripe_session_id)
    )
    row = session.execute(statement).mappings().one_or_none()
    return None if row is None else Receipt(**row)
