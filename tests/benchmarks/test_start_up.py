"""What commands cost to start, and code of two revisions measured in turns."""

import tempfile
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.checkouts import Checkout, NotBuilt, built
from benchmarks.contestants.base import Database, Load, Spread
from benchmarks.contestants.commands import CommandContestant
from benchmarks.contestants.processes import PythonContestant
from benchmarks.figures import MedianOf, PerRepetition
from benchmarks.growth import Growth
from benchmarks.plan import AGAINST, Sizes, groups_of, with_twins
from benchmarks.required import checked
from benchmarks.results import Measured
from benchmarks.runner import Measurement
from tests.benchmarks.conftest import QuickRun

OTHER = Checkout(Path("/elsewhere"), Path("/elsewhere/python"))


@pytest.mark.xdist_group("quick run")
def test_the_commands_are_measured_by_their_common_name(quick_run: QuickRun) -> None:
    """An operation of verify is a user. CPU and memory are there, and nothing was written."""
    names = ("start-up-help", "start-up-credits", "verify")
    measured = {each["contestant"]: each for each in quick_run.of(*names)}
    assert set(measured) == set(names)
    assert measured["verify"]["acknowledged"] % 1_000 == 0
    for each in measured.values():
        assert each["acknowledged"] == each["unwritten"] > 0
        assert each["client_cpu_us"] > 0
        assert each["peak_mib"] > 0


def test_who_is_compared_with_takes_turns_with_ours() -> None:
    """Right after it, under the same load; what is somebody else's has no twin."""
    everybody = {
        each.name: each
        for each in (
            CommandContestant("start-up-help", ["--help"]),
            PythonContestant("engine", "calls"),
            PythonContestant("hf-nostro", "calls", Database.NOSTRO),
        )
    }
    twins = with_twins(everybody, OTHER)
    assert set(twins) == {*everybody, f"engine{AGAINST}", f"start-up-help{AGAINST}"}
    twin = twins[f"engine{AGAINST}"]
    assert isinstance(twin, PythonContestant)
    assert twin.checkout == OTHER
    groups = groups_of(twins, Sizes(1, 1, 100), ["engine", "start-up-help"])
    for group in groups:
        names = [turn.contestant.name for turn in group]
        assert names[1::2] == [f"{name}{AGAINST}" for name in names[::2]]
        assert [turn.load for turn in group[::2]] == [turn.load for turn in group[1::2]]


def test_the_table_says_how_ours_stands_to_the_other() -> None:
    """A quarter of the CPU, four times as many a second; what is required of it is a line more."""
    load = Load(Spread.UNIFORM, 100, 1, 1)

    def measurement(name: str, factor: float) -> Measurement:
        figures = PerRepetition(4 / factor, factor, factor, 1_000 * factor, 0, 0, 0)
        return Measurement(name, load, 1, 1, 1, {}, figures)

    measured = Measured(
        [measurement("start-up-help", 1), measurement(f"start-up-help{AGAINST}", 4)]
    )
    [pair] = report.twins_of(measured)
    table = report.against_table(measured, [pair])
    cells = [next(iter(column.cells)) for column in table.columns]
    assert cells[1] == "start-up-help"
    assert cells[2:5] == ["4.00 (4.00-4.00)", "0.25 (0.25-0.25)", "0.25 (0.25-0.25)"]
    assert cells[5:] == ["", "", ""]

    lines = {line.name: line for line in checked(measured, Growth({}, {}))}
    line = lines["`--help`, CPU ÷ the revision's"]
    assert line.measured == MedianOf(0.25, 0.25, 0.25)
    assert (line.required, line.reached) == ("≤ 0.2", False)
    alone = checked(Measured([measurement("start-up-help", 1)]), Growth({}, {}))
    assert {each.name for each in alone} < set(lines)
    assert line.name not in {each.name for each in alone}


def test_a_revision_that_is_not_there_leaves_nothing_behind() -> None:
    """It is named, and neither a worktree nor a folder stays."""
    with tempfile.TemporaryDirectory(prefix="fs-") as folder:
        with (
            pytest.raises(NotBuilt, match="no-such-revision"),
            built("no-such-revision", Path(folder), lambda _: None),
        ):
            pass
        assert list(Path(folder).iterdir()) == []
