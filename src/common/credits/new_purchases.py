"""Finds the purchases that this database transaction wrote, by whatever statement.

The ORM tells of those it inserted itself. A Core `INSERT … ON CONFLICT`, a line of SQL or a trigger
tell nobody; PostgreSQL knows which database transaction wrote a row.
"""

import uuid
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    BindParameter,
    Boolean,
    ColumnElement,
    Uuid,
    bindparam,
    column,
    select,
    text,
)
from sqlalchemy.orm import Session

from src.common.credits.persistence.running import run
from src.common.models.transaction import Transaction


class NewPurchase(NamedTuple):
    """A row of `transactions` that nobody else can see yet."""

    user_id: uuid.UUID
    transaction_id: uuid.UUID
    stripe_session_id: str
    credits_added: int
    is_credited: bool
    """Whether a lot refers to it."""
    is_reversed: bool
    """Whether money went back of it or of another purchase of this user."""


# A row is ours if we see it although whoever wrote it is still at work: nobody sees what others
# have not committed. `xmin`, of savepoints each its own, has 32 bits: counted from the snapshot's
# end, it is the other 32 that are found. Beyond that end nobody else's rows are seen at all.
_IS_CREDITED = """EXISTS (SELECT FROM credit_lots l
    WHERE l.user_id = t.user_id AND l.transaction_id = t.transaction_id)"""
_IS_REVERSED = """(EXISTS (SELECT FROM stripe_reversals r JOIN transactions o USING (transaction_id)
    WHERE o.user_id = t.user_id)
  OR EXISTS (SELECT FROM stripe_reversals r
    WHERE r.payment_intent_id IN (t.payment_intent_id, t.invoice_id)
      AND r.transaction_id IS NULL))"""
_NEW = """FROM transactions t
CROSS JOIN (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint) AS snapshot (xmax)
CROSS JOIN LATERAL (SELECT (t.xmin::text::bigint - snapshot.xmax) & 4294967295) AS writer (ahead)
WHERE t.user_id = {wanted} AND NOT t.predates_ledger
  AND CASE WHEN writer.ahead < 2147483648 THEN true
    ELSE pg_xact_status(greatest(snapshot.xmax + writer.ahead - 4294967296, 3)::text::xid8)
      = 'in progress' END"""
_FOUND = f"""SELECT t.user_id, t.transaction_id, t.stripe_session_id, t.credits_added,
  {_IS_CREDITED} AS is_credited, {_IS_REVERSED} AS is_reversed
{_NEW}
ORDER BY t.user_id, t.created_at, t.stripe_session_id"""
_ID = Uuid(as_uuid=True)
_USER_ID, _PURCHASE_ID = bindparam("user_id", type_=_ID), bindparam("purchase_id", type_=_ID)
_OF_SEVERAL = text(_FOUND.format(wanted="ANY (:user_ids)")).bindparams(
    bindparam("user_ids", type_=ARRAY(_ID))
)
_OF_ONE = text(_FOUND.format(wanted=":user_id")).bindparams(_USER_ID)


def _condition(sql: str, *parameters: BindParameter[Any]) -> ColumnElement[bool]:
    """Looked at once in a statement, however often it is asked."""
    answer = text(sql.format(wanted=":user_id")).bindparams(*parameters)
    named = answer.columns(column("answer", Boolean)).cte("as_expected")
    return select(named.c.answer).scalar_subquery()


NOTHING_BOUGHT = _condition(f"SELECT NOT EXISTS (SELECT {_NEW}) AS answer", _USER_ID)
"""Whether `user_id` has no new purchase."""
BOUGHT_THIS = _condition(
    f"""SELECT count(*) = 1 AND coalesce(bool_and(t.transaction_id = :purchase_id
  AND NOT {_IS_CREDITED} AND NOT {_IS_REVERSED}), false) AS answer
{_NEW}""",
    *(_USER_ID, _PURCHASE_ID),
)
"""Whether `purchase_id` is the only one, and neither credited nor concerned by money back."""


def find_new_purchases(session: Session, user_ids: Iterable[uuid.UUID]) -> Sequence[NewPurchase]:
    """Those of these users."""
    wanted = list(user_ids)
    connection = session.connection(bind_arguments={"mapper": Transaction})
    rows = (
        run(connection, _OF_ONE, {"user_id": wanted[0]})
        if len(wanted) == 1
        else run(connection, _OF_SEVERAL, {"user_ids": wanted})
    )
    return [NewPurchase(*row) for row in rows]
