"""Finding users, for people who operate; nothing here locks or writes.

Every page is a range of an index, or of what an index found; no answer counts all users. What no
index knows of (a part of one or two characters, who never bought) is looked for in a bounded number
of users: then the page says how far it looked, and the next one goes on there (decision 0051).
"""

import datetime as dt
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    exists,
    func,
    literal_column,
    or_,
    select,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY, TEXT
from sqlalchemy.orm import Session, aliased

from src.common.accounts.rules import storable
from src.common.exceptions import Invalid
from src.common.models.checkout_order import CheckoutOrder
from src.common.models.credit_hold import CreditDebt, CreditHold, HoldStatus
from src.common.models.stripe_reversal import StripeReversal
from src.common.models.transaction import Transaction
from src.common.models.user import User
from src.common.models.user_search import PART_LENGTH_MIN
from src.common.postgres.lagging_reads import may_lag
from src.common.postgres.pagination import Page, decode_cursor, encode_cursor, merge_pages
from src.common.time_zones import in_order

LOOKED_AT_MAX = 20_000
"""Users that one page looks at where no index leads to them."""
TRIED_FIRST = 3_000
"""And where the index of all parts does: a part that many users have is found among these."""
SORTED_MAX = 10_000
"""So many of whom an index tells are put in order; more are looked for as if there were none."""
TEXT_LENGTH_MAX = 320
"""As long as an e-mail may be."""
_IDENTIFIER = re.compile(r"[A-Za-z]{2,10}_\w+", re.ASCII)
_IS_OWED = CreditDebt.outstanding >= 1  # as its index says
_IS_OPEN = CreditHold.status == HoldStatus.OPEN
_LIKE_SIGNS = re.compile(r"([\\%_])")


@dataclass(frozen=True, kw_only=True)
class UserFilter:
    """Which users are wanted: those of whom all holds that is set."""

    text: str | None = None
    """A part of the e-mail, the full name or the company, in capital or small letters; or, whole,
    an id: the user's, an order's or a purchase's; or Stripe's: of the customer, or of a session,
    PaymentIntent, invoice, refund, dispute or credit note of theirs."""
    with_debt: bool = False
    with_open_holds: bool = False
    """Overdue ones that nobody has booked are among them."""
    inactive: bool = False
    never_bought: bool = False


@dataclass(frozen=True, kw_only=True)
class FoundUser:
    """A user and what they owe."""

    user: User
    debt: int
    """Credits owed, as booked."""


@dataclass(frozen=True)
class FoundUsers(Page[FoundUser]):
    """A page of users, newest first. It may have fewer than asked for, and yet a next one."""

    looked_back_to: dt.datetime | None
    """Where not all users were looked at: those who came since then were. None otherwise."""


_Place = tuple[dt.datetime, uuid.UUID]


@dataclass(frozen=True)
class _Found:
    """Whom a page shows, and where the next one begins."""

    places: Sequence[_Place]
    following: _Place | None = None
    looked_back_to: dt.datetime | None = None


@may_lag
def search_users(
    session: Session, wanted: UserFilter, *, cursor: str | None, limit: int
) -> FoundUsers:
    """One page of the users who are wanted, the newest first. Eight statements at most.

    Raises:
        Invalid: VALIDATION_ERROR, the text is empty, too long or none that can be stored, or the
            cursor is not one of ours.
        DatabaseBusy: DATABASE_BUSY, it took longer than a statement may.
    """
    _check(wanted.text)
    after = None if cursor is None else decode_cursor(cursor)
    found = _find(session, wanted, after, limit)
    rows = {
        user.user_id: FoundUser(user=user, debt=int(debt))
        for user, debt in session.execute(_shown([user_id for _, user_id in found.places]))
    }
    return FoundUsers(
        [rows[user_id] for _, user_id in found.places if user_id in rows],
        None if found.following is None else encode_cursor(*found.following),
        found.looked_back_to,
    )


