"""One quick run of `flashslides bench` for all who look at its figures: its server takes long."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CONTESTANTS = (
    *("document-sql", "same-rows", "document-orm"),
    *("start-up", "verify"),
    *("http-webhook", "http-webhook-echo", "backlog", "reconcile"),
)


@dataclass(frozen=True)
class QuickRun:
    """What a run printed, saved and drew."""

    printed: str
    saved: dict[str, Any]
    drawn: Path

    def of(self, *contestants: str) -> list[dict[str, Any]]:
        """The measurements of these."""
        return [each for each in self.saved["measurements"] if each["contestant"] in contestants]


@pytest.fixture(scope="session")
def quick_run(tmp_path_factory: pytest.TempPathFactory) -> QuickRun:
    """As an operator types it, outside the repository; tests that ask for it are one group."""
    folder = tmp_path_factory.mktemp("benchmarks")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "src.cli", "bench", "--quick"),
            *(f"--only={','.join(CONTESTANTS)}", "--json", "result.json", "--svg", "svg"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    saved = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return QuickRun(done.stdout, saved, folder / "svg")
