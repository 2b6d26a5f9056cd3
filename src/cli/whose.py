"""Whose tables a command works on, where groups of users have schemas (decision 0066).

Where they have none, nothing here does, asks or loads anything. Routes are entered with the
database in reach: `run_operation(settings, work, route=routed_to_user(user))`.
"""

import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from src.cli.reach import get_settings, migrated_database
from src.common.exceptions import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from src.common.postgres.session_makers import BeginsSessions

T = TypeVar("T")


def is_sharding() -> bool:
    """Whether each group of users has a schema of its own."""
    return get_settings().sharding == "schemas"


@contextmanager
def routed_to_user(email_or_id: str | None) -> "Generator[None]":
    """Have what opens a session within the block see the user of this e-mail or id; None: nobody.

    Raises:
        NotFound: USER_NOT_FOUND.
    """
    if email_or_id is None or not is_sharding():
        yield
        return
    from src.common.database import read_from_database
    from src.common.routing import routed_to
    from src.common.sharding.directory import user_of_email

    try:
        user_id: uuid.UUID | None = uuid.UUID(email_or_id)
    except ValueError:
        user_id = read_from_database(
            lambda session: user_of_email(session.connection(), email_or_id)
        )
    if user_id is None:
        raise NotFound(f"No user has the e-mail {email_or_id}", "USER_NOT_FOUND")
    with routed_to(user_id):
        yield


@contextmanager
def routed_to_newcomer() -> "Generator[None]":
    """Have a user who is made within the block be of the open group with the fewest users."""
    if not is_sharding():
        yield
        return
    from src.common.routing import routed_to_sign_up

    with routed_to_sign_up():
        yield


@contextmanager
def routed_to_purchase(transaction_id: uuid.UUID | None) -> "Generator[None]":
    """Have what opens a session within the block see this purchase; None: nobody's.

    Raises:
        NotFound: TRANSACTION_NOT_FOUND.
    """
    if transaction_id is None or not is_sharding():
        yield
        return
    from src.common import routing_to_purchases

    with routing_to_purchases.routed_to_purchase(transaction_id):
        yield


@contextmanager
def routed_to_payment(stripe_object_id: str, user: str | None) -> "Generator[None]":
    """Have what opens a session within the block see whose this unmatched payment is or becomes.

    That is who bought it, else the `user` of this e-mail or id, else whom the payment names. Nobody
    is seen where it is nobody's.

    Raises:
        NotFound: USER_NOT_FOUND.
    """
    if not is_sharding():
        yield
        return
    from src.common.database import read_from_database
    from src.common.postgres.routes import routed_to_schema
    from src.common.purchases.whose import group_of_unmatched

    group = read_from_database(
        lambda session: group_of_unmatched(session.connection(), stripe_object_id)
    )
    if group.is_certain or user is None:
        with routed_to_schema(group.schema):
            yield
    else:
        with routed_to_user(user):
            yield


@contextmanager
def routed_to_approval(approval_id: uuid.UUID) -> "Generator[None]":
    """Have what opens a session within the block see whom a request for consent is about.

    That is any group where it is about nobody: there it finds nothing.

    Raises:
        NotFound: APPROVAL_NOT_FOUND.
        SettingsError: it is about nobody, and there is no group yet.
    """
    if not is_sharding():
        yield
        return
    from src.common.approvals.queries import user_of_approval
    from src.common.database import read_from_database
    from src.common.postgres.routes import routed_to_schema
    from src.common.routing import ask_everybodys, routed_to
    from src.common.sharding.groups import any_group

    user_id = read_from_database(lambda session: user_of_approval(session, approval_id))
    with routed_to_schema(ask_everybodys(any_group)) if user_id is None else routed_to(user_id):
        yield


def id_in_reach(user: str) -> uuid.UUID:
    """The id of the user of this e-mail or id, by a look at the database of its own.

    Raises:
        NotFound: USER_NOT_FOUND.
    """
    from src.cli.users import id_of

    with migrated_database(get_settings()):
        return id_of(user)


def sessions_of_all() -> "list[BeginsSessions]":
    """What makes the sessions that see each group of users, with the database in reach.

    That is one which sees all where groups have no schemas.
    """
    from src.common.database import SessionLocal
    from src.common.postgres.session_makers import SessionsOfGroup
    from src.common.routing import all_groups

    if not is_sharding():
        return [SessionLocal]
    return [SessionsOfGroup(SessionLocal, group) for group in all_groups()]


def in_each_group(read: "Callable[[], T]") -> "list[T]":
    """What `read`, which reaches the database by itself, finds in each group of users.

    Once, and in all at once, where groups have no schemas.
    """
    if not is_sharding():
        return [read()]
    from src.common.postgres.routes import routed_to_schema
    from src.common.routing import all_groups

    with migrated_database(get_settings()):
        groups = all_groups()
    found: list[T] = []
    for group in groups:
        with routed_to_schema(group):
            found.append(read())
    return found


def in_first_group(read: "Callable[[], T]") -> T:
    """What `read` finds in the first group of users that has what it looks for.

    Raises:
        NotFound: what `read` raises where none has.
    """
    if not is_sharding():
        return read()
    missing: list[NotFound] = []

    def look() -> "T | None":
        try:
            return read()
        except NotFound as error:
            missing.append(error)
            return None

    found = [each for each in in_each_group(look) if each is not None]
    if not found:
        raise missing[0] if missing else NotFound("There are no users yet", "NOT_FOUND")
    return found[0]
