"""`flashslides notices endpoints …`: who is told what happens to credits and purchases."""

import uuid
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from src.cli.choices import NoticeTypeName
from src.cli.output import AsJson, confirm, print_record, print_rows
from src.cli.reach import get_settings, run_operation, run_reading

if TYPE_CHECKING:
    from src.common.models.notice_endpoint import NoticeEndpoint

app = typer.Typer(help="Endpoints: who is told, and of what.", no_args_is_help=True)

EndpointId = Annotated[uuid.UUID, typer.Argument(help="The endpoint's id, from `list`.")]
Types = Annotated[
    str | None,
    typer.Option(
        help=f"What it is told of, separated by commas: {', '.join(get_args(NoticeTypeName))}."
    ),
]
LowThreshold = Annotated[
    int | None,
    typer.Option(
        help="`credits.low` is told when a balance falls to so many credits, or below. It is told"
        " again only after the balance was above."
    ),
]
ExpiringLead = Annotated[
    int | None,
    typer.Option(help="How long before credits expire `credits.expiring` is told."),
]


@app.command("list")
def list_endpoints(*, as_json: AsJson = False) -> None:
    """List all endpoints, the oldest first, without their secrets."""
    from src.common.notices import endpoints

    found = run_reading(get_settings(), endpoints.list_endpoints)
    rows = [_shown(each) if as_json else _row(each) for each in found]
    print_rows(rows, as_json=as_json, empty="There are no endpoints: nobody is told anything.")


@app.command("create")
def create(
    url: Annotated[str, typer.Argument(help="Where notices are sent: https:// and so on.")],
    *,
    types: Types = None,
    low_threshold: LowThreshold = None,
    expiring_lead_seconds: ExpiringLead = None,
    as_json: AsJson = False,
) -> None:
    """Have an address told of all that is committed from now on; print the secret that signs it.

    Without `--types` that is everything, but for each spend, and `credits.low` and
    `credits.expiring` where no threshold or lead is given. The secret is not printed again.
    """
    from src.common.notices import endpoints
    from src.common.notices.rules import subscription

    settings = get_settings()
    wanted = subscription(
        url=url,
        types=_split(types),
        low_threshold=low_threshold,
        expiring_lead_seconds=expiring_lead_seconds,
        is_local=settings.is_local,
    )
    made = run_operation(settings, lambda session: endpoints.create_endpoint(session, wanted))
    print_record({**_shown(made.endpoint), "secret": made.secret}, as_json=as_json)


@app.command("update")
def update(
    endpoint_id: EndpointId,
    *,
    url: Annotated[str | None, typer.Option(help="Where notices are sent from now on.")] = None,
    types: Types = None,
    low_threshold: LowThreshold = None,
    expiring_lead_seconds: ExpiringLead = None,
    as_json: AsJson = False,
) -> None:
    """Change where an endpoint is, or what it is told of; what is not given stays."""
    from src.common.notices import endpoints

    settings = get_settings()
    changed = run_operation(
        settings,
        lambda session: endpoints.update_endpoint(
            session,
            endpoint_id,
            url=url,
            types=_split(types),
            low_threshold=low_threshold,
            expiring_lead_seconds=expiring_lead_seconds,
            is_local=settings.is_local,
        ),
    )
    print_record(_shown(changed), as_json=as_json)


@app.command("rotate-secret")
def rotate_secret(
    endpoint_id: EndpointId,
    *,
    overlap_seconds: Annotated[
        int, typer.Option(help="How long the older secret signs beside the new one. 0: no longer.")
    ] = 86_400,
    as_json: AsJson = False,
) -> None:
    """Make a new secret and print it, once."""
    from src.common.notices import endpoints

    made = run_operation(
        get_settings(),
        lambda session: endpoints.rotate_secret(
            session, endpoint_id, overlap_seconds=overlap_seconds
        ),
    )
    print_record({"endpoint_id": made.endpoint.endpoint_id, "secret": made.secret}, as_json=as_json)


@app.command("disable")
def disable(endpoint_id: EndpointId, *, as_json: AsJson = False) -> None:
    """Tell an endpoint nothing more. What it was still to be told waits until it is enabled."""
    from src.common.notices import endpoints

    changed = run_operation(
        get_settings(),
        lambda session: endpoints.disable_endpoint(
            session, endpoint_id, reason=endpoints.DISABLED_BY_HAND
        ),
    )
    print_record(_shown(changed), as_json=as_json)


@app.command("enable")
def enable(endpoint_id: EndpointId, *, as_json: AsJson = False) -> None:
    """Tell an endpoint again, from now on. What happened while it was disabled it is not told."""
    from src.common.notices import endpoints

    changed = run_operation(
        get_settings(), lambda session: endpoints.enable_endpoint(session, endpoint_id)
    )
    print_record(_shown(changed), as_json=as_json)


@app.command("delete")
def delete(
    endpoint_id: EndpointId,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Forget an endpoint, its secrets, and what it was still to be told."""
    from src.common.notices import endpoints

    if not yes:
        confirm(f"Delete the endpoint {endpoint_id}? What it was still to be told is lost")
    run_operation(get_settings(), lambda session: endpoints.delete_endpoint(session, endpoint_id))
    print_record({"endpoint_id": endpoint_id, "status": "deleted"}, as_json=as_json)


def _split(types: str | None) -> list[str] | None:
    if types is None:
        return None
    return [each.strip() for each in types.split(",") if each.strip()]


def _row(endpoint: "NoticeEndpoint") -> dict[str, Any]:
    """For people, a line that fits: most endpoints are told of nearly everything."""
    types = endpoint.types
    others = [each for each in get_args(NoticeTypeName) if each not in types]
    in_short = ", ".join(types)
    if len(others) < len(types):
        in_short = f"all but {', '.join(others)}" if others else "all"
    return {**_shown(endpoint), "types": in_short}


def _shown(endpoint: "NoticeEndpoint") -> dict[str, Any]:
    return {
        "endpoint_id": endpoint.endpoint_id,
        "url": endpoint.url,
        "status": "enabled" if endpoint.disabled_at is None else "disabled",
        "types": endpoint.types,
        "low_threshold": endpoint.low_threshold,
        "expiring_lead_seconds": endpoint.expiring_lead_seconds,
        "created_at": endpoint.created_at,
        "disabled_at": endpoint.disabled_at,
        "disabled_reason": endpoint.disabled_reason,
    }
