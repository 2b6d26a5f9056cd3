"""The checks of notices name the endpoint, what is wrong with it, and the next step."""

import datetime as dt
import re

import pytest

from src.common.doctor.catalogue import named
from src.common.models import CreditNotice, NoticeEndpoint, NoticeEndpointState
from tests.doctor.system import System, asked

CHECKS = ("disabled-endpoints", "dead-notices", "late-notices")
ENDPOINT = "00000000-0000-0000-0000-000000000001"
_NOW = dt.datetime.now(dt.UTC)
_DEAD = {"status": "dead", "finished_at": _NOW, "next_attempt_at": None}


def test_without_an_endpoint_there_is_nothing_to_look_at(system: System) -> None:
    """And each check is one that can be asked for by name."""
    assert system
    assert [check.name for check in named(CHECKS)] == list(CHECKS)
    assert {asked(name).status for name in CHECKS} == {"skipped"}


def test_all_is_well_where_everything_was_delivered_or_is_new(system: System) -> None:
    """What waits for an hour at most is on its way."""
    system.add(NoticeEndpoint)
    system.add(CreditNotice)
    assert {asked(name).status for name in CHECKS} == {"ok"}


def test_a_disabled_endpoint_is_named_with_why(system: System) -> None:
    """What waits for it is not late: nobody tries."""
    system.add(NoticeEndpoint, disabled_at=_NOW, disabled_reason="The endpoint answered 410")
    system.add(CreditNotice, created_at=_NOW - dt.timedelta(days=2))
    found = asked("disabled-endpoints")
    assert (found.status, found.seen) == (
        "warn",
        f"1 endpoint disabled; {ENDPOINT}: The endpoint answered 410.",
    )
    assert ENDPOINT in (found.next or "")
    assert asked("late-notices").status == "skipped"


def test_what_was_given_up_is_counted_with_the_last_error(system: System) -> None:
    """The next step sends it again."""
    system.add(NoticeEndpoint)
    system.add(NoticeEndpointState, last_failed_at=_NOW, last_error="TIMEOUT: too slow")
    system.add(CreditNotice, **_DEAD)
    found = asked("dead-notices")
    assert (found.status, found.seen) == (
        "fail",
        f"1 notice given up; {ENDPOINT} said last: TIMEOUT: too slow.",
    )
    assert "notices replay" in (found.next or "")


@pytest.mark.parametrize(("hours", "status"), [(0.5, "ok"), (2, "warn")])
def test_what_waits_too_long_is_late(system: System, hours: float, status: str) -> None:
    """An hour is more than the first three attempts take."""
    system.add(NoticeEndpoint)
    system.add(CreditNotice, created_at=dt.datetime.now(dt.UTC) - dt.timedelta(hours=hours))
    found = asked("late-notices")
    assert found.status == status
    if status == "warn":
        assert re.fullmatch(
            rf"1 notice for {ENDPOINT} not delivered, one is 2\S* h old; it failed last: never\.",
            found.seen,
        )
