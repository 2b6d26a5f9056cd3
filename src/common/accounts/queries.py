"""Finding users, for operators; nothing here locks or writes."""

import datetime as dt
import uuid
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, func, or_, select, tuple_
from sqlalchemy.orm import Session

from src.common.accounts.rules import storable
from src.common.exceptions import Invalid
from src.common.models.credit_hold import CreditDebt
from src.common.models.transaction import Transaction
from src.common.models.user import User
from src.common.postgres.pagination import Page, decode_cursor, page_of


@dataclass(frozen=True, kw_only=True)
class FoundUser:
    """A user and what they owe."""

    user: User
    debt: int
    """Credits owed, as booked."""


def list_users(
    session: Session,
    *,
    cursor: str | None,
    limit: int,
    with_debt: bool = False,
    inactive: bool = False,
) -> Page[FoundUser]:
    """One page of the users, newest first: all, those who owe credits, the deactivated.

    Raises:
        Invalid: VALIDATION_ERROR, the cursor is not one of ours.
    """
    statement = _users()
    if with_debt:
        owing = select(CreditDebt.user_id).where(CreditDebt.outstanding > 0)
        statement = statement.where(User.user_id.in_(owing))
    if inactive:
        statement = statement.where(~User.is_active)
    return _page(session, statement, cursor=cursor, limit=limit)


def find_users(session: Session, text: str, *, cursor: str | None, limit: int) -> Page[FoundUser]:
    """One page, newest first, of users whom `text` is a part of: e-mail, name or company.

    Upper and lower case are the same. Or it is an id at Stripe: the customer's, or a session's,
    PaymentIntent's or invoice's that they paid. A part is looked for in every user until the page
    is full, for as long as a statement may take; an id is found by an index.

    Raises:
        Invalid: VALIDATION_ERROR, the text is empty, or the cursor is not one of ours.
        DatabaseBusy: DATABASE_BUSY, it took longer than a statement may.
    """
    if not text.strip() or text != storable(text):
        raise Invalid("text: must be something to look for", "VALIDATION_ERROR", field="text")
    for condition in (_has_stripe_id(text), _has_part(text)):
        page = _page(session, _users().where(condition), cursor=cursor, limit=limit)
        if page.items:
            break
    return page


def _users() -> Select[User, int]:
    debt = (
        select(func.coalesce(func.sum(CreditDebt.outstanding), 0))
        .where(CreditDebt.user_id == User.user_id)
        .scalar_subquery()
    )
    return select(User, debt)


def _page(
    session: Session, statement: Select[User, int], *, cursor: str | None, limit: int
) -> Page[FoundUser]:
    if cursor is not None:
        statement = statement.where(
            tuple_(User.created_at, User.user_id) < tuple_(*decode_cursor(cursor))
        )
    newest = statement.order_by(User.created_at.desc(), User.user_id.desc()).limit(limit + 1)
    rows = [FoundUser(user=user, debt=int(debt)) for user, debt in session.execute(newest)]
    return page_of(rows, limit, _place)


def _place(found: FoundUser) -> tuple[dt.datetime, uuid.UUID]:
    return found.user.created_at, found.user.user_id


def _has_stripe_id(text: str) -> ColumnElement[bool]:
    buyers = select(Transaction.user_id).where(
        or_(
            Transaction.stripe_session_id == text,
            Transaction.payment_intent_id == text,
            Transaction.invoice_id == text,
        )
    )
    customers = select(User.user_id).where(User.stripe_customer_id == text)
    return User.user_id.in_(customers.union_all(buyers))


def _has_part(text: str) -> ColumnElement[bool]:
    full_name = func.concat_ws(" ", User.first_name, User.last_name)
    company = User.preferences["company"].astext
    return or_(
        *(each.icontains(text, autoescape=True) for each in (User.email, full_name, company))
    )
