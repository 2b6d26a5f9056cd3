"""How far behind a standby is, and as of when its answers are complete.

The commit that was replayed last says little where the primary is idle: nothing may have been
missed since. So a standby that has replayed all it received is as of the primary's last message:
that had all there was. Any other is as old as the last commit that it has.
"""

import datetime as dt
from dataclasses import dataclass

from sqlalchemy import Connection, text

STREAMING = "streaming"

_STATEMENT = text("""
    SELECT pg_is_in_recovery() AS is_standby,
           clock_timestamp() AS now,
           pg_last_xact_replay_timestamp() AS last_commit_at,
           receiver.pid IS NOT NULL AS has_receiver,
           receiver.status AS receiver_status,
           coalesce(replayed >= greatest(received, receiver.latest_end_lsn), false)
               AS has_replayed_all,
           extract(epoch FROM clock_timestamp() - receiver.last_msg_receipt_time)::float
               AS silent_seconds,
           extract(epoch FROM current_setting('wal_receiver_timeout')::interval)::float
               AS receiver_timeout_seconds,
           CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() END AS pause_state,
           replayed::text AS replayed_lsn
    FROM (SELECT pg_last_wal_receive_lsn() AS received, pg_last_wal_replay_lsn() AS replayed) AS log
    LEFT JOIN pg_stat_wal_receiver AS receiver ON true
""")


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What a server says about what it has replayed."""

    is_standby: bool
    now: dt.datetime
    """By its own clock."""
    last_commit_at: dt.datetime | None
    """When the primary committed what was replayed last; None where nothing was, since it began."""
    has_receiver: bool
    receiver_status: str | None
    """None where there is no receiver, or this role may not look at it."""
    has_replayed_all: bool
    """All that it received, and all that it knows the primary to have."""
    silent_seconds: float | None
    """Since the last message of the primary's."""
    receiver_timeout_seconds: float
    pause_state: str | None
    replayed_lsn: str | None

    @property
    def is_hidden(self) -> bool:
        """Whether there is a receiver this role may not look at (`pg_read_all_stats`)."""
        return self.has_receiver and self.receiver_status is None

    @property
    def longest_silence_seconds(self) -> float | None:
        """After so long it asks an idle primary for a sign of life; None where it never does."""
        return self.receiver_timeout_seconds / 2 or None

    @property
    def heard_at(self) -> dt.datetime | None:
        """When the primary told it last of all there is to replay; None where it did not."""
        if self.receiver_status != STREAMING or self.silent_seconds is None:
            return None
        return self.now - dt.timedelta(seconds=self.silent_seconds)

    @property
    def as_of(self) -> dt.datetime | None:
        """All that was committed by then is in its answers from now on; None where nobody knows."""
        heard_at = self.heard_at if self.has_replayed_all else None
        known = [each for each in (self.last_commit_at, heard_at) if each is not None]
        return min(max(known), self.now) if known else None

    @property
    def lag_seconds(self) -> float | None:
        """How far behind it is, 0 or more; None where nobody knows."""
        return None if self.as_of is None else (self.now - self.as_of).total_seconds()


def read_replay(connection: Connection) -> Replay:
    """Ask the server; its database transaction is ended, so that the next one sees at least this.

    Raises:
        RetryableDatabaseError: a passing condition of the database.
    """
    row = connection.execute(_STATEMENT).mappings().one()
    connection.rollback()
    return Replay(**row)
