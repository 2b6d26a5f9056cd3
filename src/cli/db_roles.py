"""`flashslides db grant-runtime`: the role a deployed service connects as."""

from typing import Annotated

import typer

from src.cli.output import say
from src.cli.reach import database_in_reach, get_settings


def register(app: typer.Typer) -> None:
    """Add the command to the `db` group."""
    app.command("grant-runtime")(grant)


def grant(
    role: Annotated[str, typer.Argument(help="The role the service will connect as.")],
) -> None:
    """Give a role the privileges that a running service needs, and no more.

    The role is made if it does not exist. It can do every operation of the ledger, and cannot
    change what was written. Run this again after each migration.
    """
    from src.common.database import get_engine
    from src.common.postgres.runtime_role import grant_runtime

    with database_in_reach(get_settings()), get_engine().begin() as connection:
        made = grant_runtime(connection, role)
    say(f"{role} may run the service.")
    if made:
        say(f"It is new and has no password: ALTER ROLE {role} PASSWORD '…'", err=True)
