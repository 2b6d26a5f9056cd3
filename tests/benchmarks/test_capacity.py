"""The page about capacity: its model is computed of the figures that it says were measured."""

import re
from pathlib import Path

import pytest

from benchmarks.capacity_model import (
    Deployment,
    Row,
    images_of_a_spend,
    log_a_second,
    stored_a_day,
    stored_of_users,
)

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "plan-capacity.md").read_text("utf-8")
ROWS = {
    name: Row(float(table), float(indexes))
    for name, table, indexes in re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \|", PAGE, re.MULTILINE)
}
[STEADY] = re.findall(r"^\| spend \| 32 \| ([\d,]+) \|", PAGE, re.MULTILINE)
MODEL = re.findall(
    r"^\| (\d+) \| (\d+) min \| ([\d.]+) \| (\d+) MB/s \| (\d+) MB/s \|$", PAGE, re.MULTILINE
)
HALF = 4_096
"""What the page says of compression."""


def deployment(servers: int = 1, minutes: float = 5) -> Deployment:
    """The page's."""
    return Deployment(1e8, 1e4, 2e9, minutes * 60, servers)


@pytest.mark.parametrize("line", MODEL, ids="-".join)
def test_each_line_of_the_model_is_computed(line: tuple[str, ...]) -> None:
    """Page images of a spend, and the log of a second on each server, compressed or not."""
    servers, minutes, images, plain, compressed = map(float, line)
    model, steady = deployment(int(servers), minutes), float(STEADY.replace(",", ""))
    assert images_of_a_spend(model, ROWS) == pytest.approx(images, abs=0.05)
    assert log_a_second(model, ROWS, steady) / 1e6 == pytest.approx(plain, abs=0.5)
    assert log_a_second(model, ROWS, steady, image=HALF) / 1e6 == pytest.approx(compressed, abs=0.5)


def test_what_is_stored_is_computed() -> None:
    """GB a day of the journal, and of users with their lots."""
    assert len(MODEL) > 4
    [a_day] = re.findall(r"journal grows by (\d+) GB a day", PAGE)
    [of_users] = re.findall(r"users and their lots take (\d+) GB", PAGE)
    assert stored_a_day(deployment(), ROWS) / 1e9 == pytest.approx(float(a_day), abs=0.5)
    assert stored_of_users(deployment(), ROWS) / 1e9 == pytest.approx(float(of_users), abs=0.5)


def test_more_servers_share_the_log_and_not_the_images() -> None:
    """Users are spread over them, so a spend changes as many pages that nobody changed before."""
    one, eight = deployment(1), deployment(8)
    assert images_of_a_spend(eight, ROWS) == images_of_a_spend(one, ROWS)
    assert log_a_second(eight, ROWS, 1_000) == log_a_second(one, ROWS, 1_000) / 8
    assert images_of_a_spend(deployment(minutes=60), ROWS) < images_of_a_spend(one, ROWS) <= 5
