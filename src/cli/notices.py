"""`flashslides notices …`: what others are told, what became of it, telling it again."""

import time
import uuid
from typing import TYPE_CHECKING, Annotated, Any

import typer

from src.cli import notice_endpoints
from src.cli.choices import NoticeStatusName, NoticeTypeName
from src.cli.instants import EXAMPLES, TimeZone, instant
from src.cli.output import AsJson, print_json_line, print_record, say
from src.cli.pages import Cursor, Limit, print_page
from src.cli.reach import get_settings, migrated_database
from src.cli.users import id_of
from src.cli.whose import is_sharding, routed_to_user
from src.common.exceptions import Invalid
from src.common.time_zones import UTC

if TYPE_CHECKING:
    from collections.abc import Mapping

    from src.common.models.credit_notice import CreditNotice
    from src.common.notices.queries import NoticeFilter, Tail
    from src.common.postgres.pagination import Page

app = typer.Typer(
    help="Notices: what others are told of credits and purchases.", no_args_is_help=True
)
app.add_typer(notice_endpoints.app, name="endpoints")

Type = Annotated[NoticeTypeName | None, typer.Option("--type", help="Only notices of this type.")]
User = Annotated[str | None, typer.Option(help="Only of this user: e-mail or id.")]
EndpointId = Annotated[
    uuid.UUID | None, typer.Option("--endpoint", help="Only for the endpoint with this id.")
]
Since = Annotated[
    str | None,
    typer.Option(help=f"Only of what happened from this instant on, as {EXAMPLES}."),
]
Until = Annotated[str | None, typer.Option(help="Only of what happened before this instant.")]
Status = Annotated[
    NoticeStatusName | None, typer.Option(help="Only notices that have come so far.")
]


