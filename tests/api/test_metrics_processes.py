"""Several server processes, one set of figures."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COUNT = """
from src.api.src import metrics
metrics.WEBHOOK_EVENTS.labels(answer="processed").inc()
"""
ANSWER = """
from src.api.src import metrics
print(metrics.exposition().decode())
"""


def test_processes_add_their_figures_up(tmp_path: Path) -> None:
    """Two processes count an event each; whichever answers the scrape tells of both."""
    environment = {
        "PYTHONPATH": str(ROOT),
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
        "ENV": "local",
        "DATABASE_HOST": "nowhere.invalid",
    }

    def run(program: str) -> str:
        return subprocess.check_output(
            [sys.executable, "-c", program], cwd=tmp_path, env=environment, text=True
        )

    run(COUNT)
    run(COUNT)
    answer = run(ANSWER)
    assert 'flashslides_webhook_events_total{answer="processed"} 2.0' in answer
    assert 'pool="sync",state="limit"' in answer
    assert 'pid="' in answer


def test_one_process_needs_no_folder() -> None:
    """Without the variable nothing is written anywhere: the tests' own process is such a one."""
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ
