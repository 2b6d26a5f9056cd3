"""`flashslides stripe events`: what Stripe sent, what came of it."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from src.cli.choices import STRIPE_EVENT_STATUSES
from src.cli.instants import EXAMPLES, TimeZone, instant
from src.cli.output import AsJson, print_record, print_rows
from src.cli.reach import get_settings, run_operation, run_reading, run_with_stripe
from src.common.exceptions import Invalid
from src.common.time_zones import UTC

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from src.common.models.stripe_event import StripeEvent
    from src.common.stripe.gateway import Gateway
    from src.common.stripe.processing import InDatabase, Processor

events = typer.Typer(help="The inbox: every event Stripe sent.", no_args_is_help=True)

Limit = Annotated[int, typer.Option(min=1, max=1_000, help="How many at most.")]
EventId = Annotated[str, typer.Argument(help="`evt_…`")]
Type = Annotated[
    str | None, typer.Option("--type", help="Only events of this type, such as `charge.refunded`.")
]
Since = Annotated[
    str | None, typer.Option(help=f"Only events received from this instant on, as {EXAMPLES}.")
]
Until = Annotated[str | None, typer.Option(help="Only events received before this instant.")]


@events.command("list")
def list_events(
    *,
    event_type: Type = None,
    status: Annotated[
        str | None,
        typer.Option(help=f"Only events of this status: {', '.join(STRIPE_EVENT_STATUSES)}."),
    ] = None,
    since: Since = None,
    until: Until = None,
    time_zone: TimeZone = UTC,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List events and what became of them, newest first."""
    from src.common.stripe import inbox

    _check_status(status)
    begin, end = instant("--since", since, time_zone), instant("--until", until, time_zone)
    stored = run_reading(
        get_settings(),
        lambda session: inbox.events_matching(
            session,
            limit=limit,
            event_type=event_type,
            status=status,
            since=begin,
            until=end,
        ),
    )
    rows = [_summary(event) for event in stored]
    print_rows(rows, as_json=as_json, empty="The inbox has no such event.")


@events.command("show")
def show_event(event_id: EventId, *, as_json: AsJson = False) -> None:
    """Show one event with its body."""
    from src.common.stripe import inbox

    event = run_reading(get_settings(), lambda session: inbox.get_event(session, event_id))
    body = None if event.body is None else _readable(event.body)
    print_record(
        {
            **_summary(event),
            "livemode": event.livemode,
            "api_version": event.api_version,
            "object_id": event.object_id,
            "next_attempt_at": event.next_attempt_at,
            "processed_at": event.processed_at,
            "body": body if as_json or not isinstance(body, dict) else json.dumps(body, indent=1),
        },
        as_json=as_json,
    )


@events.command("replay")
def replay_events(
    event_id: Annotated[
        str | None, typer.Argument(help="`evt_…`. Left out: the events that the options select.")
    ] = None,
    *,
    event_type: Type = None,
    status: Annotated[
        str | None,
        typer.Option(
            help="Only events of this status. Processed events are never processed again."
        ),
    ] = None,
    since: Since = None,
    until: Until = None,
    time_zone: TimeZone = UTC,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """Settle stored events again, oldest first. Dead and ignored events too.

    If an event fails again, its new error is printed, the others are settled all the same, and the
    exit code is 1.
    """
    if event_id is None and event_type is None and status is None and since is None:
        raise Invalid("Name an event, or select by --type, --status or --since", "VALIDATION_ERROR")
    _check_status(status)
    begin, end = instant("--since", since, time_zone), instant("--until", until, time_zone)
    from src.cli.running_stripe import with_running_stripe
    from src.common.stripe import inbox
    from src.common.stripe.processing import Processor

    settings = with_running_stripe(get_settings())

    async def work(in_database: "InDatabase", gateway: "Gateway | None") -> list[dict[str, Any]]:
        def chosen(session: "Session") -> list[tuple[bool, str, bytes]]:
            if event_id is not None:
                found = [inbox.get_event(session, event_id)]
            else:
                found = list(
                    inbox.events_matching(
                        session,
                        limit=limit,
                        event_type=event_type,
                        status=status,
                        since=begin,
                        until=end,
                    )
                )
            return [
                (event.livemode, event.event_id, event.body)
                for event in reversed(found)
                if event.body is not None
            ]

        processor = Processor(in_database, gateway, settings)
        return [
            await _settled_again(processor, in_database, event)
            for event in await in_database(chosen)
        ]

    rows = run_with_stripe(settings, work)
    print_rows(rows, as_json=as_json, empty="The inbox has no such event with a body.")
    if any(row["answer"] == inbox.EventAnswer.ACCEPTED for row in rows):
        raise typer.Exit(1)


async def _settled_again(
    processor: "Processor", in_database: "InDatabase", event: tuple[bool, str, bytes]
) -> dict[str, Any]:
    """Settle a stored event, given as mode, id and body; what came of it."""
    livemode, event_id, body = event
    answer = await processor.settle_stored(body, livemode=livemode, event_id=event_id)
    stored = await _stored(in_database, event_id)
    return {
        "event_id": event_id,
        "type": stored.type,
        "answer": str(answer),
        "status": stored.status,
        "error": stored.error,
    }


@events.command("ignore")
def ignore_event(event_id: EventId, *, as_json: AsJson = False) -> None:
    """Give an event up: it is not tried again. `replay` can still settle it."""
    from src.common.stripe import inbox

    event = run_operation(get_settings(), lambda session: inbox.ignore_event(session, event_id))
    print_record(_summary(event), as_json=as_json)


def _readable(body: bytes) -> Any:
    """What a body says; the text of one that is no JSON."""
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


async def _stored(in_database: "InDatabase", event_id: str) -> "StripeEvent":
    from src.common.stripe import inbox

    return await in_database(lambda session: inbox.get_event(session, event_id))


def _summary(event: "StripeEvent") -> dict[str, Any]:
    return {
        "event_id": event.event_id,
        "type": event.type,
        "status": event.status,
        "attempts": event.attempts,
        "received_at": event.received_at,
        "error": event.error,
        "remark": event.remark,
    }


def _check_status(status: str | None) -> None:
    if status is not None and status not in STRIPE_EVENT_STATUSES:
        raise Invalid(
            f"status: must be one of {', '.join(STRIPE_EVENT_STATUSES)}",
            "VALIDATION_ERROR",
            field="status",
        )
