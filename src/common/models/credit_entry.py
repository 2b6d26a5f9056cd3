"""The journal: every movement of credits, append-only, counted 1, 2, 3 … per user."""

import uuid
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base, CreatedAt, Instant, text_array

UQ_CREDIT_ENTRIES_KEY = "uq_credit_entries_user_id_idempotency_key"


class EntryKind(StrEnum):
    """What moved credits; the sign of the amount goes with it."""

    OPENING = "opening"
    GRANT = "grant"
    SPEND = "spend"
    ADJUSTMENT = "adjustment"
    HOLD = "hold"
    CAPTURE = "capture"
    RELEASE = "release"
    HOLD_EXPIRY = "hold_expiry"
    RENEWAL = "renewal"
    LOT_EXPIRY = "lot_expiry"
    CLAWBACK = "clawback"
    DEBT_REPAYMENT = "debt_repayment"
    REINSTATEMENT = "reinstatement"
    REVERSAL = "reversal"

    __hash__ = str.__hash__  # an enumeration's own takes ten times as long


SIGN_BY_KIND = {
    EntryKind.OPENING: ">= 0",
    EntryKind.GRANT: "> 0",
    EntryKind.SPEND: "< 0",
    EntryKind.ADJUSTMENT: "<> 0",
    EntryKind.HOLD: "< 0",
    EntryKind.CAPTURE: ">= 0",
    EntryKind.RELEASE: "> 0",
    EntryKind.HOLD_EXPIRY: "> 0",
    EntryKind.RENEWAL: "= 0",
    EntryKind.LOT_EXPIRY: "< 0",
    EntryKind.CLAWBACK: "<= 0",
    EntryKind.DEBT_REPAYMENT: "< 0",
    EntryKind.REINSTATEMENT: ">= 0",
    EntryKind.REVERSAL: "<> 0",
}


def _kinds(*signs: str) -> str:
    return text_array(kind for kind, sign in SIGN_BY_KIND.items() if sign in signs)


# By the amount's sign, not by the kind: PostgreSQL reads a constraint anew for each statement, and
# fourteen cases are five times as long.
_SIGN_GOES_WITH_KIND = (
    f"kind = ANY (CASE WHEN amount > 0 THEN {_kinds('> 0', '>= 0', '<> 0')}"
    f" WHEN amount < 0 THEN {_kinds('< 0', '<= 0', '<> 0')}"
    f" ELSE {_kinds('= 0', '>= 0', '<= 0')} END)"
)

_ACTING_ON_HOLDS = text_array(
    (
        *(EntryKind.CAPTURE, EntryKind.RELEASE, EntryKind.HOLD_EXPIRY),
        *(EntryKind.RENEWAL, EntryKind.SPEND),
    )
)


class CreditEntry(Base):
    """One movement of credits. It is never changed or deleted; a correction is another entry."""

    __tablename__ = "credit_entries"

    user_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    """Whose it is; the triggers look it up (decision 0019)."""
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    """1, 2, 3 … without a gap, handed out under the user's row lock."""
    kind: Mapped[str] = mapped_column(String)
    """What moved credits: a value of `EntryKind`."""
    amount: Mapped[int] = mapped_column(Integer)
    """Credits into (+) or out of (-) the balance."""
    balance_after: Mapped[int] = mapped_column(Integer)
    """The balance right after this entry."""
    result_balance: Mapped[int] = mapped_column(Integer)
    """The balance after the last entry its operation wrote: what the caller was answered."""
    captured: Mapped[int | None] = mapped_column(Integer)
    """Credits of a hold that this entry kept; NULL where no hold is concerned."""
    related_seq: Mapped[int | None] = mapped_column(Integer)
    """The hold it acts on; for clawbacks, reinstatements and debts the payment's lot; for reversals
    the entry they undo."""
    hold_expires_at: Mapped[Instant | None]
    """When the hold that this entry opened or renewed was to expire, as answered then."""
    idempotency_key: Mapped[str] = mapped_column(String)
    """Unique for the user, for ever. The ledger's own begin with `~`."""
    request_digest: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of what was asked: the same key with another request is refused."""
    reference: Mapped[str | None] = mapped_column(String)
    """What the caller says it was for; of an adjustment or a reversal its reason."""
    actor: Mapped[str] = mapped_column(String)
    """`user:`, `key:` or `system:` and an id, never a name."""
    effective_at: Mapped[Instant]
    """When it counts; never before the previous entry's."""
    created_at: Mapped[CreatedAt]
    """When it was booked; after `effective_at` for what fell due in between."""
    entry_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    """SHA-256 over the rest of it and the hash of the entry before (decision 0061). NULL where it
    is from before there were hashes, and nobody has added them."""

    __table_args__ = (
        UniqueConstraint("user_id", "idempotency_key", name=UQ_CREDIT_ENTRIES_KEY),
        CheckConstraint("seq > 0", "seq_positive"),
        CheckConstraint(_SIGN_GOES_WITH_KIND, "sign_goes_with_kind"),
        CheckConstraint("balance_after >= 0 AND result_balance >= 0", "balance_not_negative"),
        CheckConstraint("captured >= 0", "captured_not_negative"),
        CheckConstraint("length(idempotency_key) BETWEEN 1 AND 255", "key_length"),
        CheckConstraint("octet_length(request_digest) = 32", "digest_is_sha256"),
        CheckConstraint("octet_length(entry_hash) = 32", "hash_is_sha256"),
        # What a hold should say is the sum of these: the triggers look at them.
        Index(
            "ix_credit_entries_holds",
            "user_id",
            "related_seq",
            "seq",
            postgresql_where=text(f"related_seq IS NOT NULL AND kind = ANY ({_ACTING_ON_HOLDS})"),
        ),
        # What is left of an entry to undo is what these left of it.
        Index(
            "ix_credit_entries_reversals",
            "user_id",
            "related_seq",
            "seq",
            postgresql_where=text(f"kind = '{EntryKind.REVERSAL}'"),
        ),
    )


class CreditEntryMetadata(Base):
    """The caller's free JSON for an entry, apart so that it can be erased."""

    __tablename__ = "credit_entry_metadata"

    user_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    document: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """A JSON object of at most 16 KiB."""

    __table_args__ = (
        ForeignKeyConstraint(["user_id", "seq"], ["credit_entries.user_id", "credit_entries.seq"]),
    )


class CreditPosting(Base):
    """How much one entry gave to one lot, or took from it. They sum to the entry's amount.

    The triggers look up both, entry and lot (decision 0019).
    """

    __tablename__ = "credit_postings"

    user_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    """The entry."""
    lot_seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    """The lot."""
    amount: Mapped[int] = mapped_column(Integer)
    """Credits into (+) or out of (-) the lot; never 0."""
    remaining_after: Mapped[int] = mapped_column(Integer)
    """What the lot held right after this posting."""

    __table_args__ = (
        CheckConstraint("amount <> 0", "amount_not_zero"),
        CheckConstraint("remaining_after >= 0", "remaining_not_negative"),
        CheckConstraint("lot_seq <= seq", "lot_before_entry"),
    )
