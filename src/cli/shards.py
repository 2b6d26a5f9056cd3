"""`flashslides shards …`: groups of users with a schema each (decision 0066)."""

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from src.cli.output import AsJson, print_json, print_record, print_rows, progress, say
from src.cli.reach import get_settings, migrated_database
from src.cli.shards_copy import copy
from src.common.exceptions import NotFound, SettingsError

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy import Connection

    from src.common.settings import Settings
    from src.common.sharding.groups import Group

app = typer.Typer(
    help="Groups of users, where SHARDING is schemas: create, list, assign, balance, move, copy.",
    no_args_is_help=True,
)
app.command("copy")(copy)
GroupName = Annotated[str, typer.Argument(metavar="GROUP", help="A group's name, such as g0001.")]
_NO_GROUPS = "There are no groups yet: `flashslides shards create` makes one."


@app.command("create")
def create(
    *,
    count: Annotated[int, typer.Option(min=1, max=1_000, help="How many.")] = 1,
    is_open: Annotated[
        bool, typer.Option("--open/--closed", help="Whether newcomers come there at once.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Make groups, ahead of the users who will be in them.

    Each gets a schema with all tables of users. That takes seconds. A command that was interrupted
    is repeated: it goes on where it stopped.
    """
    from src.common.sharding.creation import create_groups

    with _groups_in_reach() as settings:
        made: list[str] = []
        with (
            progress(transient=True) as bars,
            closing(create_groups(settings, count, is_open=is_open)) as created,
        ):
            task = bars.add_task("Groups", total=count)
            for schema in created:
                made.append(schema)
                bars.update(task, advance=1)
    if as_json:
        print_json({"created": made})
    else:
        say(f"Made {', '.join(made)}.")


@app.command("list")
def list_groups(*, as_json: AsJson = False) -> None:
    """List the groups: how many users each had when they were counted, its revision and node.

    The node is a worker of Citus's; there is none to name without Citus.
    """
    from src.common.database import read_from_database

    with _groups_in_reach():
        rows = read_from_database(lambda session: _listed(session.connection()))
    print_rows(rows, as_json=as_json, empty=_NO_GROUPS)


@app.command("assign")
def assign(
    group: GroupName,
    *,
    is_open: Annotated[
        bool, typer.Option("--open/--closed", help="Whether newcomers are assigned to it.")
    ],
    as_json: AsJson = False,
) -> None:
    """Say whether newcomers are assigned to a group.

    Among the open groups, each newcomer goes to the one with the fewest users.
    """
    from src.common.database import run_in_database_transaction
    from src.common.sharding.groups import open_or_close

    with _groups_in_reach():
        is_there = run_in_database_transaction(
            lambda session: open_or_close(session.connection(), group, is_open=is_open)
        )
    if not is_there:
        raise NotFound(f"There is no group {group}", "GROUP_NOT_FOUND")
    print_record({"schema": group, "is_open": is_open}, as_json=as_json)


@app.command("balance")
def balance(*, as_json: AsJson = False) -> None:
    """Count the users of every group anew, by which newcomers are assigned.

    Shows how far each group is from the average. Users who are there stay where they are: that a
    group moves to another node needs Citus.
    """
    from src.common.database import run_in_database_transaction
    from src.common.sharding import groups

    with _groups_in_reach():
        counted = run_in_database_transaction(
            lambda session: groups.count_and_list(session.connection())
        )
    average = sum(each.users_count for each in counted) / max(len(counted), 1)
    rows = [
        {**_shown(each), "above_average": round(each.users_count - average)} for each in counted
    ]
    print_rows(rows, as_json=as_json, empty=_NO_GROUPS)


@app.command("move")
def move(
    group: GroupName,
    node: Annotated[str, typer.Argument(help="The Citus worker to move it to, as host:port.")],
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be moved, and move nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Move a group to another worker of Citus's, while its users go on.

    Citus copies its tables, and follows what is written meanwhile. At the end writes to the group
    wait for a moment. You may kill this command: the group is where it was, or where it was to go.
    """
    from src.common.sharding.moving import moving, parse_node

    target = parse_node(node)
    with _groups_in_reach() as settings, moving(settings, group, target) as mover:
        is_moved = mover.move.is_needed and not dry_run
        if is_moved:
            with progress(transient=True) as bars:
                task = bars.add_task("Bytes copied", total=mover.move.size_bytes)
                mover.run(lambda copied: bars.update(task, completed=copied))
    moved = {
        "schema": group,
        "from": str(mover.move.source),
        "to": str(target),
        "size_bytes": mover.move.size_bytes,
        "is_moved": is_moved,
    }
    print_record(moved, as_json=as_json)


@contextmanager
def _groups_in_reach() -> "Generator[Settings]":
    """The database, where users are in groups.

    Raises:
        SettingsError: they are not.
    """
    from src.common.database_settings import Sharding

    settings = get_settings()
    with migrated_database(settings):
        if settings.sharding is Sharding.NONE:
            raise SettingsError("SHARDING is none: users are in no groups. Set SHARDING=schemas")
        yield settings


def _listed(connection: "Connection") -> list[dict[str, Any]]:
    from src.common.sharding import groups
    from src.common.sharding.citus import nodes_of_groups

    nodes = nodes_of_groups(connection)
    return [
        {
            **_shown(group),
            "revision": groups.revision_of(connection, group),
            "node": str(nodes[group.schema]) if group.schema in nodes else None,
        }
        for group in groups.list_groups(connection)
    ]


def _shown(group: "Group") -> dict[str, Any]:
    """Nobody knows how many users there are, until they were counted."""
    never = {"users_count": None} if group.counted_at is None else {}
    return group._asdict() | never
