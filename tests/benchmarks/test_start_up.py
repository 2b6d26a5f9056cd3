"""What commands cost to start, and code of two revisions measured in turns."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.checkouts import Checkout, NotBuilt, built
from benchmarks.contestants.base import Database, Load, Spread
from benchmarks.contestants.commands import CommandContestant
from benchmarks.contestants.processes import PythonContestant
from benchmarks.figures import PerRepetition
from benchmarks.plan import AGAINST, Sizes, groups_of, with_twins
from benchmarks.results import Measured
from benchmarks.runner import Measurement

ROOT = Path(__file__).resolve().parents[2]
OTHER = Checkout(Path("/elsewhere"), Path("/elsewhere/python"))


def test_the_commands_are_measured_by_their_common_name(tmp_path: Path) -> None:
    """Both of them: CPU is there, and nothing was written."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks", "--quick", "--only=start-up"),
            *("--json", tmp_path / "result.json"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    measured = {each["contestant"]: each for each in result["measurements"]}
    assert set(measured) == {"start-up-help", "start-up-credits"}
    for each in measured.values():
        assert each["acknowledged"] == each["unwritten"] > 0
        assert each["client_cpu_us"] > 0


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
    """A quarter of the CPU, and four times as many a second."""
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
    assert cells[5:] == ["", ""]


def test_a_revision_that_is_not_there_leaves_nothing_behind() -> None:
    """It is named, and neither a worktree nor a folder stays."""
    with tempfile.TemporaryDirectory(prefix="fs-") as folder:
        with (
            pytest.raises(NotBuilt, match="no-such-revision"),
            built("no-such-revision", Path(folder), lambda _: None),
        ):
            pass
        assert list(Path(folder).iterdir()) == []
