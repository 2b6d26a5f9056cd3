"""Fixtures of the commands' tests: the command in this process, an offline Stripe."""

from collections.abc import Generator
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from src.common.doctor import operations
from tests.cli.conftest import data_folder, flashslides, loop, run_command
from tests.doctor.system import System

__all__ = ["data_folder", "flashslides", "loop", "run_command"]


@pytest.fixture
def system(
    db: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> Generator[System]:
    """A system where nothing is in the tables."""
    monkeypatch.setenv("FLASHSLIDES_DATA_DIR", str(tmp_path / "data"))
    yield System(db, monkeypatch, tmp_path, request)
    db.rollback()


@pytest.fixture(autouse=True)
def patience_with_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no finding; the test of an API that is given up has less."""
    monkeypatch.setattr(operations, "_API_TIMEOUT_SECONDS", 60.0)
