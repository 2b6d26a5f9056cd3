"""After every kind of violent end, the next start serves what was committed."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from src.local_postgres import (
    LocalPostgresError,
    read_connection,
    running_server,
    start,
    status,
)
from tests.local_postgres.machine import holder, python, read_line, sql

_MAKER = """
with running_server(Path(sys.argv[1])):
    pass
"""


@pytest.mark.usefixtures("made")
def test_a_killed_server_comes_back_with_what_was_committed(folder: Path) -> None:
    """The postmaster killed with -9: recovery from the log, and a clean stop afterwards."""
    with running_server(folder) as killed:
        sql(killed.connection, "CREATE TABLE kept AS SELECT 7 AS number")
        os.kill(killed.pid, signal.SIGKILL)
        with running_server(folder) as server:
            assert server.started_here
            assert server.pid != killed.pid
            assert server.connection == killed.connection
            assert sql(server.connection, "SELECT number FROM kept") == [(7,)]
        assert status(folder).running  # for the outer user
    assert not status(folder).running
    log = (folder / "server.log").read_text()
    assert "automatic recovery in progress" in log
    assert log.rstrip().endswith("database system is shut down")


@pytest.mark.usefixtures("made")
def test_leaving_a_killed_server_is_no_error(folder: Path) -> None:
    """The last user of a server that is gone has nothing to stop."""
    with running_server(folder) as server:
        os.kill(server.pid, signal.SIGKILL)
    assert not status(folder).running


@pytest.mark.usefixtures("made")
def test_server_and_holder_killed_together_leave_nothing_in_the_way(folder: Path) -> None:
    """As after a power cut, but for the lock files and the pid file that stay behind."""
    with holder(folder) as process:
        server_pid = int(read_line(process).split()[0])
        process.kill()
    os.kill(server_pid, signal.SIGKILL)
    with running_server(folder) as server:
        assert server.started_here
        assert sql(server.connection, "SELECT 1") == [(1,)]
    assert not status(folder).running


@pytest.mark.usefixtures("made")
def test_a_crash_ends_the_wish_to_keep_running(folder: Path) -> None:
    """A server that `serve` had to start again stops with `serve`."""
    os.kill(start(folder).pid, signal.SIGKILL)
    with running_server(folder) as server:
        assert server.started_here
    assert not status(folder).running


@pytest.mark.usefixtures("made")
def test_a_pid_file_that_names_another_program_is_stale(folder: Path) -> None:
    """The number may be in use again, for instance after a reboot; that program is left alone."""
    with running_server(folder):
        pid_file = (folder / "pgdata" / "postmaster.pid").read_text().splitlines()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
        pid_file[0] = str(bystander.pid)
        (folder / "pgdata" / "postmaster.pid").write_text("\n".join(pid_file) + "\n")
        assert not status(folder).running
        with running_server(folder) as server:
            assert server.started_here
            assert server.pid != bystander.pid
        assert bystander.poll() is None
        bystander.communicate()


@pytest.mark.usefixtures("made")
def test_an_empty_pid_file_is_stale(folder: Path) -> None:
    """PostgreSQL itself refuses to start beside it."""
    (folder / "pgdata" / "postmaster.pid").touch()
    with running_server(folder) as server:
        assert server.started_here


def test_an_interrupted_first_start_recovers_by_itself(folder: Path) -> None:
    """Killed amid initdb, it leaves a scratch folder, which the next start removes."""
    with python(_MAKER, folder) as process:
        while not list(folder.glob("pgdata.new-*/pgdata/global")):
            assert process.poll() is None
        process.kill()
    assert not (folder / "pgdata").exists()
    assert read_connection(folder) is None
    with running_server(folder) as server:
        assert server.started_here
    assert not list(folder.glob("pgdata.new-*"))


@pytest.mark.usefixtures("made")
def test_a_lost_password_is_replaced(folder: Path) -> None:
    """Whoever owns the data can open it: a new password is set, and the data stays."""
    with running_server(folder) as before:
        sql(before.connection, "CREATE TABLE kept AS SELECT 7 AS number")
    (folder / "connection.json").unlink()
    with running_server(folder) as server:
        assert server.connection.password != before.connection.password
        assert sql(server.connection, "SELECT number FROM kept") == [(7,)]


@pytest.mark.usefixtures("made")
def test_a_damaged_password_file_says_how_to_mend_it(folder: Path) -> None:
    """It is not overwritten unasked."""
    (folder / "connection.json").write_text('{"password": ')
    with pytest.raises(LocalPostgresError, match=r"connection\.json is damaged\. Remove it"):
        start(folder)


@pytest.mark.usefixtures("made")
def test_a_running_server_with_another_password_is_named(folder: Path) -> None:
    """Attaching fails at once, with the reason, when somebody changed the password by hand."""
    with running_server(folder) as server:
        sql(server.connection, "ALTER ROLE postgres PASSWORD 'changed'")
        with pytest.raises(LocalPostgresError, match="password authentication failed"):
            start(folder)
        changed = replace(server.connection, password="changed")
        sql(changed, f"ALTER ROLE postgres PASSWORD '{server.connection.password}'")
    assert not status(folder).running


@pytest.mark.usefixtures("made")
def test_a_server_with_other_data_is_not_ours(folder: Path, parent: Path) -> None:
    """A copied folder names the port, the password and the process of the original."""
    with running_server(folder) as original:
        copy = parent / "copy"
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(".s.PGSQL.*", "leases"))
        for path in (copy, *copy.rglob("*")):
            shutil.chown(path, folder.stat().st_uid, folder.stat().st_gid)
        assert not status(copy).running
        with pytest.raises(LocalPostgresError, match=f"Port {original.connection.port} .* in use"):
            start(copy)
        assert sql(original.connection, "SELECT 1") == [(1,)]
