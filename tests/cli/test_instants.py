"""Instants as people write them, on every option that takes one."""

import datetime as dt
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.cli.instants import instant
from src.common.exceptions import Invalid
from tests.cli.conftest import RunCommand

BERLIN = "Europe/Berlin"
TAKING_AN_INSTANT = {
    "--as-of": "credits show ada@example.com",
    "--expires-at": "credits grant ada@example.com 5",
    "--since": "stripe events list",
    "--until": "stripe events list",
    "--since ": "stripe events replay",
    "--until ": "stripe events replay evt_1",
    "--since  ": "stripe reconcile",
    "--until  ": "stripe reconcile --since 2030-01-31",
}
"""An option, and a command that has it."""


@pytest.mark.parametrize(
    ("written", "time_zone", "meant"),
    [
        ("2030-01-31", "UTC", "2030-01-31T00:00:00Z"),
        ("2030-01-31", BERLIN, "2030-01-30T23:00:00Z"),
        ("2030-07-31", BERLIN, "2030-07-30T22:00:00Z"),
        ("2030-01-31 14:00", BERLIN, "2030-01-31T13:00:00Z"),
        ("2030-01-31T14:00:30", "UTC", "2030-01-31T14:00:30Z"),
        ("2030-01-31T14:00:00Z", BERLIN, "2030-01-31T14:00:00Z"),
        ("2030-01-31T14:00:00-05:00", BERLIN, "2030-01-31T19:00:00Z"),
        ("2030-10-27 02:30", BERLIN, "2030-10-27T00:30:00Z"),  # the first of two
        ("2024-04-26", "Africa/Cairo", "2024-04-25T22:00:00Z"),  # the day begins at 01:00
    ],
)
def test_it_means_what_people_mean(written: str, time_zone: str, meant: str) -> None:
    """A date alone is its first moment there; what names its zone is meant in no other."""
    assert instant("--since", written, time_zone) == dt.datetime.fromisoformat(meant)


@pytest.mark.parametrize(
    "written", ["31.01.2030", "2030-02-30", "tomorrow", "", "2030-01-31 25:00", "9999-12-31 23:00"]
)
def test_what_is_none_is_refused_with_examples(written: str) -> None:
    """Also what ends beyond the calendar in another zone."""
    with pytest.raises(Invalid) as caught:
        instant("--since", written, "America/New_York")
    assert caught.value.message.startswith("--since: ")
    assert "2030-01-31 14:00" in caught.value.message


def test_an_hour_that_the_clocks_leave_out_is_refused() -> None:
    """Half past two, where it is three right after two."""
    with pytest.raises(Invalid, match="put forward"):
        instant("--since", "2030-03-31 02:30", BERLIN)


@pytest.mark.parametrize("name", ["Europe", "Berlin", "", "/etc/passwd", "../UTC"])
def test_a_zone_nobody_knows_is_refused(name: str) -> None:
    """Whatever files have such a name."""
    with pytest.raises(Invalid, match=r"--time-zone: .* is no time zone"):
        instant("--since", "2030-01-31", name)


@given(
    st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2100, 1, 1)),  # noqa: DTZ001  hypothesis wants them naive
    st.sampled_from(["UTC", "Asia/Tokyo", "America/Phoenix"]),
)
def test_what_is_written_in_a_zone_is_read_there(moment: dt.datetime, time_zone: str) -> None:
    """In zones whose clocks are never changed, to the microsecond."""
    found = instant("--since", str(moment), time_zone)
    assert found is not None
    hours = {"UTC": 0, "Asia/Tokyo": 9, "America/Phoenix": -7}[time_zone]
    assert found.replace(tzinfo=None) + dt.timedelta(hours=hours) == moment


@pytest.mark.parametrize(("option", "command"), TAKING_AN_INSTANT.items())
def test_every_option_that_takes_an_instant_says_what_it_takes(
    run_command: RunCommand, option: str, command: str
) -> None:
    """Exit code 2, the option's name and an example; nothing is asked of the database."""
    result = run_command(*command.split(), option.strip(), "31.01.2030")
    assert (result.exit_code, result.out) == (2, "")
    [line] = result.err.splitlines()
    assert line.startswith(f"flashslides: {option.strip()}: '31.01.2030' is no instant")
    assert "2030-01-31" in line


def test_a_grant_ends_when_its_day_begins_there(flashslides: RunCommand) -> None:
    """The answer says so, as the API does."""
    flashslides("user", "create", "ada@example.com")
    words = ("credits", "grant", "ada@example.com", "5", "--expires-at", "2100-01-31")
    result = flashslides(*words, "--time-zone", BERLIN, "--json")
    assert result.json["expires_at"] == "2100-01-30T23:00:00Z"
    shown = flashslides(*words)
    assert re.search(r"^expires_at +2100-01-31 00:00:00 UTC$", shown.out, re.MULTILINE)