def merge_found(pages: Sequence[FoundUsers], limit: int) -> FoundUsers:
    """One page of the users of several groups."""
    page = merge_pages(
        pages,
        limit,
        lambda found: (found.user.created_at, found.user.user_id),
        read_cursor=decode_cursor,
        write_cursor=encode_cursor,
    )
    stops = [each.looked_back_to for each in pages if each.looked_back_to is not None]
    return FoundUsers(page.items, page.next_cursor, max(stops, key=in_order, default=None))


def _check(text: str | None) -> None:
    if text is None:
        return
    if not text.strip() or text != storable(text) or len(text) > TEXT_LENGTH_MAX:
        raise Invalid(
            f"text: must be 1 to {TEXT_LENGTH_MAX} characters to look for, without NUL",
            "VALIDATION_ERROR",
            field="text",
        )


def _find(session: Session, wanted: UserFilter, after: _Place | None, limit: int) -> _Found:
    """By the way that costs least; each either finds a whole page or leaves it to the next."""
    text = wanted.text
    if text is not None and (named := _ids_named(text)) is not None:
        found = _among(session, named, replace(wanted, text=None), after, limit)
        if found is not None and found.places:
            return found
    for few in _ids_told(wanted):
        if (found := _among(session, few, wanted, after, limit)) is not None:
            return found
    if text is not None and len(text) >= PART_LENGTH_MIN:
        found = _walk(session, wanted, after, limit, TRIED_FIRST)
        if found.looked_back_to is None:
            return found
        if (found := _among(session, _ids_having(text), wanted, after, limit)) is not None:
            return found
    return _walk(session, wanted, after, limit, LOOKED_AT_MAX)


def _among(
    session: Session, ids: Select[uuid.UUID], wanted: UserFilter, after: _Place | None, limit: int
) -> _Found | None:
    """Those of whom an index told; None where it told of too many."""
    # Materialized, and each by its key: else the planner may read all users for these.
    few = ids.limit(_literal(SORTED_MAX + 1)).cte("few").prefix_with("MATERIALIZED")
    each = select(few.c.user_id).distinct().subquery("each")
    users = (
        select(User.created_at, User.user_id)
        .where(User.user_id == each.c.user_id, *_conditions(User, wanted))
        .where(true() if after is None else _is_after(after))
        .limit(_literal(1))
        .lateral("found")
    )
    newest = (
        select(users.c.created_at, users.c.user_id)
        .select_from(each.join(users, true()))
        .order_by(users.c.created_at.desc(), users.c.user_id.desc())
        .limit(_literal(limit + 1))
    )
    page = newest.subquery()
    told = select(func.count().label("ids")).select_from(few).subquery()
    rows = session.execute(
        select(told.c.ids, page.c.created_at, page.c.user_id)
        .select_from(told.outerjoin(page, true()))
        .order_by(page.c.created_at.desc(), page.c.user_id.desc())
    ).all()
    if rows[0].ids > SORTED_MAX:
        return None
    return _first([(came, user_id) for _, came, user_id in rows if user_id is not None], limit)


def _walk(
    session: Session, wanted: UserFilter, after: _Place | None, limit: int, looked_at_max: int
) -> _Found:
    """Look at users in order, the newest first, until the page is full; at no more than so many.

    Where inactive ones are wanted, only these are looked at.
    """
    base = select(User.created_at, User.user_id)
    if wanted.inactive:
        base = base.where(~User.is_active)
    if after is not None:
        base = base.where(_is_after(after))
    base = base.order_by(User.created_at.desc(), User.user_id.desc())
    whole = base.with_only_columns(User.__table__).limit(_literal(looked_at_max))
    looked_at = aliased(User, whole.subquery())
    rows = session.execute(
        select(looked_at.created_at, looked_at.user_id)
        .where(*_conditions(looked_at, wanted))
        .order_by(looked_at.created_at.desc(), looked_at.user_id.desc())
        .limit(_literal(limit + 1))
    )
    found = _first([(came, user_id) for came, user_id in rows], limit)
    if found.following is not None:
        return found
    last = session.execute(base.offset(_literal(looked_at_max - 1)).limit(1)).one_or_none()
    if last is None:
        return found
    came, user_id = last
    return _Found(found.places, (came, user_id), came)


