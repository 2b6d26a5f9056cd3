"""Real servers in folders of their own, whoever runs the tests.

Root's tests run their servers under another account, which cannot enter pytest's private
temporary folders; so every folder here is made by `folder_for_data`.
"""

import os
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path

import pytest

from src.local_postgres import LocalPostgresError, bring_up, free_port, running_server, stop
from tests.fixtures.folders import copy_data, folder_for_data
from tests.local_postgres.machine import IS_ROOT, installed_bin_dirs

if not IS_ROOT:
    collect_ignore = ["test_as_root.py"]  # what only root can get wrong


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for `bin_dir` with every PostgreSQL found on this machine."""
    if "bin_dir" in metafunc.fixturenames:
        bin_dirs = installed_bin_dirs()
        names = ["wheel", *(path.parts[-2] for path in bin_dirs[1:])]
        metafunc.parametrize("bin_dir", bin_dirs, ids=names)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the developer's own server or settings."""
    for name in list(os.environ):
        if name.startswith(("FLASHSLIDES_", "DATABASE_", "PG")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FLASHSLIDES_DATA_DIR", "/nonexistent/not-the-developers-own")
    # Servers of tests stop and start again: none may take the port of another one meanwhile.
    monkeypatch.setattr(bring_up, "FIRST_PORT", free_port())


@pytest.fixture
def parent() -> Generator[Path]:
    """Make a folder that every account may pass, removed afterwards."""
    with folder_for_data() as path:
        yield path


@pytest.fixture
def folder(parent: Path) -> Generator[Path]:
    """Name a data folder that does not exist yet; its server is stopped afterwards."""
    path = parent / "data"
    yield path
    with suppress(LocalPostgresError):  # the test left a folder no server can run in
        stop(path, force=True)


@pytest.fixture(scope="session")
def stopped_folder() -> Generator[Path]:
    """Make a data folder by a first start, once: most of that is waiting for the disk."""
    with folder_for_data() as parent:
        path = parent / "data"
        with running_server(path, port=free_port()):
            pass
        yield path


@pytest.fixture
def made(folder: Path, stopped_folder: Path) -> None:
    """Make the data folder beforehand, as a first start leaves it; no port is its own yet."""
    copy_data(stopped_folder, folder)


@pytest.fixture
def make_programs(parent: Path) -> Callable[..., Path]:
    """Make a folder of shell scripts that pass for PostgreSQL's programs."""

    def make(version: str, **scripts: str) -> Path:
        bin_dir = parent / f"fake-{version}" / "bin"
        bin_dir.mkdir(parents=True)
        says_version = f"echo 'postgres (PostgreSQL) {version}'"
        for name in ("postgres", "initdb", "pg_ctl"):
            script = scripts.get(name, "")
            text = f'#!/bin/sh\nif [ "$1" = --version ]; then {says_version}; exit; fi\n{script}\n'
            (bin_dir / name).write_text(text)
            (bin_dir / name).chmod(0o755)
        return bin_dir

    return make
