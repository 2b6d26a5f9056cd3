"""Plain `alembic` commands as people type them: a process of its own, in a repository's root."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from alembic.script import Script, ScriptDirectory

from src.common.postgres.migrations import alembic_config
from tests.fixtures.commands import forked_commands

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent
# In a copy it is the copy's `src` that is imported: alembic.ini puts its own folder first.
COPIED = ("alembic", "src", "alembic.ini", "pyproject.toml")


def start_alembic(*arguments: str, root: Path = REPOSITORY) -> subprocess.Popen[str]:
    """Start a command and leave it running; the environment names the test's database."""
    return subprocess.Popen(
        [str(forked_commands() / "alembic"), *arguments],
        cwd=root,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def alembic(*arguments: str, root: Path = REPOSITORY) -> str:
    """Run a command to its end, which must be a good one; what it printed."""
    process = start_alembic(*arguments, root=root)
    printed, logged = process.communicate(timeout=600)
    assert process.returncode == 0, logged
    return printed


def copy_of_repository(folder: Path) -> Path:
    """What Alembic needs of this repository, in `folder`, so that a test may change it."""
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name)  # compiled files too: they are still valid
        else:
            shutil.copy(source, folder / name)
    return folder


def revisions() -> list[Script]:
    """Every migration, the oldest first."""
    return list(reversed(list(ScriptDirectory.from_config(alembic_config()).walk_revisions())))
