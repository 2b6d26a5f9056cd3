"""The data folder that development keys make, which the embedded server moves into later."""

from collections.abc import Generator
from pathlib import Path

import pytest

from src.cli.development import development_keys
from src.common.settings import load_settings
from src.local_postgres import running_server
from tests.fixtures.folders import folder_for_data


@pytest.fixture
def reachable_folder(monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """A data folder that the server's account can reach, not made yet."""
    with folder_for_data() as parent:
        monkeypatch.setenv("FLASHSLIDES_DATA_DIR", str(parent / "data"))
        yield parent / "data"


@pytest.mark.xdist_group("embedded servers")
@pytest.mark.parametrize("made_before", [True, False], ids=["an empty folder", "no folder"])
def test_the_embedded_server_starts_where_keys_were_made_first(
    reachable_folder: Path, *, made_before: bool
) -> None:
    """Whoever runs it, root included: `stripe serve` may come before the first `serve`."""
    if made_before:
        reachable_folder.mkdir(mode=0o700)
    settings = load_settings(env="local")
    keys = development_keys(settings)
    assert reachable_folder.stat().st_mode & 0o077 == 0
    with running_server() as server:
        assert server.folder == reachable_folder
    assert development_keys(settings) == keys
