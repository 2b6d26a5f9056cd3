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
    """Give a role the least a running service needs; makes the role where it is missing.

    It can do every operation and rewrite no history. Run it again after a migration.
    """
    from src.common.database import get_engine
    from src.common.postgres.runtime_role import grant_runtime

    with database_in_reach(get_settings()), get_engine().begin() as connection:
        made = grant_runtime(connection, role)
    say(f"{role} may run the service.")
    if made:
        say(f"It is new and has no password: ALTER ROLE {role} PASSWORD '…'", err=True)
