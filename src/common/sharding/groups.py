"""The groups that are there, and which of them newcomers go to.

A newcomer goes to the group with the fewest users, of those that are open. Their numbers were
counted at most a minute ago, by whoever then chose; the newcomers that this process has sent since
are added, so that those of one minute do not all go to one group. Of groups that are alike one is
drawn: many commands that each make a user all begin with the same count.
"""

import datetime as dt
import random
from collections import Counter
from threading import Lock
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, func, select, text, update

from src.common.exceptions import SettingsError
from src.common.models.directory import DirectoryUser
from src.common.models.user_group import UserGroup
from src.common.postgres.routes import is_group

COUNTED_EVERY = dt.timedelta(minutes=1)
_KEY_OF_COUNTING = 7_205_759_403_792_805
NO_GROUPS = (
    "SHARDING=schemas: there is no group that takes newcomers. Make one: `flashslides shards "
    "create`, or open one: `flashslides shards assign GROUP --open`"
)


class Group(NamedTuple):
    """A group as it was counted."""

    schema: str
    is_open: bool
    users_count: int
    counted_at: dt.datetime | None
    created_at: dt.datetime


class Newcomers:
    """Whom this process has sent where since the groups were last counted."""

    def __init__(self) -> None:
        self._sent: Counter[str] = Counter()
        self._counted_at: dict[str, dt.datetime | None] = {}
        self._lock = Lock()

    def choose(self, groups: list[Group]) -> str:
        """The group for one more newcomer, who is counted as sent."""
        with self._lock:
            for group in groups:
                if self._counted_at.get(group.schema) != group.counted_at:
                    self._counted_at[group.schema] = group.counted_at
                    self._sent[group.schema] = 0
            fewest = min(map(self._users_of, groups))
            alike = [each.schema for each in groups if self._users_of(each) == fewest]
            chosen = random.choice(alike)  # noqa: S311  processes that know as little choose others
            self._sent[chosen] += 1
            return chosen

    def _users_of(self, group: Group) -> int:
        return group.users_count + self._sent[group.schema]


def ready_groups(connection: Connection) -> list[str]:
    """All groups' schemas, in the order of their names."""
    return list(connection.scalars(select(UserGroup.schema).order_by(UserGroup.schema)))


def any_group(connection: Connection) -> str:
    """A group's schema, for what is about nobody and is looked up beside tables of users.

    Raises:
        SettingsError: there is no group yet.
    """
    found = ready_groups(connection)
    if not found:
        raise SettingsError(NO_GROUPS)
    return found[0]


def list_groups(connection: Connection) -> list[Group]:
    """All groups, in the order of their names."""
    columns = (
        *(UserGroup.schema, UserGroup.is_open, UserGroup.users_count),
        *(UserGroup.counted_at, UserGroup.created_at),
    )
    found = connection.execute(select(*columns).order_by(UserGroup.schema))
    return [Group(*row) for row in found]


def choose_group(connection: Connection, newcomers: Newcomers) -> str:
    """The open group with the fewest users.

    Counts anew what was counted more than a minute ago, unless somebody is at it. The caller
    commits that.

    Raises:
        SettingsError: no group is open.
    """
    is_due = select(func.coalesce(func.bool_or(func.coalesce(_IS_OLD, True)), False))
    if connection.execute(is_due).scalar_one() and _may_count(connection):
        count_users(connection)
    opened = [group for group in list_groups(connection) if group.is_open]
    if not opened:
        raise SettingsError(NO_GROUPS)
    return newcomers.choose(opened)


_IS_OLD = UserGroup.counted_at < func.statement_timestamp() - COUNTED_EVERY


def _may_count(connection: Connection) -> bool:
    """Whether nobody else counts; holds until the database transaction ends."""
    lock = text("SELECT pg_try_advisory_xact_lock(:key)")
    is_free: bool = connection.execute(lock, {"key": _KEY_OF_COUNTING}).scalar_one()
    return is_free


def count_users(connection: Connection) -> None:
    """Count every group's users anew, by the directory."""
    of_each = select(DirectoryUser.schema, func.count().label("users")).group_by(
        DirectoryUser.schema
    )
    counted = {each.schema: each.users for each in connection.execute(of_each)}
    noted = (
        update(UserGroup)
        .where(UserGroup.schema == bindparam("of"))
        .values(users_count=bindparam("number"), counted_at=func.statement_timestamp())
    )
    numbers = [{"of": each, "number": counted.get(each, 0)} for each in ready_groups(connection)]
    if numbers:  # no list of parameters would be one execution without any
        connection.execute(noted, numbers)


def count_and_list(connection: Connection) -> list[Group]:
    """All groups, counted anew; whoever counts at this moment is waited for."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _KEY_OF_COUNTING})
    count_users(connection)
    return list_groups(connection)


def revision_of(connection: Connection, group: Group) -> str | None:
    """The migration that a group's tables are at."""
    name = group.schema
    if not is_group(name):
        raise ValueError(f"{name!r} is no group's name")
    at = text(f"SELECT version_num FROM {name}.alembic_version")  # noqa: S608  a group's name
    return connection.scalars(at).one_or_none()


def open_or_close(connection: Connection, schema: str, *, is_open: bool) -> bool:
    """Have newcomers come to a group, or not; whether there is such a group."""
    changed = update(UserGroup).where(UserGroup.schema == schema).values(is_open=is_open)
    return connection.execute(changed).rowcount > 0
