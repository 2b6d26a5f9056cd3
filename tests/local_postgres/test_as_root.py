"""What root alone could get wrong; collected for root only, see conftest.py."""

import os
import pwd
import shutil
import stat
from pathlib import Path

import pytest

from src.local_postgres import (
    LocalPostgresError,
    data_folder,
    read_connection,
    running_server,
    status,
)
from tests.local_postgres.machine import holder, read_line, sql, wheel_bin_dir


def unprivileged_uid() -> int:
    """Return the account the server has to run under here."""
    names = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
    return names.get("postgres", names["nobody"])


def modes_above(path: Path) -> dict[Path, int]:
    """Return the permissions of every folder above."""
    return {parent: parent.stat().st_mode for parent in path.parents}


def test_the_server_runs_under_an_account_that_exists(folder: Path) -> None:
    """No account is made and no folder above is opened or given away."""
    folder.parent.chmod(0o711)
    accounts = pwd.getpwall()
    modes = modes_above(folder)
    with running_server(folder) as server:
        assert {path.stat().st_uid for path in folder.rglob("*")} == {unprivileged_uid()}
        assert sql(server.connection, "SELECT 1") == [(1,)]
    assert pwd.getpwall() == accounts
    assert modes_above(folder) == modes
    assert folder.parent.stat().st_uid == 0


def test_the_owner_of_the_folder_runs_the_server(folder: Path, parent: Path) -> None:
    """Root helps out in a user's folder and leaves nothing the user cannot use afterwards."""
    nobody = pwd.getpwnam("nobody")
    programs = parent / "programs"
    wheel = wheel_bin_dir().parents[1]
    for tree in (wheel, wheel.with_name(f"{wheel.name}.libs")):
        if tree.exists():
            shutil.copytree(tree, programs / tree.name)
    environment = {"FLASHSLIDES_PG_BIN": str(programs / wheel.name / "pginstall" / "bin")}
    folder.mkdir()
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    with running_server(folder) as server:
        sql(server.connection, "CREATE TABLE kept AS SELECT 7 AS number")
        with holder(folder, account="nobody", environment=environment) as process:
            assert read_line(process) == f"{server.pid} False\n"
    assert {path.stat().st_uid for path in folder.rglob("*")} == {nobody.pw_uid}
    with holder(folder, account="nobody", environment=environment) as process:
        assert read_line(process).endswith("True\n")
        connection = read_connection(folder)
        assert connection is not None
        assert sql(connection, "SELECT number FROM kept") == [(7,)]
    assert not status(folder).running


def test_an_empty_folder_of_roots_is_given_to_the_account(folder: Path) -> None:
    """As after `mkdir`, whatever root's umask."""
    folder.mkdir(mode=0o700)
    with running_server(folder):
        assert folder.stat().st_uid == unprivileged_uid()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_programs_out_of_reach_are_copied_into_the_folder(
    folder: Path, parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A virtual environment below root's home stays closed; what root runs stays root's."""
    closed = parent / "home-of-root"
    closed.mkdir(mode=0o700)
    wheel = wheel_bin_dir().parents[1]
    for tree in (wheel, wheel.with_name(f"{wheel.name}.libs")):
        if tree.exists():
            shutil.copytree(tree, closed / tree.name)
    bin_dir = closed / wheel.name / "pginstall" / "bin"
    monkeypatch.setenv("FLASHSLIDES_PG_BIN", str(bin_dir))
    with running_server(folder) as server:
        assert server.bin_dir == bin_dir
        assert sql(server.connection, "SHOW shared_preload_libraries") == [("pg_stat_statements",)]
        program = Path(f"/proc/{server.pid}/exe").readlink()
        assert program.is_relative_to(folder / "binaries" / server.version)
    with running_server(folder) as server:
        assert len(list((folder / "binaries").iterdir())) == 1
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_a_folder_out_of_reach_is_refused(parent: Path) -> None:
    """Where it was asked for, the sentence names the account and a way out; nothing is made."""
    closed = parent / "home-of-root"
    closed.mkdir(mode=0o700)
    with (
        pytest.raises(LocalPostgresError, match=r"cannot enter .* FLASHSLIDES_DATA_DIR"),
        running_server(closed / "some" / "data"),
    ):
        pass
    assert not list(closed.iterdir())
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_the_default_folder_moves_where_the_account_reaches_it(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root's own home is closed to the server nearly everywhere."""
    monkeypatch.delenv("FLASHSLIDES_DATA_DIR")
    monkeypatch.setenv("XDG_DATA_HOME", str(parent))
    assert data_folder() == parent / "flashslides"
    parent.chmod(0o700)
    assert data_folder() == Path("/var/lib/flashslides")
    parent.chmod(0o755)


def test_missing_parents_are_made_passable(folder: Path) -> None:
    """Whatever root's umask is: the account has to pass them."""
    before = os.umask(0o077)
    try:
        with running_server(folder / "deeper" / "data") as server:
            assert sql(server.connection, "SELECT 1") == [(1,)]
    finally:
        os.umask(before)


def test_data_of_roots_own_is_named(folder: Path) -> None:
    """PostgreSQL would refuse it in words that do not say what to do."""
    with running_server(folder):
        pass
    os.chown(folder / "pgdata", 0, 0)
    os.chown(folder, 0, 0)
    folder.chmod(0o755)
    with (
        pytest.raises(LocalPostgresError, match=r"belongs to the account `root`.*chown -R"),
        running_server(folder),
    ):
        pass
