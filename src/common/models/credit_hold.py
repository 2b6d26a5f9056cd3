"""Holds: credits set aside for work in progress. Debts: credits that could not be taken back."""

import uuid
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, Integer, String, text
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base, Instant, text_array


class HoldStatus(StrEnum):
    """Where a hold is in its life; only `open` can change."""

    OPEN = "open"
    CAPTURED = "captured"
    RELEASED = "released"
    EXPIRED = "expired"


class CreditHold(Base):
    """Credits set aside: while the hold is open they are not in the balance, and may go back."""

    __tablename__ = "credit_holds"

    user_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    """The `seq` of the entry that opened it."""
    amount: Mapped[int] = mapped_column(Integer)
    """Whole credits set aside; positive."""
    captured: Mapped[int] = mapped_column(Integer)
    """Credits kept so far, late captures included."""
    status: Mapped[str] = mapped_column(String)
    """A value of `HoldStatus`."""
    expires_at: Mapped[Instant]
    """From then on it counts as expired, whether or not that is booked."""

    __table_args__ = (
        ForeignKeyConstraint(["user_id", "seq"], ["credit_entries.user_id", "credit_entries.seq"]),
        CheckConstraint(f"status = ANY ({text_array(HoldStatus)})", "status"),
        CheckConstraint("amount > 0", "amount_positive"),
        CheckConstraint("captured BETWEEN 0 AND amount", "captured_within_amount"),
        CheckConstraint("status <> 'open' OR captured < amount", "fully_captured_is_closed"),
        Index("ix_credit_holds_open", "user_id", "seq", postgresql_where=text("status = 'open'")),
        Index("ix_credit_holds_due", "expires_at", postgresql_where=text("status = 'open'")),
    )


class CreditDebt(Base):
    """Credits of a payment that could not be taken back; the next credits that come in repay them.

    What the purchases from before the ledger, and a negative balance of then, leave owing is one
    row too, by the opening entry (decision 0010).
    """

    __tablename__ = "credit_debts"

    user_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    """The `seq` of the payment's lot, or of the opening entry; the lowest is repaid first."""
    outstanding: Mapped[int] = mapped_column(Integer)
    """Whole credits still owed; 0 once all is repaid."""
    opening_debt: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    """What was owed when the ledger began. It never changes. 0 in the row of a payment."""

    __table_args__ = (
        ForeignKeyConstraint(["user_id", "seq"], ["credit_entries.user_id", "credit_entries.seq"]),
        CheckConstraint("outstanding >= 0", "outstanding_not_negative"),
        CheckConstraint("opening_debt >= 0", "opening_debt_not_negative"),
        # For adding up what is owed. Said so that no look for a user's debts can take it in place
        # of the key: PostgreSQL does not see that it is the same as `outstanding > 0`.
        Index(
            "ix_credit_debts_outstanding",
            "outstanding",
            postgresql_where=text("outstanding >= 1"),
        ),
    )
