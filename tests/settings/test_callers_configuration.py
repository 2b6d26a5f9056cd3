"""What whoever runs the tests has configured does not reach them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ALEMBIC = ("-o", "pytest_alembic_tests_path=none")  # as in pyproject.toml
INNER = """
import os
from src.common.settings import load_settings

def test_inner():
    assert load_settings().database_name == "flashslides"
    assert "FLASHSLIDES_DATA_DIR" not in os.environ
"""


def test_neither_dotenv_nor_variables_reach_the_tests(bare_process: Path) -> None:
    """A run with this conftest in a folder with a `.env`, and variables of ours set."""
    (bare_process / ".env").write_text("DATABASE_NAME=production\n")
    (bare_process / "tests").mkdir()
    (bare_process / "tests/conftest.py").write_text(
        (ROOT / "tests/conftest.py").read_text().replace("pytest_plugins", "_plugins")
    )
    (bare_process / "tests/test_inner.py").write_text(INNER)
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *ALEMBIC, "tests"],
        cwd=bare_process,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "FLASHSLIDES_DATA_DIR": "elsewhere",
            "DATABASE_NAME": "production",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout


def test_another_run_s_folder_is_left_alone(testrun_uid: str) -> None:
    """Workers agree on the run's name, which is in its folder's name."""
    assert os.environ.get("PYTEST_XDIST_TESTRUNUID", testrun_uid) == testrun_uid
