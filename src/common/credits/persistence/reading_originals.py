"""The part of `books_statement` about entries that are to be undone, where any are asked for.

An entry is looked up by its key, and what was undone of it by the index of reversals.
"""

from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    ColumnElement,
    FromClause,
    Integer,
    Uuid,
    and_,
    bindparam,
    case,
    column,
    func,
    literal_column,
    select,
)

from src.common.credits.persistence.lot_rows import lot_json
from src.common.models.credit_entry import CreditEntry, CreditPosting, EntryKind
from src.common.models.credit_hold import CreditHold
from src.common.models.credit_lot import CreditLot

_REVERSAL: ColumnElement[str] = literal_column(f"'{EntryKind.REVERSAL}'")
"""A literal, so that the partial index of reversals serves whatever the plan."""


def originals_by_user() -> FromClause:
    """The entries to be undone, gathered by user; of one that is not there, its number alone."""
    wanted = (
        func.unnest(
            bindparam("reversed_user_ids", type_=ARRAY(Uuid(as_uuid=True))),
            bindparam("reversed_seqs", type_=ARRAY(Integer)),
        )
        .table_valued("user_id", column("seq", Integer), name="wanted_entry")
        .render_derived()
    )
    original = CreditEntry.__table__.alias("original")
    row = func.json_build_array(
        wanted.c.seq,
        original.c.kind,
        original.c.amount,
        original.c.actor,
        _lines_json(original),
        _undone_json(original),
        _hold_json(original),
    )
    return (
        select(wanted.c.user_id, func.json_agg(row, type_=JSON).label("entries"))
        .select_from(
            wanted.outerjoin(
                original,
                and_(original.c.user_id == wanted.c.user_id, original.c.seq == wanted.c.seq),
            )
        )
        .group_by(wanted.c.user_id)
        .subquery("originals")
    )


def _lines_json(original: FromClause) -> ColumnElement[Any]:
    """What an entry moved, and those of the lots that are closed: open ones are read anyway."""
    closed = case((~CreditLot.is_open, lot_json(CreditLot)))
    line = func.json_build_array(CreditPosting.lot_seq, CreditPosting.amount, closed)
    return (
        select(func.json_agg(line))
        .join_from(
            CreditPosting,
            CreditLot,
            and_(
                CreditLot.user_id == CreditPosting.user_id, CreditLot.seq == CreditPosting.lot_seq
            ),
        )
        .where(CreditPosting.user_id == original.c.user_id, CreditPosting.seq == original.c.seq)
        .correlate(original)
        .scalar_subquery()
    )


def _undone_json(original: FromClause) -> ColumnElement[Any]:
    """What each reversal of an entry moved, by lot.

    The lines of each are a subquery of their own: no plan reads all the user has.
    """
    line = func.json_build_array(CreditPosting.lot_seq, CreditPosting.amount)
    lines = (
        select(func.json_agg(line))
        .where(CreditPosting.user_id == CreditEntry.user_id, CreditPosting.seq == CreditEntry.seq)
        .correlate(CreditEntry)
        .scalar_subquery()
    )
    return (
        select(func.json_agg(lines))
        .where(
            CreditEntry.user_id == original.c.user_id,
            CreditEntry.related_seq == original.c.seq,
            CreditEntry.kind == _REVERSAL,
        )
        .correlate(original)
        .scalar_subquery()
    )


def _hold_json(original: FromClause) -> ColumnElement[Any]:
    """The hold that an entry opened, and what was captured of it too late."""
    late = CreditEntry.__table__.alias("late")
    retaken = (
        select(func.coalesce(func.sum(late.c.captured), literal_column("0")))
        .where(
            late.c.user_id == CreditHold.user_id,
            late.c.related_seq == CreditHold.seq,
            late.c.kind == literal_column(f"'{EntryKind.SPEND}'"),
        )
        .correlate(CreditHold)
        .scalar_subquery()
    )
    return (
        select(
            func.json_build_array(
                CreditHold.amount,
                CreditHold.captured,
                CreditHold.status,
                CreditHold.expires_at,
                retaken,
            )
        )
        .where(CreditHold.user_id == original.c.user_id, CreditHold.seq == original.c.seq)
        .correlate(original)
        .scalar_subquery()
    )


def spent_before() -> ColumnElement[Any]:
    """Of an entry that took a grant back: what had left its lot otherwise by then."""
    earlier = CreditEntry.__table__.alias("earlier")
    taken_back = (
        select(func.sum(earlier.c.amount))
        .where(
            earlier.c.user_id == CreditEntry.user_id,
            earlier.c.related_seq == CreditEntry.related_seq,
            earlier.c.kind == _REVERSAL,
            earlier.c.seq <= CreditEntry.seq,
        )
        .correlate(CreditEntry)
        .scalar_subquery()
    )
    spent = (
        select(CreditLot.granted - CreditPosting.remaining_after + taken_back)
        .join_from(
            CreditPosting,
            CreditLot,
            and_(
                CreditLot.user_id == CreditPosting.user_id, CreditLot.seq == CreditPosting.lot_seq
            ),
        )
        .where(CreditPosting.user_id == CreditEntry.user_id, CreditPosting.seq == CreditEntry.seq)
        .correlate(CreditEntry)
        .scalar_subquery()
    )
    is_taken_back = and_(CreditEntry.kind == _REVERSAL, CreditEntry.amount < literal_column("0"))
    return case((is_taken_back, spent))
