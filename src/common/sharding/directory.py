"""Reads and writes the directory: whose schema is which, whose payment is whose.

On the caller's connection, which sees `public` whatever its route. Where `SHARDING` is `none` the
directory is empty, and nobody asks it.
"""

import uuid
from collections.abc import Iterable

from sqlalchemy import Connection, func, literal, select, update
from sqlalchemy.dialects.postgresql import Insert, insert

from src.common.exceptions import Conflict
from src.common.models.directory import DirectoryPayment, DirectoryUser
from src.common.postgres.routes import WrongShard, is_sharded, route_of

PAYMENT_OF_ANOTHER_USER = "PAYMENT_OF_ANOTHER_USER"


def group_of(connection: Connection, user_id: uuid.UUID) -> str | None:
    """The schema that has this user's tables; None where nobody is known by this id."""
    of_user = select(DirectoryUser.schema).where(DirectoryUser.user_id == user_id)
    return connection.execute(of_user).scalar_one_or_none()


def groups_of(connection: Connection, user_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, str]:
    """The same for many users; those whom nobody knows are missing."""
    of_users = select(DirectoryUser.user_id, DirectoryUser.schema).where(
        DirectoryUser.user_id.in_(list(user_ids))
    )
    return {row.user_id: row.schema for row in connection.execute(of_users)}


def user_of_email(connection: Connection, email: str) -> uuid.UUID | None:
    """Who has this e-mail, without regard to case."""
    of_email = select(DirectoryUser.user_id).where(DirectoryUser.email_lower == func.lower(email))
    return connection.execute(of_email).scalar_one_or_none()


def note_user(
    connection: Connection, user_id: uuid.UUID, email: str, customer_id: str | None = None
) -> None:
    """Note a newcomer of the group that this connection sees.

    Raises:
        IntegrityError: somebody has this e-mail (`uq_users_directory_email_lower`) or customer.
        WrongShard: WRONG_SHARD, the user is of another group already.
    """
    noted = _newcomer(connection, user_id, email, customer_id).on_conflict_do_nothing(
        index_elements=[DirectoryUser.user_id]
    )
    if connection.execute(noted.returning(DirectoryUser.user_id)).one_or_none() is None:
        _refuse_other_group(connection, user_id)


def claim_user(connection: Connection, user_id: uuid.UUID, email: str) -> bool:
    """Note a newcomer unless the user, or its e-mail, is there; whether the user is there now.

    Two first sights of one user note it once, whatever groups they chose.

    Raises:
        WrongShard: WRONG_SHARD, the user is of another group already.
    """
    noted = _newcomer(connection, user_id, email, None).on_conflict_do_nothing()
    if connection.execute(noted.returning(DirectoryUser.user_id)).one_or_none() is not None:
        return True
    return _refuse_other_group(connection, user_id)


def change_user(
    connection: Connection, user_id: uuid.UUID, email: str, customer_id: str | None
) -> None:
    """Note another e-mail or customer of a user.

    Raises:
        IntegrityError: somebody else has it.
    """
    connection.execute(
        update(DirectoryUser)
        .where(DirectoryUser.user_id == user_id)
        .values(email_lower=func.lower(literal(email)), stripe_customer_id=customer_id)
    )


def note_payment(connection: Connection, user_id: uuid.UUID, *object_ids: str | None) -> None:
    """Note whose these objects of Stripe's are; those that are noted so already are left.

    Does nothing on a connection that routes to no groups.

    Raises:
        Conflict: PAYMENT_OF_ANOTHER_USER.
    """
    note_payments(connection, [(each, user_id) for each in object_ids if each is not None])


def note_payments(connection: Connection, whose: Iterable[tuple[str, uuid.UUID]]) -> None:
    """The same for many, which are noted in the order of their ids: two who do so never deadlock.

    Raises:
        Conflict: PAYMENT_OF_ANOTHER_USER.
    """
    wanted = dict(sorted(whose))
    if not wanted or not is_sharded(connection):
        return
    rows = [{"object_id": object_id, "user_id": user} for object_id, user in wanted.items()]
    connection.execute(insert(DirectoryPayment).values(rows).on_conflict_do_nothing())
    noted = select(DirectoryPayment.object_id, DirectoryPayment.user_id).where(
        DirectoryPayment.object_id.in_(wanted)
    )
    if any(wanted[object_id] != user_id for object_id, user_id in connection.execute(noted)):
        raise Conflict("This payment is another user's", PAYMENT_OF_ANOTHER_USER)


def _newcomer(
    connection: Connection, user_id: uuid.UUID, email: str, customer_id: str | None
) -> Insert:
    """The row of a user of the group that this connection sees."""
    return insert(DirectoryUser).values(
        user_id=user_id,
        schema=_route(connection),
        email_lower=func.lower(literal(email)),
        stripe_customer_id=customer_id,
    )


def _route(connection: Connection) -> str:
    route = route_of(connection)
    if route is None:
        raise WrongShard("A user is written where nobody said of which group")
    return route


def _refuse_other_group(connection: Connection, user_id: uuid.UUID) -> bool:
    """Whether the directory has the user, who then is of this connection's group."""
    found = group_of(connection, user_id)
    if found not in {None, route_of(connection)}:
        raise WrongShard
    return found is not None
