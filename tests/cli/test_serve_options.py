"""What `flashslides serve` decides before the server runs; the server itself is left out."""

import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from src.cli.choices import APPLICATION
from src.cli.server_processes import run_server
from src.common.database import dispose_db, get_engine
from src.common.exceptions import SettingsError
from src.common.settings import Settings, get_settings
from src.common.stripe.permissions import is_restricted
from src.local_postgres import free_port
from tests.cli.conftest import Result, RunCommand


class Serve:
    """`serve` with uvicorn replaced by a note of what it was asked for."""

    def __init__(self, run_command: RunCommand) -> None:
        self._run_command = run_command
        self.asked: dict[str, Any] = {}

    def __call__(self, *options: str) -> Result:
        """Run the command to its end, at a free port."""
        return self.at_its_port("--port", str(free_port()), *options)

    def at_its_port(self, *options: str) -> Result:
        """Run the command to its end, at the port that it decides upon."""
        return self._run_command("serve", *options)

    def run(self, application: str, **options: Any) -> None:
        """Stand in for `run_server`."""
        self.asked = {"application": application, **options}


@pytest.fixture
def serve(run_command: RunCommand, monkeypatch: pytest.MonkeyPatch) -> Generator[Serve]:
    """The command; what it writes into the environment is gone after the test."""
    before = dict(os.environ)
    serve = Serve(run_command)
    monkeypatch.setattr("src.cli.server_processes.run_server", serve.run)
    yield serve
    os.environ.clear()
    os.environ.update(before)
    get_settings.cache_clear()


def set_revision(revision: str) -> None:
    """Make the database say that it is at this revision."""
    with get_engine().begin() as connection:
        statement = text("UPDATE alembic_version SET version_num = :revision")
        connection.execute(statement, {"revision": revision})
    dispose_db()


@pytest.mark.usefixtures("fresh_database")
def test_a_database_ahead_of_this_release_is_served(serve: Serve) -> None:
    """An old instance may start again while a newer release, which migrated first, rolls out."""
    set_revision("newer")
    assert serve().exit_code == 0
    assert serve.asked


@pytest.mark.usefixtures("fresh_database")
def test_the_number_of_processes_comes_from_the_environment(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WEB_CONCURRENCY decides, as it does for other servers, unless `--workers` is given."""
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    assert serve().exit_code == 0
    assert serve.asked["workers"] == 3
    assert serve("--workers", "2").exit_code == 0
    assert serve.asked["workers"] == 2


@pytest.mark.usefixtures("fresh_database")
def test_the_port_is_known_to_whoever_looks_for_the_api(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """API_PORT decides, unless `--port` is given; the server processes then know that one."""
    configured, given = free_port(), free_port()
    monkeypatch.setenv("API_PORT", str(configured))
    assert serve.at_its_port().exit_code == 0
    assert serve.asked["port"] == configured
    assert serve.at_its_port("--port", str(given)).exit_code == 0
    assert (serve.asked["port"], get_settings().api_port) == (given, given)


@pytest.mark.usefixtures("fresh_database")
@pytest.mark.parametrize(
    ("name", "value"),
    [("AUTH_JWT_SECRET", '{"keys": []}'), ("AUTH_JWT_JWKS_URL", "https://provider.example/jwks")],
)
def test_keys_are_made_only_where_some_are_missing(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, data_folder: Path, name: str, value: str
) -> None:
    """Whoever configures both secrets and a database gets no data folder."""
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_configured")
    assert serve().exit_code == 0
    assert not data_folder.exists()


@pytest.mark.usefixtures("fresh_database")
def test_a_start_looks_at_what_the_stripe_key_may_do(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the key that is configured."""
    looked_at: list[Settings] = []
    monkeypatch.setattr("src.cli.serve.tell_of_missing_permissions", looked_at.append)
    monkeypatch.setenv("STRIPE_SECRET_KEY", "rk_test_1")
    get_settings.cache_clear()
    assert serve().exit_code == 0
    [settings] = looked_at
    assert is_restricted(settings)


@pytest.mark.usefixtures("fresh_database")
def test_an_application_of_the_readers_own_is_looked_for_in_their_folder(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`--app` is served in place of the API, anew after each change with `--reload`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    served = serve("--app", "shop:app", "--reload")
    assert served.exit_code == 0
    assert "shop:app" in served.err
    assert "/api/v1" not in served.err
    assert (serve.asked["application"], serve.asked["reload"]) == ("shop:app", True)
    assert sys.path[-1] == str(tmp_path)
    assert serve().exit_code == 0
    assert (serve.asked["application"], serve.asked["reload"]) == (APPLICATION, False)


@pytest.mark.usefixtures("fresh_database")
@pytest.mark.parametrize("processes", ["1", "2"])
def test_an_application_that_is_not_there_is_not_greeted(serve: Serve, processes: str) -> None:
    """Nobody is told that it is served; nothing is."""
    refused = serve("--app", "no_such_module:app", "--workers", processes)
    assert refused.exit_code == 78
    assert "no_such_module:app cannot be served" in refused.err
    assert "Ctrl-C stops it." not in refused.err
    assert serve.asked == {}


def test_several_processes_are_not_started_anew_after_a_change(serve: Serve) -> None:
    """One sentence that names the option, before anything is started."""
    refused = serve("--reload", "--workers", "2")
    assert refused.exit_code == 78
    assert "--reload" in refused.err
    assert serve.asked == {}


@pytest.mark.parametrize("application", ["no_such_module:app", "json:app", "json"])
def test_an_application_that_is_not_there_is_one_sentence(application: str) -> None:
    """It names the application, and no server starts."""
    with pytest.raises(SettingsError, match=f"^{application} cannot be served: "):
        run_server(application, hang_timeout_seconds=60)
