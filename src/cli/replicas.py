"""Commands that may read from the replica: `--from-replica`, and who answered."""

from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from src.cli.output import say
from src.cli.reach import get_settings, migrated_database
from src.common.exceptions import Invalid

if TYPE_CHECKING:
    from collections.abc import Generator

    from src.common.postgres.lagging_reads import ReadFrom
    from src.common.replicas import Reader
    from src.common.settings import Settings

FromReplica = Annotated[
    bool,
    typer.Option(
        "--from-replica",
        help="Read from DATABASE_REPLICA_HOST. The answer may be some seconds old; stderr says as "
        "of when it is, and so does `read_from` in the JSON. Where the replica cannot answer, the "
        "primary does.",
    ),
]


@contextmanager
def reader_in_reach(*, from_replica: bool) -> "Generator[Reader]":
    """Who is to be asked, with the database in reach for the block.

    Raises:
        DatabaseBusy, SettingsError: as `migrated_database`.
        Invalid: VALIDATION_ERROR, there is no replica.
    """
    settings = get_settings()
    if from_replica:
        require_replica(settings)
    with migrated_database(settings):
        from src.common.postgres.lagging_reads import Source
        from src.common.replicas import Reader, dispose_replicas

        try:
            yield Reader(Source.REPLICA if from_replica else Source.PRIMARY)
        finally:
            dispose_replicas()


def require_replica(settings: "Settings") -> None:
    """Raise unless there is one.

    Raises:
        Invalid: VALIDATION_ERROR.
    """
    if settings.database_replica_host is None:
        raise Invalid("--from-replica: DATABASE_REPLICA_HOST is not set", "VALIDATION_ERROR")


def say_who_answered(read_from: "ReadFrom") -> None:
    """On stderr, where a replica was asked for."""
    if (sentence := who_answered(read_from)) is not None:
        say(sentence, err=True)


def answered_by(read_from: "ReadFrom") -> dict[str, Any]:
    """The same for programs, beside what was read: nothing where no replica was asked for."""
    from src.common.postgres.lagging_reads import Source

    if read_from.source is Source.PRIMARY and read_from.because is None:
        return {}
    return {"read_from": asdict(read_from)}


def who_answered(read_from: "ReadFrom") -> str | None:
    """Who answered and as of when, or why not the replica; None where none was asked for."""
    from src.common.postgres.lagging_reads import PrimaryBecause, Source

    if read_from.source is Source.REPLICA and read_from.as_of is not None:
        return (
            f"Read from the replica, as of {read_from.as_of:%Y-%m-%d %H:%M:%S %Z}, "
            f"{read_from.lag_seconds:.1f} s behind."
        )
    if read_from.because is None:
        return None
    limit = get_settings().database_replica_lag_max_seconds
    lag = "an unknown time" if read_from.lag_seconds is None else f"{read_from.lag_seconds:.1f} s"
    why = {
        PrimaryBecause.NOT_CONFIGURED: "DATABASE_REPLICA_HOST is not set",
        PrimaryBecause.AWAY: "the replica does not answer, or refuses us",
        PrimaryBecause.NO_STANDBY: "DATABASE_REPLICA_HOST is a primary, and nobody's standby",
        PrimaryBecause.LAGGING: f"the replica is {lag} behind, and may be {limit:g} s",
        PrimaryBecause.BEHIND_READER: "the replica lacks what was asked for",
        PrimaryBecause.NOT_FOUND: "the replica has no such thing yet",
        PrimaryBecause.BROKEN_OFF: "the replica broke off, so as to go on replaying",
        PrimaryBecause.BUSY: "the replica has no connection left",
    }[read_from.because]
    return f"Read from the primary: {why}."
