"""What follows from an attempt: the table of Standard Webhooks 1.0, and its bounds."""

import datetime as dt

import pytest

from src.common.notices.delivery.schedule import (
    ATTEMPTS_MAX,
    PAUSE_MAX_SECONDS,
    Outcome,
    answer_of,
    next_delay_seconds,
    pause_seconds,
    retry_after_seconds,
)

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
SINCE_START = ("0:00:05", "0:05:05", "0:35:05", "2:35:05", "7:35:05", "17:35:05")
LATER = (
    dt.timedelta(hours=31, minutes=35, seconds=5),
    dt.timedelta(hours=51, minutes=35, seconds=5),
)


def test_the_table_is_the_specification_s() -> None:
    """When each attempt is, since the first one; and none after the tenth."""
    elapsed = dt.timedelta()
    found: list[dt.timedelta] = []
    for attempts in range(1, ATTEMPTS_MAX):
        delay = next_delay_seconds(attempts, None, lambda: 0.0)
        assert delay is not None
        elapsed += dt.timedelta(seconds=delay)
        found.append(elapsed)
    assert tuple(map(str, found[:6])) == SINCE_START
    assert tuple(found[6:8]) == LATER
    assert found[8] == dt.timedelta(hours=75, minutes=35, seconds=5)
    assert next_delay_seconds(ATTEMPTS_MAX, None, lambda: 0.0) is None


def test_those_that_failed_together_come_apart() -> None:
    """A delay is up to a tenth longer, never shorter; and never before what was asked for."""
    assert next_delay_seconds(1, None, lambda: 1.0) == pytest.approx(5.5)
    assert next_delay_seconds(1, 60, lambda: 0.0) == 60
    assert next_delay_seconds(2, 60, lambda: 0.0) == 300


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120),
        ("0", 1),
        ("99999999999999999999", 3_600),
        ("Tue, 01 Jan 2030 00:01:40 GMT", 100),
        ("Mon, 31 Dec 2029 00:00:00 GMT", 1),
        ("Tue, 01 Jan 2031 00:00:00 GMT", 3_600),
        ("soon", None),
        ("-5", None),
        ("Tue, 01 Jan 2030 00:01:40 +99999999999999", None),
        ("Tue, 01 Jan 2030 99999999999999999999:00:00 GMT", None),
        ("१२", None),
        ("", None),
    ],
)
def test_retry_after_is_read_as_http_has_it(header: str | None, seconds: int | None) -> None:
    """Seconds or an instant, within bounds; nonsense is nothing."""
    assert retry_after_seconds(header, NOW) == seconds


def test_what_each_status_means() -> None:
    """2xx is success and nothing else is; who has too much to do is left alone."""
    for status in (200, 201, 204, 299):
        assert answer_of(status, None, NOW).outcome is Outcome.DELIVERED
    for status in (100, 300, 302, 400, 404, 500):
        assert answer_of(status, "9", NOW).outcome is Outcome.REFUSED
        assert answer_of(status, "9", NOW).retry_after_seconds is None
    for status in (429, 502, 503, 504):
        assert answer_of(status, None, NOW).outcome is Outcome.OUT_OF_REACH
    assert answer_of(503, "9", NOW).retry_after_seconds == 9
    assert answer_of(410, None, NOW).outcome is Outcome.GONE


def test_an_endpoint_out_of_reach_is_left_alone_longer_each_time() -> None:
    """Not for the first failures, which may be one notice's; never longer than a minute."""
    assert [pause_seconds(failures, None) for failures in range(7)] == [
        *(None, None, None),
        *(1, 2, 4, 8),
    ]
    assert pause_seconds(10_000, None) == PAUSE_MAX_SECONDS
    assert pause_seconds(1, 30) == 30
    assert pause_seconds(10_000, 300) == 300
