"""`flashslides bench`, run as a program against the server it starts itself."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import command as benchmark
from src.cli import bench
from src.cli.commands import app
from src.common.exceptions import SettingsError
from tests.benchmarks.conftest import QuickRun

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def place() -> Generator[Path]:
    """A folder that root's server may enter too, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="fs-"))
    path.chmod(0o755)
    yield path
    path.rmdir()


@pytest.mark.xdist_group("quick run")
def test_a_quick_run_prints_the_sql_and_figures_whose_books_agree(quick_run: QuickRun) -> None:
    """Both kinds of pgbench and our own operations, on a durable server; curves where asked for."""
    result = quick_run.saved
    names = ("document-sql", "same-rows", "document-orm")
    rates = {
        (one["contestant"], one["spread"], one["flush_delay_us"]): one["operations_per_second"]
        for one in quick_run.of(*names)
    }
    assert set(rates) == {(name, spread, 0) for name in names for spread in ("uniform", "hot")} | {
        ("document-sql", "hot", 1000)
    }
    assert all(f"{rate:,.0f} (" in quick_run.printed for rate in rates.values())
    for script in result["scripts"].values():
        assert script.rstrip() in quick_run.printed
    durable = ("fsync", "synchronous_commit", "full_page_writes")
    assert [result["server_settings"][name] for name in durable] == ["on", "on", "on"]
    assert result["books"]["verified_users"] == 1_000
    acknowledged = sum(one["acknowledged"] for one in result["measurements"])
    assert acknowledged == result["books"]["acknowledged"] > 0
    assert {path.name for path in quick_run.drawn.iterdir()} == {
        "throughput.svg",
        "latency-p99.svg",
    }


def test_a_contestant_that_does_less_than_it_says_gets_no_figures(
    tmp_path: Path, place: Path
) -> None:
    """One operation left out: nothing is printed or saved, and the data is gone."""
    command = [sys.executable, "-m", "tests.benchmarks.falsified"]
    done = subprocess.run(
        [
            *command,
            *("--quick", "--json", tmp_path / "result.json"),
            *("--only=document-orm", "--folder", place),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )

    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    found = re.search(
        r"No figures: (\d+) operations were acknowledged, 0 .* and (\d+) written", done.stderr
    )
    assert found is not None
    assert int(found[1]) == int(found[2]) + 1
    assert not (tmp_path / "result.json").exists()
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_behind(place: Path, number: signal.Signals) -> None:
    """At a terminal Ctrl-C reaches all processes, SIGTERM one: the server is stopped either way."""
    command = [sys.executable, "-m", "src.cli", "bench", "--quick", "--only=engine"]
    with subprocess.Popen(
        [*command, "--folder", place],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as started:
        assert started.stderr is not None
        assert any(line.startswith("[1/") for line in started.stderr)
        send = os.killpg if number is signal.SIGINT else os.kill
        send(started.pid, number)
        said = started.stderr.read()
    assert started.returncode == 128 + number, said
    assert "Stopping the server and removing its data" in said
    assert "Traceback" not in said
    assert list(place.iterdir()) == []


def test_a_peer_that_is_not_installed_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is built; a run without it would look like a success."""
    monkeypatch.setattr(benchmark, "installed_peers", list)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--only=engine,hf-nostro"])
    with pytest.raises(SystemExit) as ended:
        benchmark.main()
    assert ended.value.code == 2
    assert "hf-nostro: not installed" in capsys.readouterr().err


def test_outside_a_checkout_the_command_says_where_the_benchmarks_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed package has no benchmarks: wrong configuration, not a traceback."""
    monkeypatch.setattr(bench, "ROOT", tmp_path)

    done = CliRunner().invoke(app, ["bench", "--quick"])

    assert isinstance(done.exception, SettingsError)
    assert "Clone the repository" in done.exception.message


def test_who_is_not_among_the_contestants_is_refused_by_name() -> None:
    """A misspelt contestant must not silently measure nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only=engine,pgbnech"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )

    assert done.returncode == 2
    assert "pgbnech" in done.stderr


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_short_too(option: str) -> None:
    """As of every other command."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", option],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--quick" in done.stdout
