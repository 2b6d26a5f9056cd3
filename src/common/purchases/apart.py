"""Money back that waits in `public` until its payment is known, where groups have schemas.

Whoever handles it holds the payment's lock (decision 0015). So it waits there or is a group's, and
no purchase misses it. What is a group's is noted in the directory: a later snapshot that tells of
no payment finds its way. Where groups have no schemas nothing here does anything: there it waits
among the others.
"""

from collections.abc import Collection
from typing import cast

from sqlalchemy import ColumnElement, Table, and_, column, delete, exists, select, table
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from src.common.models.stripe_reversal import StripeReversal
from src.common.models.transaction import Transaction
from src.common.postgres.routes import SHARED_SCHEMA, is_sharded, route_of
from src.common.purchases.reversals import Reversal
from src.common.purchases.whose import user_of_any
from src.common.sharding.directory import note_payments

_COLUMNS = [(each.name, each.type) for each in cast("Table", StripeReversal.__table__).c]
_WAITING = table(
    StripeReversal.__tablename__,
    *(column(name, type_) for name, type_ in _COLUMNS),
    schema=SHARED_SCHEMA,
)


def take_along(session: Session, reversal: Reversal, transaction: Transaction | None) -> None:
    """Have this reversal in the group that the session sees, if that is whose it is."""
    if not _is_apart(session):
        return
    connection = session.connection()
    names = (reversal.payment_intent_id, reversal.stripe_session_id, reversal.invoice_id)
    named = [each for each in (*names, reversal.reversal_id) if each is not None]
    whose = transaction.user_id if transaction else user_of_any(connection, named)
    if whose is not None:
        _move(
            session,
            and_(
                _WAITING.c.livemode == reversal.livemode,
                _WAITING.c.reversal_id == reversal.reversal_id,
            ),
        )
        note_payments(connection, [(reversal.reversal_id, whose)])


def take_along_all(session: Session, transaction: Transaction, names: Collection[str]) -> None:
    """Have all that waited for this purchase, by these names, in its group."""
    if _is_apart(session):
        moved = _move(session, _WAITING.c.payment_intent_id.in_(names))
        note_payments(session.connection(), [(each, transaction.user_id) for each in moved])


def waits(session: Session, names: Collection[str]) -> list[ColumnElement[bool]]:
    """Whether anything waits for a payment of these names; parts of a statement."""
    if not _is_apart(session):
        return []
    return [exists().select_from(_WAITING).where(_WAITING.c.payment_intent_id.in_(names))]


def _is_apart(session: Session) -> bool:
    connection = session.connection()
    return is_sharded(connection) and route_of(connection) is not None


def _move(session: Session, which: ColumnElement[bool]) -> list[str]:
    """The ids of those that were moved; the group's own row of one stays as it is."""
    taken = delete(_WAITING).where(which).returning(*_WAITING.c).cte("taken")
    moved = (
        insert(StripeReversal)
        .from_select([name for name, _ in _COLUMNS], select(*taken.c), include_defaults=False)
        .on_conflict_do_nothing()
        .returning(StripeReversal.reversal_id)
    )
    return list(session.scalars(moved))