def _first(places: Sequence[_Place], limit: int) -> _Found:
    return _Found(places[:limit], places[limit - 1] if len(places) > limit else None)


def _is_after(place: _Place) -> ColumnElement[bool]:
    return tuple_(User.created_at, User.user_id) < tuple_(*place)


def _literal(number: int) -> ColumnElement[int]:
    """For a LIMIT: a plan that is kept for all values would take it for a tenth of the rows."""
    return literal_column(str(number), Integer)


def _conditions(user: type[User], wanted: UserFilter) -> Iterator[ColumnElement[bool]]:
    """All that is to hold of a user."""
    if wanted.text is not None:
        yield _is_like(user, wanted.text)
    if wanted.with_debt:
        yield exists().where(CreditDebt.user_id == user.user_id, _IS_OWED)
    if wanted.with_open_holds:
        yield exists().where(CreditHold.user_id == user.user_id, _IS_OPEN)
    if wanted.inactive:
        yield ~user.is_active
    if wanted.never_bought:
        yield ~exists().where(Transaction.user_id == user.user_id)


def _ids_told(wanted: UserFilter) -> Iterator[Select[uuid.UUID]]:
    """The users of whom an index tells one of the things that are wanted."""
    if wanted.with_debt:
        yield select(CreditDebt.user_id).where(_IS_OWED)
    if wanted.with_open_holds:
        yield select(CreditHold.user_id).where(_IS_OPEN)


def _ids_having(text: str) -> Select[uuid.UUID]:
    """The users who have the part: the index of all parts tells who may."""
    trigrams = func.user_search_trigrams(func.lower(text), type_=ARRAY(TEXT))
    indexed = func.user_search_trigrams(_searched(User), type_=ARRAY(TEXT))
    return select(User.user_id).where(indexed.contains(trigrams), _is_like(User, text))


def _searched(user: type[User]) -> ColumnElement[str]:
    company = user.preferences.op("->>")(literal_column("'company'"))
    return func.user_search_text(user.email, user.first_name, user.last_name, company)


def _is_like(user: type[User], text: str) -> ColumnElement[bool]:
    pattern = "%" + _LIKE_SIGNS.sub(r"\\\1", text) + "%"
    return _searched(user).like(func.lower(pattern))


def _ids_named(text: str) -> Select[uuid.UUID] | None:
    """The users of this id, ours or Stripe's; None where it can be none."""
    try:
        our_id = uuid.UUID(text)
    except ValueError:
        return _of_any(_ids_of_stripes(text)) if _IDENTIFIER.fullmatch(text) else None
    return _of_any(
        (
            select(User.user_id).where(User.user_id == our_id),
            select(CheckoutOrder.user_id).where(CheckoutOrder.order_id == our_id),
            select(Transaction.user_id).where(Transaction.transaction_id == our_id),
        )
    )


def _of_any(ids: Iterable[Select[uuid.UUID]]) -> Select[uuid.UUID]:
    return select(union_all(*ids).subquery().c.user_id)


def _ids_of_stripes(text: str) -> Iterator[Select[uuid.UUID]]:
    yield select(User.user_id).where(User.stripe_customer_id == text)
    yield select(CheckoutOrder.user_id).where(CheckoutOrder.stripe_session_id == text)
    yield select(Transaction.user_id).where(
        or_(
            Transaction.stripe_session_id == text,
            Transaction.payment_intent_id == text,
            Transaction.invoice_id == text,
        )
    )
    yield select(Transaction.user_id).where(
        StripeReversal.livemode.in_((False, True)),  # both, so that the primary key serves
        StripeReversal.reversal_id == text,
        StripeReversal.transaction_id == Transaction.transaction_id,
    )


def _shown(user_ids: Sequence[uuid.UUID]) -> Select[User, int]:
    debt = (
        select(func.coalesce(func.sum(CreditDebt.outstanding), 0))
        .where(CreditDebt.user_id == User.user_id)
        .scalar_subquery()
    )
    return select(User, debt).where(User.user_id.in_(user_ids))
