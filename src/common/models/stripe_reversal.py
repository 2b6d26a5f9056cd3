"""Refunds, disputes and credit notes: one row each, as the newest snapshot says."""

import uuid
from enum import StrEnum

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, String, func, text
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base, CreatedAt, Instant


class ReversalKind(StrEnum):
    """How money goes back."""

    REFUND = "refund"
    DISPUTE = "dispute"
    CREDIT_NOTE = "credit_note"


STATUSES_BY_KIND = {
    ReversalKind.REFUND: ("pending", "succeeded", "failed", "canceled"),
    ReversalKind.DISPUTE: ("inquiry", "withdrawn", "reinstated"),
    ReversalKind.CREDIT_NOTE: ("issued", "void"),
}
_STATUS_OF_KIND = " ".join(
    f"WHEN '{kind}' THEN status IN ({', '.join(map(repr, statuses))})"
    for kind, statuses in STATUSES_BY_KIND.items()
)


class StripeReversal(Base):
    """One refund, dispute or credit note, as the latest snapshot of it says."""

    __tablename__ = "stripe_reversals"

    livemode: Mapped[bool] = mapped_column(primary_key=True)
    """Whether it is of real money."""
    reversal_id: Mapped[str] = mapped_column(String, primary_key=True)
    """`re_…`, `dp_…` or `cn_…`, or as older Stripe accounts call them."""
    kind: Mapped[str] = mapped_column(String)
    """A value of `ReversalKind`."""
    payment_intent_id: Mapped[str | None] = mapped_column(String, index=True)
    """The payment it takes from, or its invoice while that is all we know; else NULL."""
    stripe_account: Mapped[str | None] = mapped_column(String)
    """`acct_…` of the connected account it is of; NULL where it is our own."""
    transaction_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("transactions.transaction_id"), index=True
    )
    """Our row of that payment; NULL while the payment itself has not arrived."""
    amount_cents: Mapped[int] = mapped_column(Integer)
    """What goes back, in the currency's smallest unit; never negative. Of a dispute: what the bank
    has, while that is anything, else what is disputed."""
    moved_cents: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    """Of a dispute: all that was moved for it so far, out and back, in the account's currency."""
    currency: Mapped[str] = mapped_column(String)
    """ISO 4217 in lower case."""
    status: Mapped[str] = mapped_column(String)
    """One of `STATUSES_BY_KIND`; of a dispute where its funds are."""
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[Instant | None] = mapped_column(onupdate=func.now())

    __table_args__ = (
        CheckConstraint("reversal_id <> ''", "reversal_id_not_empty"),
        CheckConstraint("amount_cents >= 0", "amount_cents_not_negative"),
        CheckConstraint("currency ~ '^[a-z]{3}$'", "currency_is_iso_4217"),
        CheckConstraint(f"CASE kind {_STATUS_OF_KIND} ELSE false END", "status_goes_with_kind"),
        # What may still change at Stripe, for reconciliation.
        Index(
            "ix_stripe_reversals_unfinished",
            "created_at",
            postgresql_where=text("status IN ('pending', 'inquiry', 'withdrawn', 'reinstated')"),
        ),
    )
