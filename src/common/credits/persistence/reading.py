"""The statements that lock and read users' books; `writing.py` has the one that writes them.

Built from the models, once, and run with arrays as parameters: making it costs Python more than
running it. Sessions run it, and so does the batch engine.
"""

from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    JSON,
    ColumnElement,
    DateTime,
    FromClause,
    Integer,
    Select,
    String,
    Subquery,
    Text,
    Uuid,
    and_,
    bindparam,
    case,
    func,
    literal_column,
    null,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import InstrumentedAttribute

from src.common.credits.persistence.lot_rows import lot_json
from src.common.credits.persistence.reading_originals import originals_by_user, spent_before
from src.common.models.credit_entry import CreditEntry, CreditPosting
from src.common.models.credit_hold import CreditDebt, CreditHold, HoldStatus
from src.common.models.credit_ledger import CreditLedger
from src.common.models.credit_lot import CreditLot
from src.common.models.user import User


class Locking(StrEnum):
    """What reading a book does to the user's row."""

    NONE = "none"
    WAIT = "wait"
    """Locked until the database transaction ends, `FOR NO KEY UPDATE`, in `user_id` order."""
    SKIP = "skip"
    """The same, and users whose rows are locked by others are left out."""


class OneUser(NamedTuple):
    """What is asked of a single user: `user_id`, and at most one of each of these."""

    has_key: bool
    """Whether a `key` is looked up."""
    has_hold: bool
    """Whether a hold is wanted, whatever its status: `hold_seq`."""


@cache
def books_statement(
    locking: Locking, one_user: OneUser | None = None, *, with_originals: bool = False
) -> Select[*tuple[Any, ...]]:
    """Everything of `user_ids` that the rules need, a row a user, as of one snapshot.

    The clock is read after the row is locked, and the snapshot is older than that. Where
    `version_seen` differs from `credits_version`, somebody else wrote in between, and the caller
    reads again. Without a lock all rows have the statement's instant: a later clock would find
    expired what somebody renewed meanwhile.

    Parameters: `hold_seqs` are holds wanted whatever their status. `keys`, of `key_user_ids` pair
    by pair, are those whose entries are read too. `now`, unless NULL, is the clock. With
    originals, which `one_user` does not have, also `reversed_seqs`, of `reversed_user_ids` pair by
    pair: entries to be undone.

    For `one_user` there are no arrays. The planner learns an array's length only from its value. So
    a plan for any value looks dearer to it than one for this value, and it plans at every
    execution, which takes longer than executing.
    """
    users = select(
        User.user_id, User.credits_balance, User.credits_version, User.is_active
    ).where(User.user_id == _wanted_user(one_user))  # fmt: skip
    if locking is not Locking.NONE:
        users = users.order_by(User.user_id).with_for_update(
            key_share=True, skip_locked=locking is Locking.SKIP
        )
    rows = users.cte("locked")
    now = bindparam("now", type_=DateTime(timezone=True))
    # A volatile function keeps the subquery apart: it is evaluated once a row, the row locked.
    clock = func.statement_timestamp() if locking is Locking.NONE else func.clock_timestamp()
    user = select(*rows.c, func.coalesce(now, clock).label("reading")).subquery("book")
    last = CreditEntry.__table__.alias("last")
    instant = func.greatest(user.c.reading, last.c.effective_at)
    found = select(
        user.c.user_id,
        user.c.credits_balance,
        user.c.credits_version,
        user.c.is_active,
        (user.c.credits_version if locking is Locking.NONE else _version_seen(user)).label(
            "version_seen"
        ),
        instant.label("now"),
        last.c.effective_at.label("last_effective_at"),
        _last_hash(user, last).label("last_hash"),
        _lots_json(user).cast(Text).label("lots"),
        _holds_json(user, instant, [last], one_user).cast(Text).label("holds"),
        _debts_json(user).cast(Text).label("debts"),
    )
    books = user.outerjoin(
        last, and_(last.c.user_id == user.c.user_id, last.c.seq == user.c.credits_version)
    )
    if one_user is not None:
        replay = _replay().cast(Text) if one_user.has_key else null()
        return found.add_columns(replay.label("replays")).select_from(books)
    replays = _replays(with_spent=with_originals)
    found = found.add_columns(replays.c.entries.cast(Text).label("replays")).select_from(
        books.outerjoin(replays, replays.c.user_id == user.c.user_id)
    )
    if not with_originals:  # as mostly, and then it should cost nothing
        return found
    originals = originals_by_user()
    return found.add_columns(originals.c.entries.cast(Text).label("originals")).outerjoin(
        originals, originals.c.user_id == user.c.user_id
    )


