"""`flashslides db psql` on a configured database."""

from pathlib import Path

import pytest

from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters, free_port
from tests.cli.conftest import RunCommand


@pytest.mark.parametrize("on_path", [True, False], ids=["psql on PATH", "the embedded one's psql"])
def test_psql_opens_the_configured_database(
    run_command: RunCommand,
    worker_database: ConnectionParameters,
    monkeypatch: pytest.MonkeyPatch,
    data_folder: Path,
    tmp_path: Path,
    *,
    on_path: bool,
) -> None:
    """DATABASE_HOST comes first, with whichever psql is found; no embedded server is made."""
    if not on_path:
        monkeypatch.setenv("PATH", str(tmp_path))
    get_settings.cache_clear()
    answer = tmp_path / "answer"
    statement = "SELECT current_database()"
    result = run_command("db", "psql", "-XAt", "-o", str(answer), "-c", statement)
    assert result.exit_code == 0, result.err
    assert answer.read_text() == f"{worker_database.database}\n"
    assert not data_folder.exists()


def test_psql_tries_host_after_host(
    run_command: RunCommand,
    worker_database: ConnectionParameters,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """As the service does: several hosts, each with its port, and the one that is the primary."""
    monkeypatch.setenv("DATABASE_HOST", f"127.0.0.1,{worker_database.host}")
    monkeypatch.setenv("DATABASE_PORT", f"{free_port()},{worker_database.port}")
    get_settings.cache_clear()
    answer = tmp_path / "answer"
    statement = "SELECT current_database()"
    result = run_command("db", "psql", "-XAt", "-o", str(answer), "-c", statement)
    assert result.exit_code == 0, result.err
    assert answer.read_text() == f"{worker_database.database}\n"
