"""`docs/how-to/deploy.md`: its commands as they stand, and the settings and figures it names."""

import re
from pathlib import Path

import pytest

from src.common.settings import Settings
from tests.fixtures.databases import Server, environment_of
from tests.migrations.commands import REPOSITORY
from tests.migrations.test_backups import ROLE, shell

PAGE = (REPOSITORY / "docs/how-to/deploy.md").read_text(encoding="utf-8")
MIGRATE, SERVE = re.findall(r"^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)

pytestmark = pytest.mark.xdist_group("backups")  # a role by the name that the page gives it


def test_its_commands_bring_an_empty_database_to_service(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner migrates; the service's role does the rest, and may not migrate."""
    connection = server.empty("deployed")
    try:
        for name, value in environment_of(connection).items():
            monkeypatch.setenv(name, value)
        done = shell(server, tmp_path, MIGRATE)
        assert done.returncode == 0, done.stderr
        server.execute("ALTER ROLE {} PASSWORD 'for a test'", ROLE)
        monkeypatch.setenv("DATABASE_USER", ROLE)
        monkeypatch.setenv("DATABASE_PASSWORD", "for a test")
        done = shell(server, tmp_path, SERVE)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith("All books balance. Users verified: 0.\n")
        refused = shell(server, tmp_path, "flashslides db downgrade -1\n")
        assert refused.returncode != 0
    finally:
        server.drop("deployed")
        server.execute("DROP ROLE IF EXISTS {}", ROLE)


def test_it_names_settings_that_exist() -> None:
    """In the table and in its sentences."""
    named = set(re.findall(r"`([A-Z][A-Z_]{3,})`", PAGE)) - {"NOT_READY"}
    assert len(named) > 15
    assert [name for name in named if name.lower() not in Settings.model_fields] == []


def test_it_adds_connections_up_as_the_code_does() -> None:
    """Of a process with the default settings."""
    found = re.search(r"each process may open (\d+), and (\d+) for its engine", PAGE)
    assert found is not None
    usual = Settings()
    pools = (
        usual.database_pool_size
        + usual.database_max_overflow
        + usual.database_async_pool_size
        + usual.database_async_max_overflow
    )
    assert (int(found[1]), int(found[2])) == (pools, usual.credits_engine_connections)
