"""What is refused where groups of users have schemas: wrong routes and settings."""

import uuid
from collections.abc import Iterable

from sqlalchemy import Connection

from src.common.database_settings import Sharding
from src.common.exceptions import SettingsError
from src.common.postgres.routes import WrongShard, is_sharded, route_of
from src.common.postgres.sides import Side, side_here
from src.common.settings import Settings
from src.common.sharding import directory
from src.common.sharding.citus import refuse_what_citus_cannot

NOT_DIVIDED = (
    "SHARDING=schemas: this database does not keep its users in groups yet: run `flashslides db "
    "upgrade` first"
)
DIVIDED = "This database keeps its users in groups: set SHARDING=schemas"


def refuse_other_division(connection: Connection, settings: Settings) -> None:
    """Stop who was told that users are in groups, or that they are in none, and it is not so.

    Raises:
        SettingsError: the database is not as SHARDING says.
    """
    refuse_undivided(connection, settings)
    if settings.sharding is Sharding.NONE and side_here(connection) is Side.EVERYBODY:
        raise SettingsError(DIVIDED)


def refuse_undivided(connection: Connection, settings: Settings) -> None:
    """Stop who would look for groups in a database that keeps its users in `public`.

    Raises:
        SettingsError: the database is not as SHARDING says, or on Citus and the settings are not
            for that.
    """
    if settings.sharding is Sharding.NONE:
        return
    if side_here(connection) is not Side.EVERYBODY:
        raise SettingsError(NOT_DIVIDED)
    refuse_what_citus_cannot(connection, settings)


def refuse_other_groups(connection: Connection, user_ids: Iterable[uuid.UUID]) -> None:
    """Before it is said that there is no such user: the directory may know better.

    Raises:
        WrongShard: WRONG_SHARD, one of them is of another group than the one asked.
    """
    if not is_sharded(connection):
        return
    found = directory.groups_of(connection, user_ids)
    if set(found.values()) - {route_of(connection)}:
        raise WrongShard
