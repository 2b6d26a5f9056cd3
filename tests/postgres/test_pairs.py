"""The pair of servers that tests about standbys share does what it says."""

import pytest

from tests.fixtures.standbys import Pair

pytestmark = pytest.mark.xdist_group("pair of servers: itself")

COUNT = "SELECT count(*) FROM worker_heartbeats"


def test_a_standby_has_what_is_committed_once_it_replays_and_not_before(pair: Pair) -> None:
    """Paused it lacks what comes; resumed or connected again it has it."""
    insert = (
        "INSERT INTO worker_heartbeats (worker_id, beat_at)"
        " VALUES (gen_random_uuid(), now()) RETURNING 1"
    )
    assert pair.on_standby("SELECT pg_is_in_recovery()")
    before = pair.on_standby(COUNT)
    with pair.paused():
        pair.on_primary(insert)
        assert pair.on_standby(COUNT) == before
    assert pair.on_standby(COUNT) == before + 1
    with pair.disconnected():
        pair.on_primary(insert)
        assert pair.on_standby(COUNT) == before + 1
    assert pair.on_standby(COUNT) == before + 2
