"""In which group of users it is settled what Stripe tells (decision 0066).

A payment that is noted in the directory is its user's; another is whose metadata names it. What is
nobody's of ours, as far as anybody knows, is settled where nobody's tables are seen: it is noted as
unmatched, or waits.
"""

import uuid
from collections.abc import Iterator, Mapping

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from src.common.exceptions import Conflict
from src.common.postgres.routes import route_of
from src.common.purchases.locks import lock_payment
from src.common.purchases.reversals import Reversal
from src.common.purchases.rules import Payment
from src.common.purchases.whose import groups_of_payments
from src.common.sharding.directory import groups_of
from src.common.stripe.lookup import Facts


class GroupBecameKnown(Exception):
    """The facts are of another group than they were looked up to be: begin again there."""


def group_of(connection: Connection, facts: Facts) -> str | None:
    """The group that these facts are about; None where nobody of ours is known.

    Raises:
        Conflict: SEVERAL_GROUPS, they are about users of several.
    """
    pieces: list[Payment | Reversal] = [*facts.payments, *facts.reversals]
    pieces += [payment for payment, _ in facts.ended]
    names = [name for piece in pieces for name in _names_of(piece)]
    users = [each for piece in pieces if (each := _user_of(piece)) is not None]
    by_name: Mapping[str, str] = groups_of_payments(connection, names) if names else {}
    by_user: Mapping[uuid.UUID, str] = groups_of(connection, users) if users else {}
    found: set[str] = set()
    for piece in pieces:
        noted = [by_name[name] for name in _names_of(piece) if name in by_name]
        user_id = _user_of(piece)
        named = by_user.get(user_id) if user_id is not None else None
        if noted:
            found.add(noted[0])
        elif named is not None:
            found.add(named)
    if len(found) > 1:
        raise Conflict("This is about users of several groups", "SEVERAL_GROUPS")
    return found.pop() if found else None


def keep_to_group(session: Session, facts: Facts) -> None:
    """Lock the payments of these facts, and see that this session still sees whose they are.

    Before any lock of a user's. Whoever writes a purchase, or has money back wait for one, has the
    payment's lock: so what was nobody's payment may be somebody's now, and stays what it is then.

    Raises:
        GroupBecameKnown: they are of another group.
    """
    for name in _locked_names(facts):
        lock_payment(session, name)
    connection = session.connection()
    if group_of(connection, facts) != route_of(connection):
        raise GroupBecameKnown


def _names_of(piece: Payment | Reversal) -> list[str]:
    names = [piece.stripe_session_id, piece.payment_intent_id, piece.invoice_id]
    if isinstance(piece, Reversal):
        names.append(piece.reversal_id)
    return [each for each in names if each is not None]


def _user_of(piece: Payment | Reversal) -> uuid.UUID | None:
    return piece.user_id if isinstance(piece, Payment) else None


def _locked_names(facts: Facts) -> Iterator[str]:
    """As whoever settles each locks it, in that order."""
    for payment in facts.payments:
        yield payment.payment_intent_id or payment.stripe_session_id
        if payment.invoice_id is not None:
            yield payment.invoice_id
    for reversal in facts.reversals:
        yield reversal.payment_name or reversal.reversal_id
    for payment, _ in facts.ended:
        yield payment.payment_intent_id or payment.stripe_session_id
