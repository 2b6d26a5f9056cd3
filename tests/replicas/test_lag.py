"""How far behind a standby is: what it says, judged without a server and without a clock."""

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest

from src.common.postgres.lagging_reads import PassedBy, PrimaryBecause, Source, check_replay
from src.common.postgres.replica_circuit import REST_SECONDS, Circuit
from src.common.postgres.replica_lag import Replay

NOW = dt.datetime(2026, 11, 30, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
STREAMING = Replay(
    is_standby=True,
    now=NOW,
    last_commit_at=NOW - HOUR,
    has_receiver=True,
    receiver_status="streaming",
    has_replayed_all=True,
    silent_seconds=10.0,
    receiver_timeout_seconds=60.0,
    pause_state="not paused",
    replayed_lsn="0/1",
)


def like(**changes: Any) -> Replay:
    """As the one that streams, but for this."""
    return replace(STREAMING, **changes)


def test_an_idle_primary_s_standby_is_as_of_its_last_message() -> None:
    """Its last commit is an hour old, and nothing was missed until then: later, nobody knows."""
    assert STREAMING.lag_seconds == 10
    assert STREAMING.as_of == NOW - dt.timedelta(seconds=10)
    assert like(silent_seconds=0.0).lag_seconds == 0


def test_a_frozen_receiver_s_standby_does_not_claim_to_be_fresh() -> None:
    """It streams, and has replayed all it received: its answers get older with its silence."""
    frozen = like(silent_seconds=20.0)
    with pytest.raises(PassedBy) as caught:
        check_replay(frozen, 19)
    assert (caught.value.because, caught.value.lag_seconds) == (PrimaryBecause.LAGGING, 20)
    assert check_replay(frozen, 20).as_of == NOW - dt.timedelta(seconds=20)


def test_a_commit_that_is_newer_than_the_message_counts() -> None:
    """The primary's clock may be ahead of the standby's, not of the answer."""
    assert like(last_commit_at=NOW - dt.timedelta(seconds=3)).lag_seconds == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"has_replayed_all": False},
        {"receiver_status": "waiting"},
        {"receiver_status": None, "has_receiver": False, "silent_seconds": None},
        {"receiver_status": None, "silent_seconds": None},
        {"silent_seconds": 7_200.0},
    ],
    ids=["replays", "waits", "no receiver", "hidden", "frozen for long"],
)
def test_who_may_have_missed_something_is_as_old_as_its_last_commit(
    changes: dict[str, Any],
) -> None:
    """Also where all that was received is replayed: that says nothing of what was not."""
    assert like(**changes).as_of == NOW - HOUR
    assert like(**changes).lag_seconds == HOUR.total_seconds()


def test_where_nobody_knows_it_is_not_asked() -> None:
    """It has replayed no commit since it began, and hears from nobody."""
    unknown = like(has_replayed_all=False, last_commit_at=None)
    assert unknown.lag_seconds is None
    with pytest.raises(PassedBy) as caught:
        check_replay(unknown, 1_000_000)
    assert caught.value.because is PrimaryBecause.LAGGING


def test_a_primary_whose_clock_is_ahead_makes_no_negative_lag() -> None:
    """A commit of the future is one of now."""
    assert like(has_replayed_all=False, last_commit_at=NOW + HOUR).lag_seconds == 0


def test_what_it_may_lag_it_may() -> None:
    """To the second; and a server that replays nothing is no replica at all."""
    behind = like(has_replayed_all=False)
    assert check_replay(behind, 3_600).source is Source.REPLICA
    with pytest.raises(PassedBy) as caught:
        check_replay(behind, 3_599)
    assert (caught.value.because, caught.value.lag_seconds) == (PrimaryBecause.LAGGING, 3_600)
    with pytest.raises(PassedBy) as caught:
        check_replay(like(is_standby=False), 1_000_000)
    assert caught.value.because is PrimaryBecause.NO_STANDBY


def test_one_caller_at_a_time_finds_out_whether_it_is_back() -> None:
    """After a rest; the others go on at the primary until that one was answered."""
    now = 0.0
    circuit = Circuit(lambda: now)
    assert circuit.may_ask()
    assert circuit.may_ask()
    circuit.note_silence()
    assert not circuit.may_ask()
    now = REST_SECONDS
    assert circuit.may_ask()
    assert not circuit.may_ask()
    circuit.note_answer()
    assert circuit.may_ask()
    assert circuit.may_ask()
