"""A server that is started, shared by several processes, and stopped by the last."""

import os
import signal
import stat
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace

import psycopg
import pytest
from dirty_equals import IsStr

from src.local_postgres import (
    LocalPostgresError,
    accounts,
    postmaster,
    read_connection,
    running_server,
    start,
    status,
    stop,
)
from src.local_postgres.accounts import Account
from src.local_postgres.leases import server_lock
from src.local_postgres.locations import layout_of
from tests.local_postgres.machine import connect, holder, python, read_line, sql


def test_a_new_server_is_durable_and_private(
    folder: Path, bin_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is committed survives a power cut, and only the password on loopback lets in."""
    monkeypatch.setenv("FLASHSLIDES_PG_BIN", str(bin_dir))
    with running_server(folder) as server:
        assert server.started_here
        assert server.bin_dir == bin_dir
        shown = {
            name: sql(server.connection, f"SHOW {name}")[0][0]
            for name in (
                "fsync",
                "full_page_writes",
                "synchronous_commit",
                "data_checksums",
                "password_encryption",
                "listen_addresses",
                "unix_socket_directories",
                "max_connections",
                "timezone",
                "server_encoding",
                "shared_preload_libraries",
                "server_version",
            )
        }
        assert shown == {
            "fsync": "on",
            "full_page_writes": "on",
            "synchronous_commit": "on",
            "data_checksums": "on",
            "password_encryption": "scram-sha-256",
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(folder / "pgdata"),
            "max_connections": "120",
            "timezone": "UTC",
            "server_encoding": "UTF8",
            "shared_preload_libraries": "pg_stat_statements",
            "server_version": IsStr(regex=f"{server.version}.*"),
        }
        methods = sql(server.connection, "SELECT DISTINCT auth_method FROM pg_hba_file_rules")
        assert methods == [("scram-sha-256",)]
        assert sql(server.connection, "SELECT lower('ÄÖ'), 'a' > 'B'") == [("äö", True)]
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            connect(server.connection, password="not it")


def test_data_and_address_outlive_the_server(
    folder: Path, bin_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second start serves the same data at the same URL, with programs of the same version."""
    monkeypatch.setenv("FLASHSLIDES_PG_BIN", str(bin_dir))
    with running_server(folder) as first:
        sql(first.connection, "CREATE TABLE kept AS SELECT 7 AS number")
    monkeypatch.delenv("FLASHSLIDES_PG_BIN")
    with running_server(folder) as second:
        assert second.started_here
        assert second.connection == first.connection == read_connection(folder)
        assert second.version == first.version
        assert sql(second.connection, "SELECT number FROM kept") == [(7,)]
    assert not status(folder).running


def test_the_password_is_in_one_private_file_only(folder: Path) -> None:
    """Nobody else may read it, and neither the log nor a repr shows it."""
    with running_server(folder) as server:
        password = server.connection.password
        with pytest.raises(psycopg.Error):
            sql(server.connection, "SELECT no_such_column")
    holding = [
        path
        for path in folder.rglob("*")
        if path.is_file() and password.encode() in path.read_bytes()
    ]
    assert holding == [folder / "connection.json"]
    assert stat.S_IMODE(holding[0].stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert password not in repr(server)
    assert len(password) >= 32


@pytest.mark.usefixtures("made")
def test_settings_of_the_starter_count_for_this_run_only(folder: Path) -> None:
    """Extra settings win over ours, whatever their characters, and are gone at the next start."""
    settings = {
        "max_connections": "30",
        "shared_preload_libraries": "",
        "cluster_name": r"it's \ a",
    }
    with running_server(folder, settings=settings) as server:
        assert sql(server.connection, "SHOW max_connections") == [("30",)]
        assert sql(server.connection, "SHOW shared_preload_libraries") == [("",)]
        assert sql(server.connection, "SHOW cluster_name") == [(r"it's \ a",)]
    with running_server(folder) as server:
        assert sql(server.connection, "SHOW max_connections") == [("120",)]


@pytest.mark.usefixtures("made")
def test_a_database_that_was_dropped_is_made_again(folder: Path) -> None:
    """Dropping the database is a way to begin anew."""
    with running_server(folder) as server:
        sql(server.connection, "CREATE DATABASE other")
        sql(server.connection, "DROP DATABASE flashslides", database="other")
    with running_server(folder) as server:
        assert sql(server.connection, "SELECT current_database()") == [("flashslides",)]


def test_a_long_path_goes_without_a_unix_socket(folder: Path) -> None:
    """The path of a socket has a limit of about a hundred bytes; TCP has none."""
    deep = folder / ("d" * 60) / ("e" * 60)
    try:
        with running_server(deep) as server:
            assert sql(server.connection, "SHOW unix_socket_directories") == [("",)]
    finally:
        stop(deep, force=True)


def test_processes_that_start_at_once_share_one_server(folder: Path) -> None:
    """Of four processes that find nothing, one makes the server and the last one stops it."""
    with ExitStack() as stack:
        processes = [stack.enter_context(holder(folder)) for _ in range(4)]
        lines = [read_line(process).split() for process in processes]
        assert len({pid for pid, _ in lines}) == 1
        assert sorted(started for _, started in lines) == ["False", "False", "False", "True"]
        assert status(folder).holders == tuple(sorted(process.pid for process in processes))
        for left, process in enumerate(processes, start=1):
            process.communicate()
            assert process.returncode == 0
            assert status(folder).running == (left < len(processes))


@pytest.mark.usefixtures("made")
def test_ctrl_c_stops_the_server(folder: Path) -> None:
    """The signal that ends the only user ends the server, through the user and not by itself."""
    with holder(folder) as process:
        read_line(process)
        process.send_signal(signal.SIGINT)
        assert read_line(process) == "interrupted\n"  # before its input ends, which ends it too
        assert process.communicate() == ("", "")
    assert process.returncode == 0
    assert not status(folder).running
    assert "fast shutdown request" in (folder / "server.log").read_text()


_SLOW_START = """
import time
from src.local_postgres import bring_up
ask, up_from = bring_up.ask, time.monotonic() + 4
def not_yet(*arguments):
    return ask(*arguments) if time.monotonic() > up_from else bring_up.Silence("it starts")
bring_up.ask = not_yet
with running_server(Path(sys.argv[1])):
    sys.stdin.readline()
"""


@pytest.mark.usefixtures("made")
def test_ctrl_c_while_the_server_starts_leaves_none(folder: Path) -> None:
    """However long it takes to come up: here, longer than clients are waited for."""
    with python(_SLOW_START, folder) as process:
        while not (folder / "pgdata" / "postmaster.pid").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert not status(folder).running


@pytest.mark.usefixtures("made")
def test_a_killed_holder_is_no_holder(folder: Path) -> None:
    """The orphaned server is attached to, and stopped by whoever leaves last."""
    with holder(folder) as process:
        pid = int(read_line(process).split()[0])
        process.kill()
    assert status(folder).running
    assert status(folder).holders == ()
    with running_server(folder) as server:
        assert not server.started_here
        assert server.pid == pid
        assert len(list((folder / "leases").iterdir())) == 1
    assert not status(folder).running


@pytest.mark.usefixtures("made")
def test_a_server_started_to_keep_running_outlives_its_users(folder: Path) -> None:
    """Only `stop` ends it; then it is an ordinary server again."""
    started = start(folder)
    assert started.started_here
    assert not start(folder).started_here
    with running_server(folder) as server:
        assert server.pid == started.pid
    seen = status(folder)
    assert (seen.running, seen.pid, seen.keep_running) == (True, started.pid, True)
    assert seen.since is not None
    assert (seen.version, seen.port) == (started.version, started.connection.port)
    assert stop(folder) is True
    assert stop(folder) is False
    with running_server(folder):
        assert not status(folder).keep_running
    assert not status(folder).running


@pytest.mark.usefixtures("made")
def test_start_makes_a_server_that_others_use_keep_running(folder: Path) -> None:
    """`db start` beside a running `serve` lets the server outlive `serve`."""
    with running_server(folder) as server:
        assert start(folder).pid == server.pid
    assert status(folder).running


@pytest.mark.usefixtures("made")
def test_a_server_in_use_is_stopped_by_force_only(folder: Path) -> None:
    """Without force the refusal names who uses it."""
    with running_server(folder):
        with pytest.raises(LocalPostgresError, match=f"in use by process {os.getpid()}"):
            stop(folder)
        assert status(folder).running
        assert stop(folder, force=True)
        assert not status(folder).running


@pytest.mark.usefixtures("made")
def test_a_stopped_server_has_no_process_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`stop` waits for a process that ends later than the file that names the server."""
    run_as = accounts.run_as
    with ExitStack() as straggler, running_server(folder):

        def outlived(account: Account, command: Sequence[str | Path]) -> CompletedProcess[str]:
            result = run_as(account, command)
            straggler.enter_context(server_lock(layout_of(folder), account))
            return result

        waits: list[float] = []

        def wait(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 2:
                straggler.close()

        monkeypatch.setattr(postmaster, "run_as", outlived)
        clock = SimpleNamespace(monotonic=time.monotonic, sleep=wait)
        monkeypatch.setattr(postmaster, "time", clock)
        assert stop(folder, force=True)
        assert len(waits) == 2
        assert not status(folder).running


@pytest.mark.usefixtures("made")
def test_clients_without_a_lease_keep_the_server(folder: Path) -> None:
    """Somebody's psql is not cut off; the next last user stops the server."""
    with running_server(folder) as server:
        client = connect(server.connection)
    with client:
        assert client.execute("SELECT 1").fetchone() == (1,)
    assert status(folder).running
    with running_server(folder) as server:
        assert not server.started_here
    assert not status(folder).running


@pytest.mark.usefixtures("made")
def test_an_error_in_the_block_still_stops_the_server(folder: Path) -> None:
    """And it is the error that the caller sees."""
    with pytest.raises(ZeroDivisionError), running_server(folder):
        raise ZeroDivisionError
    assert not status(folder).running


def test_looking_makes_nothing(folder: Path) -> None:
    """Status, address and stop of a server that never was leave no trace."""
    seen = status(folder)
    assert (seen.running, seen.version, seen.port, seen.holders) == (False, None, None, ())
    assert read_connection(folder) is None
    assert stop(folder) is False
    assert not folder.exists()


def test_progress_is_told(folder: Path) -> None:
    """The first start takes a second or more, and says what it does."""
    told: list[str] = []
    with running_server(folder, on_progress=told.append):
        pass
    assert told == [
        IsStr(regex=f"Making a new database in {folder} .*"),
        IsStr(regex=r"Starting PostgreSQL 1\d\.\d+"),
    ]


def test_whoever_has_to_wait_is_told_why(folder: Path) -> None:
    """Another process makes the database meanwhile; both end up on the same server."""
    told: list[str] = []
    with holder(folder) as process:
        while not list(folder.glob("pgdata.new-*")):
            assert process.poll() is None
        with running_server(folder, on_progress=told.append) as server:
            assert read_line(process) == f"{server.pid} True\n"
            assert not server.started_here
            process.communicate()
    assert told[0] == "Waiting for another process that starts or stops the server"
    assert not status(folder).running


@pytest.mark.usefixtures("made")
def test_a_long_log_is_moved_aside(folder: Path) -> None:
    """The log does not grow for ever; the one before is kept."""
    with (folder / "server.log").open("ab") as log:
        log.truncate(10_000_001)
    with running_server(folder):
        pass
    assert (folder / "server.log.1").stat().st_size == 10_000_001
    assert 0 < (folder / "server.log").stat().st_size < 100_000
