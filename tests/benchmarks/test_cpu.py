"""The CPU time of a server is counted whole, whoever of its processes is just ending."""

import os
from unittest.mock import Mock

import pytest

from benchmarks import cpu

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def test_a_child_that_ends_while_it_is_counted_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether its time was not its parent's yet when that was read, or already."""
    for first in ((0, {1: 5}), (7, {1: 5, 2: 7}), (0, {1: 5, 2: 7})):
        looks = Mock(side_effect=[first, (7, {1: 5}), (7, {1: 5})])
        with monkeypatch.context() as patch:
            patch.setattr(cpu, "_family", looks)
            assert cpu.family_seconds(1) == 12 / TICKS_PER_SECOND


def test_this_process_s_own_time_is_in_it() -> None:
    """And that of children which have ended."""
    used = os.times()
    before = used.user + used.system + used.children_user + used.children_system
    assert cpu.family_seconds(os.getpid()) >= before - 3 / TICKS_PER_SECOND
