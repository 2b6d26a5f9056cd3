"""`flashslides verify`: recompute the books and name what differs."""

import os
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from src.cli.anchors import PublicKeys
from src.cli.anchors_compared import compare_with_anchors, open_anchors, print_compared
from src.cli.output import AsJson, print_json, print_rows, progress, say
from src.cli.replicas import FromReplica, answered_by, reader_in_reach, say_who_answered
from src.cli.users import id_of
from src.cli.whose import is_sharding, routed_to_user
from src.common.exceptions import Invalid

if TYPE_CHECKING:
    import uuid
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy.orm import Session

    from src.common.credits.verification.report import Report
    from src.common.models.credit_booking_failure import CreditBookingFailure
    from src.common.postgres.session_makers import BeginsSessions
    from src.common.replicas import Reader

_USERS_A_PROCESS = 10_000
"""Fewer are done before a process of their own has started."""
_JOBS_MAX = 4
"""By default: each has a connection of its own, and reads the database as fast as it can."""


def verify(
    *,
    user: Annotated[str | None, typer.Option(help="Only this user: e-mail or id.")] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Only this many users, chosen at random. With --anchors everybody's entries are "
            "compared all the same.",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many processes share the work. "
            "Default: one for each processor, at most 4, and fewer for few users.",
        ),
    ] = None,
    anchors: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Compare entries with the checkpoints of this sink too: a file, "
            "s3://bucket/prefix or https://….",
        ),
    ] = None,
    public_key: PublicKeys = None,
    from_replica: FromReplica = False,
    as_json: AsJson = False,
) -> None:
    """Check every user's books. Exit code 1 means that something is wrong.

    Each journal is replayed through the ledger's rules. What the rules write is compared with the
    tables, every column of every row. Users whom the worker could not book are named too, with the
    reason.

    With --anchors, each checkpoint's signature is verified, that each follows the one before, and
    that each user's entries, hashed again, are what it says. What does not fit is named: the entry,
    the user and the first checkpoint.
    """
    if user is not None and sample is not None:
        raise Invalid("Give --user or --sample, not both", "VALIDATION_ERROR")
    if public_key and anchors is None:
        raise Invalid("--public-key is for --anchors", "VALIDATION_ERROR")
    with reader_in_reach(from_replica=from_replica) as wished:
        # First: nobody waits for all books to learn that a key was mistyped.
        opened = None if anchors is None else open_anchors(anchors, public_key)
        _warn_of_an_open_schema()
        reader, told = _chosen(wished)
        report, unbookable = _verify(reader, user, sample, jobs)
        anchored = None if opened is None else compare_with_anchors(opened, user)
    if as_json:
        compared = {} if anchored is None else {"anchors": asdict(anchored)}
        print_json({**asdict(report), "unbookable": unbookable, **compared, **told})
    else:
        _print(report)
        _print_unbookable(unbookable)
        if anchored is not None:
            print_compared(anchored)
    if report.differences or unbookable or (anchored is not None and anchored.findings):
        raise typer.Exit(1)


def _warn_of_an_open_schema() -> None:
    from src.common.database import read_from_database
    from src.common.postgres.runtime_role import schema_open_to_public

    schema = read_from_database(lambda session: schema_open_to_public(session.connection()))
    if schema is not None:
        say(
            f"Everybody who may connect can create functions in schema {schema}, which then run in "
            "place of PostgreSQL's own, also as whoever verifies: run `flashslides db "
            "grant-runtime`, which ends it.",
            err=True,
        )


def _chosen(reader: "Reader") -> "tuple[Reader, dict[str, Any]]":
    """Who is asked from now on: the replica, or the primary where that cannot answer now.

    And what the answer says of that, for programs.
    """
    from src.common.postgres.lagging_reads import Source
    from src.common.replicas import look_at_replica

    if reader.source is Source.PRIMARY:
        return reader, {}
    read_from = look_at_replica()
    say_who_answered(read_from)
    return replace(reader, source=read_from.source), answered_by(read_from)