@cache
def lock_statement() -> Select[*tuple[Any, ...]]:
    """Lock `user_ids`, one after the other, and read nothing: a read after it misses nothing.

    For those whom others write to all the time: what was read before the lock would be read again.
    Whether somebody wrote while it waited: `credits_version` differs from `version_seen`.
    """
    wanted = func.any(bindparam("user_ids", type_=ARRAY(Uuid(as_uuid=True))))
    locked = (
        select(User.user_id, User.credits_version)
        .where(User.user_id == wanted)
        .order_by(User.user_id)
        .with_for_update(key_share=True)
        .cte("locked")
    )
    return select(locked.c.credits_version, _version_seen(locked).label("version_seen"))


def _version_seen(user: FromClause) -> ColumnElement[Any]:
    """The version in the statement's snapshot; a subquery, so that no plan reads all users."""
    seen = User.__table__.alias("seen")
    return (
        select(seen.c.credits_version)
        .where(seen.c.user_id == user.c.user_id)
        .correlate(user)
        .scalar_subquery()
    )


def _last_hash(user: FromClause, last: FromClause) -> ColumnElement[Any]:
    """The last entry's; of who has none the ledger's id, which is looked up for them alone."""
    # By its key: where reading tables whole is discouraged, PostgreSQL before 18 takes a plan that
    # does for so dear that it compiles it, at every execution.
    ledger_id = (
        select(func.uuid_send(CreditLedger.ledger_id))
        .where(CreditLedger.ledger_number == literal_column("1"))
        .scalar_subquery()
    )
    return case((user.c.credits_version == literal_column("0"), ledger_id), else_=last.c.entry_hash)


def _wanted_user(one_user: OneUser | None) -> ColumnElement[Any]:
    if one_user is not None:
        return bindparam("user_id", type_=Uuid(as_uuid=True))
    return func.any(bindparam("user_ids", type_=ARRAY(Uuid(as_uuid=True))))


def _replay() -> ColumnElement[Any]:
    """The entry of the one user that has the key already."""
    return (
        select(func.json_agg(_entry_json(), type_=JSON))
        .where(
            CreditEntry.user_id == bindparam("user_id", type_=Uuid(as_uuid=True)),
            CreditEntry.idempotency_key == bindparam("key", type_=String),
        )
        .scalar_subquery()
    )


def _replays(*, with_spent: bool) -> FromClause:
    """The entries that have one of the keys already, gathered by user."""
    wanted = (
        func.unnest(
            bindparam("key_user_ids", type_=ARRAY(Uuid(as_uuid=True))),
            bindparam("keys", type_=ARRAY(String)),
        )
        .table_valued("user_id", "key", name="wanted")
        .render_derived()
    )
    return (
        select(
            CreditEntry.user_id,
            func.json_agg(_entry_json(with_spent=with_spent), type_=JSON).label("entries"),
        )
        .join_from(
            wanted,
            CreditEntry,
            and_(
                CreditEntry.user_id == wanted.c.user_id,
                CreditEntry.idempotency_key == wanted.c.key,
            ),
        )
        .group_by(CreditEntry.user_id)
        .subquery("replays")
    )


