"""`python -m benchmarks.webhooks`, run as a program against the server it starts itself."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_quick_run_prints_rates_and_ratios_whose_books_agree(tmp_path: Path) -> None:
    """One process and two, events and the echo; every user verified, and nothing was refused."""
    path = tmp_path / "a folder" / "webhooks.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.webhooks", "--quick", "--json", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )

    assert done.returncode == 0, done.stderr
    assert "verified: 1000 users" in done.stdout
    rates = re.findall(r"  (webhook|webhook-echo): ([\d,]+) \(", done.stdout)
    assert [name for name, _ in rates] == ["webhook", "webhook-echo"] * 2
    assert all(int(rate.replace(",", "")) > 0 for _, rate in rates)
    assert len(re.findall(r"  webhook / webhook-echo: 0\.\d{3} \(", done.stdout)) == 2
    assert "refused" not in done.stdout

    kept = json.loads(path.read_text())
    assert kept["sizes"] == {"seconds": 1, "repeats": 1, "users": 1_000, "quick": True}
    assert kept["machine"]["verified"] == "1000 users"
    assert [
        (each["contestant"], each["processes"], f"{each['operations_per_second']:,.0f}")
        for each in sorted(
            kept["measurements"], key=lambda each: (each["processes"], each["contestant"])
        )
    ] == [
        (name, processes, rate) for processes, (name, rate) in zip((1, 1, 2, 2), rates, strict=True)
    ]
    assert [f"{each['median']:.3f}" for each in kept["ratios"].values()] == re.findall(
        r"echo: (0\.\d{3}) \(", done.stdout
    )
