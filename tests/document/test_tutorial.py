"""`docs/tutorial.md`, done as written: each block is run, and prints what the page says."""

import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from src.local_postgres import free_port
from tests.cli.processes import Program
from tests.fixtures.commands import forked_commands
from tests.fixtures.folders import copy_data, folder_for_data

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^```(\w+)(?: title=\"([\w.]+)\")?\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
DIFFERS = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"  # a UUID
    r"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    r"|(?:cs_test|re)_\w+"
    r"|127\.0\.0\.1:\d+"
)
"""What differs, as the page says: identifiers, times and the offline Stripe's port."""
END_OF_BLOCK = "-- end of block --"


@pytest.fixture
def reader(migrated_data: Path) -> Generator[Program]:
    """A folder with the page's files in it, and the command with a data folder and a port."""
    programs = Path(sys.executable).parent
    with folder_for_data() as folder:
        copy_data(migrated_data, folder / "data")
        for language, name, content in FENCED.findall(PAGE):
            if language == "python":
                (folder / name).write_text(content)
        environment = {
            "FLASHSLIDES_DATA_DIR": str(folder / "data"),
            "FLASHSLIDES_PG_PORT": str(free_port()),
            "PATH": f"{forked_commands()}:{programs}:/usr/local/bin:/usr/bin:/bin",
        }
        yield Program(folder, environment)


def blocks_with_output() -> list[tuple[str, str]]:
    """Each block of bash, and the output that the page shows below it; without one, nothing."""
    found: list[tuple[str, str]] = []
    for language, _, content in FENCED.findall(PAGE):
        if language == "bash":
            found.append((content, ""))
        if language == "text":
            command, shown_before = found.pop()
            assert not shown_before
            found.append((command, content))
    return found


def comparable(output: str) -> str:
    """The output without what differs from run to run, and without blanks at the ends of lines."""
    masked = DIFFERS.sub("…", output)
    return "\n".join(line.rstrip() for line in masked.strip().splitlines())


@pytest.mark.xdist_group("embedded servers")
def test_the_lesson_goes_as_written(reader: Program) -> None:
    """From the purchase to `verify`: every block prints what stands below it, and nothing else.

    Changed are only the port, and `uv run`, since the tests run in its environment already.
    """
    port = free_port()
    address = f"http://localhost:{port}"
    [(_serve, _), *steps] = blocks_with_output()
    script = "".join(f"{command}echo '{END_OF_BLOCK}'\n" for command, _ in steps)
    with reader.serve(port):
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", _typed(script, address)],
            capture_output=True,
            text=True,
            cwd=reader.folder,
            env=dict(reader.environment),
            check=False,
        )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.replace(address, "http://localhost:8000").split(END_OF_BLOCK)
    shown = [comparable(output) for _, output in steps]
    assert [comparable(each) for each in printed] == [*shown, ""]


def test_the_lesson_begins_with_the_readmes_first_command() -> None:
    """There is one way to start; the fenced blocks are all of kinds that this file runs."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first, _ = blocks_with_output()[0]
    assert f"```bash\n{first}```" in readme.partition("## Two commands")[2]
    fences = re.findall(r"^```\w", PAGE, re.MULTILINE)
    assert len(FENCED.findall(PAGE)) == len(fences)
    assert {language for language, _, _ in FENCED.findall(PAGE)} == {"bash", "python", "text"}


def _typed(script: str, address: str) -> str:
    return script.replace("http://localhost:8000", address).replace("uv run ", "")