def _verify(
    reader: "Reader", user: str | None, sample: int | None, jobs: int | None
) -> "tuple[Report, list[dict[str, Any]]]":
    from src.common.credits.verification import verify as books
    from src.common.credits.verification.report import Report
    from src.common.database import SessionLocal, read_from_database
    from src.common.postgres.lagging_reads import Source
    from src.common.replicas import ReplicaSessionLocal

    parts = _parts(reader, user, sample)
    total = sum(part.count(reader) for part in parts)
    at_replica = reader.source is Source.REPLICA
    if jobs is None:
        jobs = min(os.cpu_count() or 1, _JOBS_MAX, max(1, total // _USERS_A_PROCESS))
    whole = Report()
    unbookable: list[CreditBookingFailure] = []
    with progress() as bars:
        task = bars.add_task("Users verified", total=total)
        for part in parts:
            report = Report()
            for report in books.verify(
                part.sessions(ReplicaSessionLocal if at_replica else SessionLocal),
                otherwise=part.sessions(SessionLocal) if at_replica else None,
                user_ids=part.user_ids,
                jobs=jobs,
            ):
                bars.update(task, completed=whole.users + report.users)
            whole.merge(report)
            with part.seen():
                unbookable += read_from_database(part.unbookable)
    return whole, [_row(failure) for failure in unbookable]


@dataclass(frozen=True)
class _Part:
    """Users to verify: of one group, or of all where groups have no schemas."""

    group: str | None
    user_ids: "Sequence[uuid.UUID] | None" = None
    """Only these; None is everybody."""

    def count(self, reader: "Reader") -> int:
        """How many they are."""
        from src.common.credits.verification.verify import count_users

        if self.user_ids is not None:
            return len(self.user_ids)
        with self.seen():
            return reader.read(count_users).value

    def sessions(self, maker: "BeginsSessions") -> "BeginsSessions":
        """What makes the sessions that see them."""
        from src.common.postgres.session_makers import SessionsOfGroup

        return maker if self.group is None else SessionsOfGroup(maker, self.group)

    def seen(self) -> "AbstractContextManager[None]":
        """Have what opens a session within the block see them."""
        from src.common.postgres.routes import routed_to_schema

        return routed_to_schema(self.group)

    def unbookable(self, session: "Session") -> "Sequence[CreditBookingFailure]":
        """Who of them cannot be booked."""
        from src.common.credits.unbookable import unbookable_users

        return unbookable_users(session, self.user_ids)


def _parts(reader: "Reader", user: str | None, sample: int | None) -> list[_Part]:
    """Whom to verify, group after group."""
    from src.common.credits.verification import verify as books

    if is_sharding():
        from src.common.postgres.routes import current_route
        from src.common.routing import all_groups

        if user is not None:
            with routed_to_user(user):
                return [_Part(current_route(), [id_of(user)])]
        if sample is not None:
            sampled = reader.read(books.sample_directory, sample).value
            return [_Part(group, user_ids) for group, user_ids in sampled.items()]
        return [_Part(group) for group in all_groups()]
    if user is not None:
        return [_Part(None, [id_of(user)])]
    if sample is not None:
        return [_Part(None, reader.read(books.sample_users, sample).value)]
    return [_Part(None)]


def _row(failure: "CreditBookingFailure") -> dict[str, Any]:
    return {
        "user_id": failure.user_id,
        "error_type": failure.error_type,
        "message": failure.message,
        "attempts": failure.attempts,
        "first_failed_at": failure.first_failed_at,
        "next_attempt_at": failure.next_attempt_at,
    }


def _print_unbookable(unbookable: list[dict[str, Any]]) -> None:
    if unbookable:
        say("\nUsers who cannot be booked until their books are mended:")
        print_rows(unbookable, as_json=False, empty="")


def _print(report: "Report") -> None:
    from src.common.credits.verification.reading import JOURNAL_MAX

    if report.differences:
        print_rows([asdict(each) for each in report.first], as_json=False, empty="")
        say(
            f"\nDifferences: {report.differences}, users: {report.differing_users}; "
            f"the first {len(report.first)} are shown."
        )
    else:
        say(f"All books balance. Users verified: {report.users}.")
    if report.without_opening_entry:
        say(
            f"NO_OPENING_ENTRY: {report.without_opening_entry} users have a balance from before "
            "the ledger and no entry yet; their next operation writes it."
        )
    if report.not_replayed:
        say(
            f"Journals longer than {JOURNAL_MAX:,} entries: {report.not_replayed}; their sums were "
            "checked, and not the rules."
        )
