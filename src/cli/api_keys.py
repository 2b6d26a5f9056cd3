"""`flashslides api-key …`: keys of other services."""

import datetime as dt
import uuid
from typing import TYPE_CHECKING, Annotated, Any

import typer

from src.cli.approvals import print_asked
from src.cli.choices import SCOPES
from src.cli.output import AsJson, operator, print_record, print_rows
from src.cli.reach import get_settings, run_operation, run_reading

if TYPE_CHECKING:
    from src.common.models.api_key import ApiKey

app = typer.Typer(help="API keys of services: create, revoke, list.", no_args_is_help=True)


@app.command("create")
def create(
    *,
    scopes: Annotated[
        str, typer.Option(help=f"What it may do, separated by commas: {', '.join(SCOPES)}.")
    ],
    service: Annotated[
        str,
        typer.Option(
            help="The name of the service that calls. It stays the same when the key is rotated."
        ),
    ] = "default",
    expires_in_days: Annotated[
        int | None,
        typer.Option(min=1, max=36_500, help="After how many days it expires. Default: never."),
    ] = None,
    reason: Annotated[
        str | None, typer.Option(help="What for. Needed where another person has to consent.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it.

    It cannot be printed again, because only its hash is kept. Where APPROVALS_REQUIRED says so, a
    key that can move credits or pay money back works once another person has consented.
    """
    from src.common.approvals import keys
    from src.common.approvals.rules import Limits

    settings = get_settings()
    expires_at = (
        dt.datetime.now(dt.UTC) + dt.timedelta(days=expires_in_days) if expires_in_days else None
    )
    made = run_operation(
        settings,
        lambda session: keys.create_or_ask(
            session,
            service_name=service,
            scopes=[scope.strip() for scope in scopes.split(",") if scope.strip()],
            expires_at=expires_at,
            requester=operator(),
            reason=reason,
            request_key=f"cli:{uuid.uuid4()}",
            limits=Limits.of(settings) if settings.approvals_required else None,
        ),
    )
    if isinstance(made, keys.AskedKey):
        print_asked(made.asked, as_json=as_json, key=made.key)
        return
    shown = {
        "key_id": made.record.key_id,
        "key": made.key,
        "scopes": made.record.scopes,
        "expires_at": made.record.expires_at,
    }
    print_record(shown, as_json=as_json)


@app.command("revoke")
def revoke(
    key_id: Annotated[uuid.UUID, typer.Argument(help="The key's id, from `api-key list`.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Revoke a key. Processes refuse it within API_KEY_CACHE_SECONDS."""
    from src.common.accounts import api_keys

    record = run_operation(get_settings(), lambda session: api_keys.revoke_api_key(session, key_id))
    print_record(_shown(record), as_json=as_json)


@app.command("list")
def list_keys(*, as_json: AsJson = False) -> None:
    """List the names, scopes and dates of all keys, newest first."""
    from src.common.accounts import api_keys

    records = run_reading(get_settings(), api_keys.list_api_keys)
    print_rows(list(map(_shown, records)), as_json=as_json, empty="There are no API keys yet.")


def _shown(record: "ApiKey") -> dict[str, Any]:
    return {
        "key_id": record.key_id,
        "service": record.service_name,
        "last_four": record.last_four,
        "scopes": record.scopes,
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "revoked_at": record.revoked_at,
    }
