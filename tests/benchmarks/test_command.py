"""`python -m benchmarks.credit_update`, run as a program against the server it starts itself."""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def place() -> Generator[Path]:
    """A folder that root's server may enter too, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="fs-"))
    path.chmod(0o755)
    yield path
    path.rmdir()


def run(module: str, tmp_path: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the smoke test of `module`; its result goes to result.json."""
    return subprocess.run(
        [sys.executable, "-m", module, "--quick", "--json", tmp_path / "result.json", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_quick_run_prints_a_ratio_for_every_load_and_saves_books_that_agree(
    tmp_path: Path,
) -> None:
    """The smoke test ends well, with each contestant under each load, on a durable server."""
    done = run("benchmarks.credit_update", tmp_path)

    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    ratios = {
        (one["spread"], one["clients"]): one["ratio"]["median"]
        for one in result["summaries"]
        if one["contestant"] == "document"
    }
    assert set(ratios) == {("uniform", 8), ("hot", 8)}
    for ratio in ratios.values():
        assert ratio > 0
        assert f"{ratio:.3f} (" in done.stdout
    assert "FOR UPDATE" in done.stdout
    durable = ("fsync", "synchronous_commit", "full_page_writes")
    assert [result["server_settings"][name] for name in durable] == ["on", "on", "on"]
    books = result["books"]
    assert books["acknowledged"] == books["rows"]
    assert books["acknowledged"] == books["entries"]
    assert books["credits_added"] == books["balances"] > 0
    assert books["balances"] == books["credits_in_entries"] == books["credits_in_lots"]
    measured = sum(one["acknowledged"] for one in result["measurements"])
    assert 0 < measured < books["acknowledged"]  # the rest was warming up


def test_a_contestant_that_writes_a_row_less_than_it_says_gets_no_figures(
    tmp_path: Path, place: Path
) -> None:
    """One operation without its row: nothing is printed or saved, and the data is gone."""
    done = run("tests.benchmarks.falsified", tmp_path, "--folder", place)

    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert re.search(r"No figures: (\d+) operations were acknowledged, (\d+) rows", done.stderr)
    assert not (tmp_path / "result.json").exists()
    assert list(place.iterdir()) == []
