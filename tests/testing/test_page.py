"""`docs/how-to/test-your-application.md`, done as written: an application with tests of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs/how-to/test-your-application.md").read_text()
FILES = re.findall(r'^```\w+ title="([\w.]+)"\n(.*?)^```', PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = re.findall(r"^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.xdist_group("embedded servers")
def test_an_applications_tests_run_as_written(tmp_path: Path) -> None:
    """In a folder with nothing else, in two processes, with every warning an error."""
    for name, content in FILES:
        (tmp_path / name).write_text(content)
    leads_elsewhere = ("DATABASE_", "PYTEST_", "COV_")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(leads_elsewhere)
    }
    bin_dir = Path(sys.executable).parent
    environment["PATH"] = f"{bin_dir}:{os.environ['PATH']}"
    command = f"{COMMANDS[-1].strip()} -W error -n 2 -p no:randomly -p no:cacheprovider"
    done = subprocess.run(
        ["/bin/bash", "-euc", command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


def test_the_page_installs_an_extra_that_there_is() -> None:
    """What the first command asks for is in `pyproject.toml`."""
    pyproject = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    [extra] = re.findall(r"\[(\w+)\]", COMMANDS[0])
    assert f"\n{extra} = [" in pyproject
