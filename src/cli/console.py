"""`flashslides console …`: ways into the console on a developer's machine."""

from typing import TYPE_CHECKING, Annotated

import typer

from src.cli.choices import ConsoleRoleName
from src.cli.output import operator, say
from src.cli.reach import get_settings, run_operation
from src.common.exceptions import Forbidden, Invalid

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

app = typer.Typer(help="The console: links that sign in.", no_args_is_help=True)


@app.command("link")
def link(
    *,
    name: Annotated[
        str | None,
        typer.Option(help="Who signs in. Default: the account that runs the command."),
    ] = None,
    role: Annotated[ConsoleRoleName, typer.Option(help="As what they work.")] = "admin",
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="The port that `flashslides serve` listens on. Default: API_PORT, 8000.",
        ),
    ] = None,
) -> None:
    """Print a link that signs in to the console, once, within the hour. With ENV=local only.

    With another `--name` it signs in another person: two are needed where one asks and another
    consents.
    """
    settings = get_settings()
    if not settings.is_local:
        raise Forbidden(
            "Links are for ENV=local: people sign in at the identity provider here", "FORBIDDEN"
        )
    who = own_name() if name is None else name.strip()
    if not who or "\x00" in who:
        raise Invalid("name: needs a name", "VALIDATION_ERROR", field="name")
    path = run_operation(settings, lambda session: path_of_link(session, who, role))
    say(f"http://localhost:{settings.api_port if port is None else port}{path}")


def own_name() -> str:
    """The account that runs the command."""
    return operator().rpartition(":")[2]


def path_of_link(session: "Session", name: str, role: ConsoleRoleName = "admin") -> str:
    """Below the service's address: a page with a token that signs this person in once."""
    from src.console import sessions
    from src.console.permissions import Role

    token = sessions.make_link(session, sessions.local_identity(name, (Role(role),)))
    return f"/console/sign-in/link?token={token}"
