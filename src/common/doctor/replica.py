"""The check of the read replica: whether it answers, how far it is behind, whose standby it is."""

from sqlalchemy import text

from src.common.doctor.checks import Check, Finding, Needs, fail, ok, psql, skipped, unknown, warn
from src.common.doctor.context import Context
from src.common.exceptions import ExceptionWithErrorType
from src.common.postgres.replica_lag import STREAMING, Replay

_CLUSTER = text("SELECT system_identifier FROM pg_control_system()")
_BEHIND_BYTES = text("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), CAST(:replayed AS pg_lsn))")


def _replica(context: Context) -> Finding:
    """Whether the read replica answers, is a standby of this primary, and how far it is behind."""
    settings = context.settings
    where = settings.replica_address
    if where is None:
        return skipped("DATABASE_REPLICA_HOST is not set: the primary answers everything.")
    try:
        replay = context.read_replay()
        with context.looking_at_replica() as session:
            cluster = session.execute(_CLUSTER).scalar_one()
    except ExceptionWithErrorType as error:
        return warn(
            f"The replica at {where} does not answer, and the primary answers in its place: "
            f"{error.message.rstrip('.')}.",
            "start it, or correct DATABASE_REPLICA_HOST and DATABASE_REPLICA_PORT",
        )
    if not replay.is_standby:
        return fail(
            f"The server at {where} is no standby: it is not asked.",
            "set DATABASE_REPLICA_HOST to a standby, or unset it",
        )
    with context.looking() as session:
        is_ours = session.execute(_CLUSTER).scalar_one() == cluster
        behind = session.execute(_BEHIND_BYTES, {"replayed": replay.replayed_lsn}).scalar_one()
    if not is_ours:
        return fail(
            f"The replica at {where} is a standby of another primary: its answers are of another "
            "database.",
            "set DATABASE_REPLICA_HOST to a standby of DATABASE_HOST, or unset it",
        )
    return _judge(where, replay, int(behind), settings.database_replica_lag_max_seconds)


def _judge(where: str, replay: Replay, behind_bytes: int, lag_max_seconds: float) -> Finding:
    lag = replay.lag_seconds
    told = "an unknown time" if lag is None else f"{lag:.1f} s"
    seen = (
        f"The replica at {where} is {told} behind, of {lag_max_seconds:g} s that it may be, and "
        f"{max(behind_bytes, 0) / 2**20:,.1f} MB of log."
    )
    if replay.is_hidden:
        return unknown(
            f"{seen} Whether it hears from its primary is hidden from this role, so it counts as "
            "old as its last commit.",
            psql("GRANT pg_read_all_stats TO the_role_of_DATABASE_USER"),
        )
    if replay.pause_state == "paused":
        return warn(
            f"{seen} Its replay is paused.", "on the replica: SELECT pg_wal_replay_resume()"
        )
    if replay.receiver_status != STREAMING:
        return warn(
            f"{seen} It receives nothing from its primary.",
            "look into its log; its primary_conninfo leads to the primary",
        )
    silence = replay.longest_silence_seconds
    if silence is None or silence > lag_max_seconds:
        return warn(
            f"{seen} It asks an idle primary for a sign of life "
            + ("never." if silence is None else f"after {silence:g} s.")
            + " Without one it counts as behind.",
            "on the replica: ALTER SYSTEM SET wal_receiver_timeout = "
            f"'{max(lag_max_seconds, 1):g}s'; SELECT pg_reload_conf()",
        )
    if lag is None or lag > lag_max_seconds:
        return warn(f"{seen} The primary answers in its place.", "flashslides doctor replication")
    return ok(seen)


CHECKS = (
    Check(
        "read-replica",
        _replica,
        Needs.DATABASE,
        "Where the replica cannot answer, the primary does its work as well.",
    ),
)
