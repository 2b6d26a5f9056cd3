"""The ledger's two large reading statements, each built once and run with parameters.

Making a statement costs Python as much as running it.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    DateTime,
    FromClause,
    Integer,
    Select,
    String,
    Uuid,
    and_,
    bindparam,
    func,
    literal,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, aggregate_order_by

from src.common.models.credit_entry import CreditEntry, CreditPosting
from src.common.models.credit_hold import CreditDebt, CreditHold, HoldStatus
from src.common.models.credit_lot import CreditLot
from src.common.models.user import User


@cache
def entries_statement() -> Select[CreditEntry]:
    """The entries that have `keys` of `user_ids`, pair by pair."""
    wanted = (
        func.unnest(
            bindparam("user_ids", type_=ARRAY(Uuid(as_uuid=True))),
            bindparam("keys", type_=ARRAY(String)),
        )
        .table_valued("user_id", "key", name="wanted")
        .render_derived()
    )
    statement = select(CreditEntry).join(
        wanted,
        and_(
            CreditEntry.user_id == wanted.c.user_id,
            CreditEntry.idempotency_key == wanted.c.key,
        ),
    )
    # An entry of the same number may be loaded from before a savepoint that was rolled back.
    return statement.execution_options(populate_existing=True)


@cache
def books_statement() -> Select[*tuple[Any, ...]]:
    """Everything of `user_ids` the rules need, a row a user, all as of one snapshot and one clock.

    `hold_seqs` are holds wanted whatever their status; `now`, unless NULL, is the clock.
    """
    now = bindparam("now", type_=DateTime(timezone=True))
    reading = func.coalesce(now, func.clock_timestamp())
    # A subquery with a volatile function is evaluated once: one clock for the whole statement.
    clock = select(reading.label("reading")).subquery("clock")
    last = CreditEntry.__table__.alias("last")
    instant = func.greatest(clock.c.reading, last.c.effective_at)
    return (
        select(
            User.user_id,
            User.credits_balance,
            User.credits_version,
            User.is_active,
            instant.label("now"),
            _lots_json().label("lots"),
            _holds_json(instant, [clock, last]).label("holds"),
            _debts_json().label("debts"),
        )
        .select_from(User)
        .join(clock, true())
        .outerjoin(last, and_(last.c.user_id == User.user_id, last.c.seq == User.credits_version))
        .where(User.user_id == func.any(bindparam("user_ids", type_=ARRAY(Uuid(as_uuid=True)))))
    )


def _lots_json() -> ColumnElement[Any]:
    rows = func.jsonb_agg(lot_json(CreditLot))
    return (
        select(func.coalesce(rows, literal([], JSONB)))
        .where(CreditLot.user_id == User.user_id, CreditLot.is_open)
        .correlate(User)
        .scalar_subquery()
    )


def _holds_json(instant: ColumnElement[Any], clock: Sequence[FromClause]) -> ColumnElement[Any]:
    """Holds, and where they are due or asked for, the lots they came from, closed ones too."""
    asked_for = CreditHold.seq == func.any(bindparam("hold_seqs", type_=ARRAY(Integer)))
    allocations = (
        select(func.jsonb_agg(func.jsonb_build_array(-CreditPosting.amount, lot_json(CreditLot))))
        .join(
            CreditLot,
            and_(
                CreditLot.user_id == CreditPosting.user_id,
                CreditLot.seq == CreditPosting.lot_seq,
            ),
        )
        .where(
            CreditPosting.user_id == CreditHold.user_id,
            CreditPosting.seq == CreditHold.seq,
            asked_for | (CreditHold.expires_at <= instant),
        )
        .correlate(CreditHold, *clock)
        .scalar_subquery()
    )
    row = func.jsonb_build_array(
        CreditHold.seq,
        CreditHold.amount,
        CreditHold.captured,
        CreditHold.status,
        CreditHold.expires_at,
        allocations,
    )
    return (
        select(
            func.coalesce(
                func.jsonb_agg(aggregate_order_by(row, CreditHold.seq)), literal([], JSONB)
            )
        )
        .where(
            CreditHold.user_id == User.user_id,
            (CreditHold.status == HoldStatus.OPEN) | asked_for,
        )
        .correlate(User, *clock)
        .scalar_subquery()
    )


def _debts_json() -> ColumnElement[Any]:
    rows = func.jsonb_agg(func.jsonb_build_array(CreditDebt.seq, CreditDebt.outstanding))
    return (
        select(func.coalesce(rows, literal([], JSONB)))
        .where(CreditDebt.user_id == User.user_id, CreditDebt.outstanding > 0)
        .correlate(User)
        .scalar_subquery()
    )


def lot_json(lot: type[CreditLot]) -> ColumnElement[Any]:
    """A lot's row as one value, for `add_lot`."""
    return func.jsonb_build_array(
        lot.seq,
        lot.source,
        lot.priority,
        lot.granted,
        lot.expires_at,
        lot.remaining,
        lot.last_seq,
        lot.transaction_id,
    )
