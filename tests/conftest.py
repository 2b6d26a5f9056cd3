"""Fixtures every test may use; the environment of whoever runs the tests does not reach them."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

pytest_plugins = ["tests.fixtures.databases", "tests.fixtures.api"]

_OURS = ("DATABASE_", "AUTH_", "STRIPE_", "AWS_", "API_", "LOG_")


def pytest_configure() -> None:
    """Forget the caller's configuration: the tests' own is the only one."""
    for name in list(os.environ):
        if name == "ENV" or name.startswith(_OURS):
            del os.environ[name]
    os.environ["ENV"] = "local"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove the server's folder, once, after every worker has left."""
    if hasattr(session.config, "workerinput"):
        return
    for folder in Path(tempfile.gettempdir()).glob("flashslides-tests-*"):
        if not _in_use(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _in_use(folder: Path) -> bool:
    from src.local_postgres import status

    return status(folder).running
