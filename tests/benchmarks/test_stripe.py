"""Stripe's events, a worker's backlog and reconciliation, measured on a server of their own."""

import pytest

from tests.benchmarks.conftest import QuickRun


@pytest.mark.xdist_group("quick run")
def test_a_quick_run_prints_rates_and_ratios_whose_books_agree(quick_run: QuickRun) -> None:
    """One server process and two, events and the echo, then all that is stored; nothing refused."""
    names = ("http-webhook", "http-webhook-echo", "backlog", "reconcile")
    assert [name for name in names if f"Refused: {name}," in quick_run.printed] == []
    measured = {(each["contestant"], each["processes"]): each for each in quick_run.of(*names)}
    assert set(measured) == {
        *((name, processes) for name in names[:2] for processes in (1, 2)),
        *((name, 1) for name in names[2:]),
    }
    for (name, _), each in measured.items():
        assert each["operations_per_second"] > 0
        assert (each["acknowledged"] == each["unwritten"]) is (name == "http-webhook-echo")
    assert measured["backlog", 1]["acknowledged"] == 500
    compared = measured["reconcile", 1]
    assert (compared["acknowledged"], compared["unwritten"]) == (300, 200)
    assert quick_run.saved["books"]["verified_users"] == 1_000