@app.command("list")
def list_notices(
    *,
    notice_type: Type = None,
    status: Status = None,
    user: User = None,
    endpoint_id: EndpointId = None,
    since: Since = None,
    until: Until = None,
    time_zone: TimeZone = UTC,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """List notices and what became of them, newest first."""
    from src.common.database import read_from_database
    from src.common.notices import queries

    with migrated_database(get_settings()), routed_to_user(user):
        wanted = _wanted(notice_type, status, user, endpoint_id, since, until, time_zone)
        if user is None and is_sharding():
            page = _page_of_groups(wanted, limit, cursor)
        else:
            page = read_from_database(
                lambda session: queries.list_notices(session, wanted, limit=limit, cursor=cursor)
            )
    rows = [_answered(each) if as_json else _row(each) for each in page.items]
    print_page(rows, page.next_cursor, as_json=as_json, empty="No notice is as asked for.")


def _page_of_groups(wanted: "NoticeFilter", limit: int, cursor: str | None) -> "Page[CreditNotice]":
    from functools import partial

    from src.common.database import read_from_database
    from src.common.notices.everybodys import merge_notices, read_places
    from src.common.notices.queries import list_notices
    from src.common.postgres.routes import routed_to_schema
    from src.common.routing import all_groups

    places = read_places(cursor)
    pages: dict[str, Page[CreditNotice]] = {}
    for group in all_groups():
        read = partial(list_notices, wanted=wanted, limit=limit, cursor=places.get(group))
        with routed_to_schema(group):
            pages[group] = read_from_database(read)
    return merge_notices(pages, limit)


@app.command("replay")
def replay(
    notice_id: Annotated[str | None, typer.Argument(help="`ntc_…`: this notice alone.")] = None,
    *,
    notice_type: Type = None,
    status: Status = None,
    user: User = None,
    endpoint_id: EndpointId = None,
    since: Since = None,
    until: Until = None,
    time_zone: TimeZone = UTC,
    as_json: AsJson = False,
) -> None:
    """Have notices sent again, with the ids they have: one, or all that the options choose.

    The options choose among those that were delivered or given up.
    """
    from src.common.database import run_in_database_transaction
    from src.common.notices import replay as replaying
    from src.common.postgres.routes import routed_to_schema

    chooses = any((notice_type, status, user, endpoint_id, since, until))
    if chooses == (notice_id is not None):
        raise Invalid(
            "Name one notice, or choose some by --type, --status, --user, --endpoint, --since or"
            " --until",
            "VALIDATION_ERROR",
        )
    with migrated_database(get_settings()), routed_to_user(_whose(notice_id, user)):
        if notice_id is not None:
            one = notice_id
            run_in_database_transaction(lambda session: replaying.replay_notice(session, one))
            replayed = 1
        else:
            wanted = _wanted(notice_type, status, user, endpoint_id, since, until, time_zone)
            replayed = 0
            for route in _routes(user):
                with routed_to_schema(route):
                    replayed += _replay_all(wanted)
    print_record({"replayed": replayed}, as_json=as_json)


def _routes(user: str | None) -> "list[str | None]":
    """Which groups to look at, with the database in reach: the user's, which was entered, or all.

    That is None where groups have no schemas.
    """
    from src.common.postgres.routes import current_route
    from src.common.routing import all_routes

    return all_routes() if user is None else [current_route()]


def _whose(notice_id: str | None, user: str | None) -> str | None:
    """The user of whom are the notices, by e-mail or id; None where that does not tell."""
    from src.common.notices.ids import parse_notice_id

    key = None if notice_id is None else parse_notice_id(notice_id)
    return user if key is None else str(key[0])


def _replay_all(wanted: "NoticeFilter") -> int:
    """Step by step, each in a database transaction of its own: it may be very many."""
    from functools import partial

    from src.common.database import run_in_database_transaction
    from src.common.notices.replay import replay_matching

    replayed, after = 0, 0
    while True:
        step = run_in_database_transaction(partial(replay_matching, wanted=wanted, after=after))
        replayed += step.replayed
        if step.next_number is None:
            return replayed
        after = step.next_number


@app.command("tail")
def tail(
    *,
    notice_type: Type = None,
    user: User = None,
    endpoint_id: EndpointId = None,
    interval_seconds: Annotated[
        float, typer.Option(min=0.1, max=60, help="How often to look.")
    ] = 1.0,
    limit: Annotated[
        int | None, typer.Option(min=1, help="End after so many. Default: until Ctrl-C.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print each notice when it is committed, whether or not it is delivered; a line each.

    There are notices only of what an endpoint wants to be told. With `--json` a line is the
    document that is sent, with its id.
    """
    from src.common.models.credit_notice import NoticeType
    from src.common.notices.queries import NoticeFilter, Tail

    kind = None if notice_type is None else NoticeType(notice_type)
    printed = 0
    with migrated_database(get_settings()), routed_to_user(user):
        user_id = None if user is None else id_of(user)
        wanted = NoticeFilter(user_id=user_id, endpoint_id=endpoint_id, type=kind)
        watched = {route: Tail(wanted) for route in _routes(user)}
        _look(watched)
        say("Waiting for notices. Ctrl-C ends.", err=True)
        while limit is None or printed < limit:
            for route in _routes(user):  # groups may be made meanwhile
                watched.setdefault(route, Tail.from_the_first(wanted))
            came = _look(watched)
            for notice in came[: None if limit is None else limit - printed]:
                _print_line(notice, as_json=as_json)
                printed += 1
            if not came:
                time.sleep(interval_seconds)


def _look(watched: "Mapping[str | None, Tail]") -> "list[CreditNotice]":
    """What came in any of these groups since the last look, oldest first."""
    from src.common.database import read_from_database
    from src.common.notices.everybodys import oldest_first
    from src.common.postgres.routes import routed_to_schema

    came: list[CreditNotice] = []
    for route, tail_of_group in watched.items():
        with routed_to_schema(route):
            came += read_from_database(tail_of_group.look)
    return came if len(watched) == 1 else oldest_first(came)


def _print_line(notice: "CreditNotice", *, as_json: bool) -> None:
    from src.common.notices.ids import notice_id

    name = notice_id(notice.user_id, notice.number)
    if as_json:
        sent = {"type": notice.type, "timestamp": notice.created_at, "data": notice.data}
        print_json_line({"id": name, **sent})
        return
    told = {**notice.data, "id": name}
    facts = (f"{key}={value}" for key, value in told.items() if value is not None)
    say(f"{notice.created_at:%Y-%m-%d %H:%M:%S}  {notice.type}  {'  '.join(facts)}")


def _wanted(
    notice_type: NoticeTypeName | None,
    status: NoticeStatusName | None,
    user: str | None,
    endpoint_id: uuid.UUID | None,
    since: str | None,
    until: str | None,
    time_zone: str,
) -> "NoticeFilter":
    from src.common.models.credit_notice import NoticeStatus, NoticeType
    from src.common.notices.queries import NoticeFilter

    return NoticeFilter(
        user_id=None if user is None else id_of(user),
        endpoint_id=endpoint_id,
        type=None if notice_type is None else NoticeType(notice_type),
        status=None if status is None else NoticeStatus(status),
        since=instant("--since", since, time_zone),
        until=instant("--until", until, time_zone),
    )


def _answered(notice: "CreditNotice") -> dict[str, Any]:
    from src.common.notices.ids import notice_id

    return {
        "id": notice_id(notice.user_id, notice.number),
        "type": notice.type,
        "user_id": notice.user_id,
        "seq": notice.seq,
        "endpoint_id": notice.endpoint_id,
        "status": notice.status,
        "attempts": notice.attempts,
        "created_at": notice.created_at,
        "next_attempt_at": notice.next_attempt_at,
        "finished_at": notice.finished_at,
        "response_status": notice.response_status,
        "error": notice.error,
        "data": notice.data,
    }


def _row(notice: "CreditNotice") -> dict[str, Any]:
    """For people: what there is no room for is in the JSON."""
    shown = _answered(notice)
    return {
        name: shown[name]
        for name in ("id", "type", "seq", "status", "attempts", "created_at", "error")
    }
