"""One paid Stripe purchase (document, "Transaction Model").

"Transaction" is always this business record; PostgreSQL's is called a database transaction.
"""

import uuid

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, String, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from src.common.models.base import Base, CreatedAt, UuidPrimaryKey
from src.common.models.user import User

UQ_TRANSACTIONS_STRIPE_SESSION_ID = "uq_transactions_stripe_session_id"


class Transaction(Base):
    """Money that arrived, and the credits it bought. One payment is one row."""

    __tablename__ = "transactions"

    transaction_id: Mapped[UuidPrimaryKey]
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.user_id"), index=True)
    """Who bought."""
    stripe_session_id: Mapped[str] = mapped_column(String, unique=True)
    """The Stripe object that paid: `cs_…`, or `in_…`/`pi_…` where there is no session. Never
    changes: it is the idempotency key."""
    payment_intent_id: Mapped[str | None] = mapped_column(String, unique=True)
    """`pi_…`; NULL where nothing was charged, or where the document's own pattern wrote the row."""
    invoice_id: Mapped[str | None] = mapped_column(String, unique=True)
    """`in_…` of a subscription's payment."""
    stripe_account: Mapped[str | None] = mapped_column(String)
    """`acct_…` of the connected account that was paid (Stripe Connect); NULL where it is our own.
    Only in its name does Stripe know the payment."""
    amount_paid_cents: Mapped[int] = mapped_column(Integer)
    """What the customer paid in total, in the currency's smallest unit; 0 only for free orders."""
    currency: Mapped[str] = mapped_column(String, default="usd", server_default=text("'usd'"))
    """ISO 4217 in lower case, as Stripe writes it."""
    livemode: Mapped[bool | None]
    """Whether real money moved; NULL where the writer did not say (the document's own pattern)."""
    credits_added: Mapped[int] = mapped_column(Integer)
    """Whole credits this purchase bought; positive."""
    refunded_cents: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    """What was refunded so far, a sum over `stripe_reversals`."""
    disputed_cents: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    """What is withdrawn by disputes now, a sum over `stripe_reversals`."""
    predates_ledger: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """Whether it was there before the ledger: then the user's opening balance holds what it added,
    and the opening entry stands in as its lot (decision 0010)."""
    created_at: Mapped[CreatedAt]

    user: Mapped[User] = relationship(back_populates="transactions")

    __table_args__ = (
        # A page of one user's history is a range of this index, however long the history is.
        Index(
            "ix_transactions_user_id_created_at",
            "user_id",
            text("created_at DESC"),
            text("transaction_id DESC"),
        ),
        # The same of everybody's, and of those few that money went back of: for operators.
        Index("ix_transactions_created_at", text("created_at DESC"), text("transaction_id DESC")),
        Index(
            "ix_transactions_money_back",
            text("created_at DESC"),
            text("transaction_id DESC"),
            postgresql_where=text("refunded_cents > 0 OR disputed_cents > 0"),
        ),
        CheckConstraint("stripe_session_id <> ''", "stripe_session_id_not_empty"),
        CheckConstraint("amount_paid_cents >= 0", "amount_paid_cents_not_negative"),
        CheckConstraint("credits_added > 0", "credits_added_positive"),
        CheckConstraint("currency ~ '^[a-z]{3}$'", "currency_is_iso_4217"),
        CheckConstraint("refunded_cents >= 0", "refunded_cents_not_negative"),
        CheckConstraint("disputed_cents >= 0", "disputed_cents_not_negative"),
    )
