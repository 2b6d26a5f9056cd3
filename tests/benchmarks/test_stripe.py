"""Stripe's events, a worker's backlog and reconciliation, measured on a server of their own."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_quick_run_prints_rates_and_ratios_whose_books_agree(tmp_path: Path) -> None:
    """One server process and two, events and the echo, then all that is stored; nothing refused."""
    names = ("http-webhook", "http-webhook-echo", "backlog", "reconcile")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks", "--quick", f"--only={','.join(names)}"),
            *("--json", tmp_path / "result.json"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )

    assert done.returncode == 0, done.stderr
    assert "Refused" not in done.stdout
    kept = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    measured = {(each["contestant"], each["processes"]): each for each in kept["measurements"]}
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
    assert kept["books"]["verified_users"] == 1_000
