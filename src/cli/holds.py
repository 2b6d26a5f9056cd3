"""`flashslides credits holds …`: what is set aside, of one user or everybody's; giving it back."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from src.cli.choices import HoldStatusName
from src.cli.credits import hold_as_answered, hold_record, read
from src.cli.moves import DryRun, Key, move
from src.cli.output import AsJson
from src.cli.pages import Cursor, Limit, print_page
from src.cli.reach import get_settings, run_reading
from src.cli.users import EmailOrId
from src.cli.whose import in_each_group
from src.common.exceptions import Invalid

if TYPE_CHECKING:
    from src.common.credits.domain.views import HoldState
    from src.common.credits.open_holds import OpenHold
    from src.common.postgres.pagination import Page

app = typer.Typer(help="Holds: list, release.", no_args_is_help=True)


@app.command("list")
def list_holds(
    user: Annotated[str | None, typer.Argument(help="The user's e-mail or id.")] = None,
    *,
    everybody: Annotated[bool, typer.Option("--all", help="Everybody's open holds.")] = False,
    status: Annotated[
        HoldStatusName | None, typer.Option(help="Only holds of this status. With --all: open.")
    ] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """List the holds of a user, newest first. With --all, list the open holds of everybody.

    With --all, the hold that was opened first comes first. A hold counts as expired from its
    instant on, whether or not that is booked yet.
    """
    if everybody and user is not None:
        raise Invalid("Name a user or --all, not both", "VALIDATION_ERROR")
    if not everybody and user is None:
        raise Invalid("Name a user, or --all", "VALIDATION_ERROR")
    if everybody and status not in (None, "open"):
        raise Invalid("status: --all lists open holds", "VALIDATION_ERROR", field="status")
    from src.common.credits import queries
    from src.common.models.credit_hold import HoldStatus

    wanted = None if status is None else HoldStatus(status)
    page = (
        _everybodys(cursor, limit)
        if user is None
        else read(
            user,
            lambda session, user_id: queries.holds(
                session, user_id, cursor=cursor, limit=limit, status=wanted
            ),
        )
    )
    rows = list(map(_as_answered if as_json else _row, page.items))
    print_page(rows, page.next_cursor, as_json=as_json, empty="No hold is as asked for.")


@app.command("release")
def release(
    user: EmailOrId,
    seq: Annotated[int, typer.Argument(help="The hold's number, as `list` shows it.")],
    *,
    reason: Annotated[
        str | None, typer.Option(help="Why. Kept in the journal as the reference.")
    ] = None,
    key: Key = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Release an open hold. Credits that were not captured go back to the balance.

    Where APPROVALS_REQUIRED says so, more than APPROVALS_CREDITS_ABOVE is asked for, as giving is.
    """
    from src.common.credits.domain.commands import Release

    facts = {"hold_seq": seq, "reference": reason}
    move(Release, user, facts, key=key, dry_run=dry_run, as_json=as_json)


def _everybodys(cursor: str | None, limit: int) -> "Page[OpenHold]":
    from src.common.credits.open_holds import merge_holds, open_holds

    pages = in_each_group(
        lambda: run_reading(
            get_settings(), lambda session: open_holds(session, cursor=cursor, limit=limit)
        )
    )
    return pages[0] if len(pages) == 1 else merge_holds(pages, limit)


def _as_answered(found: "HoldState | OpenHold") -> dict[str, Any]:
    from src.common.credits.open_holds import OpenHold

    if isinstance(found, OpenHold):
        return {"user_id": found.user_id} | hold_as_answered(found.state)
    return hold_as_answered(found)


def _row(found: "HoldState | OpenHold") -> dict[str, Any]:
    from src.common.credits.open_holds import OpenHold

    if isinstance(found, OpenHold):
        return {"user_id": found.user_id} | _row(found.state)
    return {
        **hold_record(found),
        "opened_at": found.entry.effective_at,
        "reference": found.entry.reference,
        "actor": found.entry.actor,
    }