def _entry_json(*, with_spent: bool = False) -> ColumnElement[Any]:
    """What an operation answered, from its entry."""
    lot_expires_at = (
        select(CreditLot.expires_at)
        .where(CreditLot.user_id == CreditEntry.user_id, CreditLot.seq == CreditEntry.seq)
        .correlate(CreditEntry)
        .scalar_subquery()
    )
    columns: list[ColumnElement[Any] | InstrumentedAttribute[Any]] = [
        CreditEntry.idempotency_key,
        func.encode(CreditEntry.request_digest, literal_column("'hex'")),
        CreditEntry.seq,
        CreditEntry.kind,
        CreditEntry.amount,
        CreditEntry.captured,
        CreditEntry.result_balance,
        CreditEntry.created_at,
        func.coalesce(CreditEntry.hold_expires_at, lot_expires_at),
    ]
    if with_spent:
        columns.append(spent_before())
    return func.json_build_array(*columns)


def _lots_json(user: FromClause) -> ColumnElement[Any]:
    return (
        select(func.json_agg(lot_json(CreditLot), type_=JSON))
        .where(CreditLot.user_id == user.c.user_id, CreditLot.is_open)
        .correlate(user)
        .scalar_subquery()
    )


def _holds_json(
    user: FromClause,
    instant: ColumnElement[Any],
    clock: Sequence[FromClause],
    one_user: OneUser | None,
) -> ColumnElement[Any]:
    """Holds, and where they are due or asked for, the lots they came from, closed ones too."""
    hold = _holds(user, one_user)
    is_looked_into = hold.c.expires_at <= instant
    if _may_name_holds(one_user):
        is_looked_into |= _is_asked_for(hold.c.seq, one_user)
    allocations = (
        select(func.json_agg(func.json_build_array(-CreditPosting.amount, lot_json(CreditLot))))
        .join(
            CreditLot,
            and_(
                CreditLot.user_id == CreditPosting.user_id,
                CreditLot.seq == CreditPosting.lot_seq,
            ),
        )
        .where(
            CreditPosting.user_id == hold.c.user_id,
            CreditPosting.seq == hold.c.seq,
            is_looked_into,
        )
        .correlate(hold, user, *clock)
        .scalar_subquery()
    )
    row = func.json_build_array(
        hold.c.seq,
        hold.c.amount,
        hold.c.captured,
        hold.c.status,
        hold.c.expires_at,
        allocations,
    )
    return (
        select(func.json_agg(aggregate_order_by(row, hold.c.seq), type_=JSON))
        .correlate(user, *clock)
        .scalar_subquery()
    )


def _holds(user: FromClause, one_user: OneUser | None) -> Subquery:
    """Those that are open, and those asked for: apart, since one index serves each.

    Together they are looked for among all the holds the user ever had. The status is a literal, so
    that the partial index of open ones serves whatever the plan.
    """
    of_user = select(CreditHold).where(CreditHold.user_id == user.c.user_id).correlate(user)
    is_open = CreditHold.status == literal_column(f"'{HoldStatus.OPEN}'")
    if not _may_name_holds(one_user):
        return of_user.where(is_open).subquery("hold")
    asked_for = of_user.where(_is_asked_for(CreditHold.seq, one_user), ~is_open)
    return union_all(of_user.where(is_open), asked_for).subquery("hold")


def _may_name_holds(one_user: OneUser | None) -> bool:
    return one_user is None or one_user.has_hold


def _is_asked_for(
    seq: ColumnElement[int] | InstrumentedAttribute[int], one_user: OneUser | None
) -> ColumnElement[bool]:
    if one_user is not None:
        return seq == bindparam("hold_seq", type_=Integer)
    return seq == func.any(bindparam("hold_seqs", type_=ARRAY(Integer)))


def _debts_json(user: FromClause) -> ColumnElement[Any]:
    row = func.json_build_array(CreditDebt.seq, CreditDebt.outstanding)
    return (
        select(func.json_agg(row, type_=JSON))
        .where(CreditDebt.user_id == user.c.user_id, CreditDebt.outstanding > literal_column("0"))
        .correlate(user)
        .scalar_subquery()
    )
