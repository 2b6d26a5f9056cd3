"""Whose payments and purchases are, where groups of users have schemas (decision 0066).

On a connection that sees what is everybody's, whatever its route.
"""

import uuid
from collections.abc import Collection, Mapping
from typing import NamedTuple

from sqlalchemy import Connection, Uuid, column, exists, literal, select, table, union_all
from sqlalchemy.orm import Session

from src.common.models.directory import DirectoryPayment, DirectoryUser
from src.common.models.transaction import Transaction
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.postgres import routes
from src.common.postgres.routes import is_sharded
from src.common.sharding.directory import group_of
from src.common.sharding.groups import ready_groups


def sees_users(session: Session) -> bool:
    """Whether this session sees any user's tables.

    It does not where groups of users have schemas and it is in none of them: it works for what is
    nobody's of ours, as far as anybody knows.
    """
    return routes.sees_users(session.connection())


def groups_of_payments(connection: Connection, object_ids: Collection[str]) -> Mapping[str, str]:
    """Of these objects of Stripe's, the groups whose users' payments name them.

    Those that no purchase, order or money back of ours names are missing.
    """
    found = connection.execute(
        select(DirectoryPayment.object_id, DirectoryUser.schema)
        .join(DirectoryUser, DirectoryUser.user_id == DirectoryPayment.user_id)
        .where(DirectoryPayment.object_id.in_(object_ids))
    )
    return {object_id: schema for object_id, schema in found}  # noqa: C416  the types of both


def group_of_payment(connection: Connection, object_id: str) -> str | None:
    """The same of one; None where nobody names it."""
    return groups_of_payments(connection, [object_id]).get(object_id)


def group_of_purchase(connection: Connection, transaction_id: uuid.UUID) -> str | None:
    """The group that has this purchase: no directory tells, so each is looked at, by its key."""
    looks = [
        select(literal(group))
        .select_from(table(Transaction.__tablename__, schema=group))
        .where(column("transaction_id", Uuid()) == transaction_id)
        for group in ready_groups(connection)
    ]
    return connection.execute(union_all(*looks)).scalar() if looks else None


def user_of_any(connection: Connection, object_ids: Collection[str]) -> uuid.UUID | None:
    """Whose payment one of these names; None where nobody's."""
    of_any = select(DirectoryPayment.user_id).where(DirectoryPayment.object_id.in_(object_ids))
    return connection.execute(of_any.limit(1)).scalar()


def is_of_another(session: Session, user_id: uuid.UUID, object_ids: Collection[str]) -> bool:
    """Whether one of these names another user's payment.

    Only the directory tells: where groups of users have no schemas, the unique keys do.
    """
    connection = session.connection()
    if not is_sharded(connection):
        return False
    others = exists().where(
        DirectoryPayment.object_id.in_(object_ids), DirectoryPayment.user_id != user_id
    )
    return connection.execute(select(others)).scalar_one()


class GroupOfUnmatched(NamedTuple):
    """Whose an unmatched payment is; of `schema` None nobody's, as far as it says itself."""

    schema: str | None
    is_certain: bool
    """Whether a purchase or an order of ours names it."""


def group_of_unmatched(connection: Connection, stripe_object_id: str) -> GroupOfUnmatched:
    """The group of whoever bought it, else of whom the payment names."""
    details = connection.execute(
        select(UnmatchedPayment.details)
        .where(UnmatchedPayment.stripe_object_id == stripe_object_id)
        .order_by(UnmatchedPayment.status)
        .limit(1)
    ).scalar()
    said: dict[str, str | None] = details or {}
    named_so = (stripe_object_id, said.get("payment_intent_id"), said.get("invoice_id"))
    names = [each for each in named_so if each is not None]
    noted = groups_of_payments(connection, names)
    if noted:
        return GroupOfUnmatched(next(noted[each] for each in names if each in noted), True)
    named = said.get("user_id")
    schema = group_of(connection, uuid.UUID(named)) if named else None
    return GroupOfUnmatched(schema, False)
