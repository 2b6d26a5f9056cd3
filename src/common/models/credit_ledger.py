"""Which ledger this is: one row, whose id every user's chain of entries begins with."""

import uuid

from sqlalchemy import CheckConstraint, SmallInteger, func, text
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base, Instant


class CreditLedger(Base):
    """One row, made with the table (decision 0061)."""

    __tablename__ = "credit_ledgers"

    ledger_number: Mapped[int] = mapped_column(
        SmallInteger, primary_key=True, autoincrement=False, server_default=text("1")
    )
    """Always 1: there is one row."""
    ledger_id: Mapped[uuid.UUID] = mapped_column(server_default=func.gen_random_uuid())
    """What the first entry of each user links to. A copy of the database keeps it."""
    chained_at: Mapped[Instant | None]
    """Since when every entry has a hash; NULL where some from before may have none."""

    __table_args__ = (CheckConstraint("ledger_number = 1", "one_row"),)


CREATE_LEDGER = """
INSERT INTO credit_ledgers (chained_at)
SELECT CASE WHEN NOT EXISTS (SELECT FROM credit_entries) THEN now() END"""
"""Makes the row. Where nobody has an entry yet, all will have a hash from the first on."""
