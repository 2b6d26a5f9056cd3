"""Interrupted anywhere, then asked again with the same key: one effect, and the books balance."""

import multiprocessing
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command as alembic_command
from sqlalchemy import Connection
from sqlalchemy.orm import Session

from src.common.credits.domain.commands import Command, Result
from src.common.credits.operations import execute
from src.common.database import SessionLocal, dispose_db, get_engine, run_in_database_transaction
from src.common.postgres import migrations
from src.common.postgres.errors import RetryableDatabaseError
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters, RunningServer, free_port, running_server
from tests.credits.books import (
    adjust,
    booked_balance,
    capture,
    check_books,
    grant,
    journal,
    make_user,
    open_hold,
    release,
    renew,
    reverse,
    spend,
)
from tests.credits.crashes import counting, deaf_proxy, interrupted, stop_immediately, work_until
from tests.credits.workers import Steps
from tests.fixtures.databases import environment_of
from tests.fixtures.folders import folder_for_data
from tests.postgres.drivers import Driver, open_connection

Prepare = Callable[[Session], Command]


def _about_a_hold(make: Callable[..., Command], *arguments: int) -> Prepare:
    def prepare(session: Session) -> Command:
        who = make_user(session, 50).user_id
        [hold] = execute(session, [open_hold(who, 20)])
        return make(who, hold.seq, *arguments)

    return prepare


def _about_a_spend(session: Session) -> Command:
    who = make_user(session, 50).user_id
    execute(session, [spend(who, 20)])
    return reverse(who, 2, 15)


OPERATIONS: dict[str, tuple[Prepare, int]] = {
    # what is prepared, and the balance once it is done
    "grant": (lambda session: grant(make_user(session).user_id, 10), 10),
    "spend": (lambda session: spend(make_user(session, 50).user_id, 10, metadata={"a": 1}), 40),
    "adjust": (lambda session: adjust(make_user(session, 50).user_id, 10), 60),
    "hold": (lambda session: open_hold(make_user(session, 50).user_id, 10), 40),
    "capture": (_about_a_hold(capture, 15), 35),
    "release": (_about_a_hold(release), 50),
    "renew": (_about_a_hold(renew, 900), 30),
    "reverse": (_about_a_spend, 45),
}


def _prepare(name: str) -> tuple[Command, int]:
    make, balance = OPERATIONS[name]
    with SessionLocal.begin() as session:
        return make(session), balance


def _check(command: Command, balance: int, entries: int) -> None:
    """The operation took effect just once."""
    with SessionLocal() as session:
        check_books(session)
        assert booked_balance(session, command.user_id) == balance
        assert len(journal(session, command.user_id)) == entries


def _entries(command: Command) -> int:
    with SessionLocal() as session:
        return len(journal(session, command.user_id))


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_connection_cut_at_any_statement(
    driver: Driver, fresh_database: ConnectionParameters, operation: str
) -> None:
    """Before each statement in turn, COMMIT included: nothing happened, and the key is free."""
    command, balance = _prepare(operation)
    with counting(driver.engine()) as statements:
        await driver.transact(Steps([[command]]))
    last = statements()
    assert last == 3  # one reads, one writes, and COMMIT

    def cut(connection: Connection) -> None:
        pid = _backend_pid(connection)
        with open_connection(fresh_database) as admin:
            admin.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])

    for number in range(1, last + 1):
        command, balance = _prepare(operation)
        before = _entries(command)
        with (
            interrupted(driver.engine(), number, cut),
            pytest.raises(RetryableDatabaseError),
        ):
            await driver.transact(Steps([[command]]))
        assert _entries(command) == before
        [result] = await driver.transact(Steps([[command]]))
        assert (result.replayed, result.balance) == (False, balance)
        _check(command, balance, before + 1)


@pytest.mark.parametrize("operation", ["spend", "capture"])
def test_a_client_killed_at_any_statement(
    fresh_database: ConnectionParameters, operation: str
) -> None:
    """Killed with -9 before each statement, and after COMMIT: whoever asks again gets it once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.credits.crashes"])
    command, balance = _prepare(operation)
    with counting(get_engine()) as statements:
        run_in_database_transaction(Steps([[command]]))
    last = statements()
    for number in range(1, last + 2):
        command, balance = _prepare(operation)
        before = _entries(command)
        ours, theirs = context.Pipe()
        with ours, theirs:
            process = context.Process(
                target=work_until,
                args=(environment_of(fresh_database), Steps([[command]]), number, theirs),
            )
            process.start()
            said = ours.recv()
            process.kill()
            process.join()
            process.close()
        assert said == ("committed" if number > last else "at the statement")
        [result] = run_in_database_transaction(Steps([[command]]))
        assert (result.replayed, result.balance) == (number > last, balance)
        _check(command, balance, before + 1)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_commit_whose_answer_is_lost(
    driver: Driver,
    fresh_database: ConnectionParameters,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
) -> None:
    """The client cannot know that it was done; asked again, it gets the first result, replayed."""
    command, balance = _prepare(operation)
    before = _entries(command)
    with deaf_proxy(fresh_database) as port:
        _use(replace(fresh_database, host="127.0.0.1", port=port), monkeypatch)
        with pytest.raises(RetryableDatabaseError):
            await driver.transact(Steps([[command]]))
        _use(fresh_database, monkeypatch)
    assert _entries(command) == before + 1
    [result] = await driver.transact(Steps([[command]]))
    assert (result.replayed, result.balance) == (True, balance)
    _check(command, balance, before + 1)


@pytest.fixture
def own_server(monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """The folder of a server that only this test uses, with the tables in it."""
    with (
        folder_for_data() as parent,
        running_server(folder := parent / "data", port=free_port()) as server,
    ):
        _use(server.connection, monkeypatch)
        alembic_command.upgrade(migrations.alembic_config(), "head")
        yield folder
        dispose_db()
    monkeypatch.undo()
    get_settings.cache_clear()


def test_a_server_stopped_at_once(own_server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`immediate`, before the first write, before COMMIT and after it: recovery tells the same."""
    command, balance = _prepare("spend")
    with counting(get_engine()) as statements:
        run_in_database_transaction(Steps([[command]]))
    last = statements()

    def stop(server: RunningServer) -> Callable[[Connection], None]:
        return lambda _connection: stop_immediately(server.pid)

    for number in (4, last, last + 1):
        command, balance = _prepare("spend")
        before = _entries(command)
        with running_server(own_server) as server:
            assert isinstance(server, RunningServer)
            if number <= last:
                with (
                    interrupted(get_engine(), number, stop(server)),
                    pytest.raises(RetryableDatabaseError),
                ):
                    _work(command)
            else:
                _work(command)
                stop_immediately(server.pid)
            dispose_db()
        with running_server(own_server) as again:
            _use(again.connection, monkeypatch)
            [result] = _work(command)
            assert (result.replayed, result.balance) == (number > last, balance)
            _check(command, balance, before + 1)


def _work(command: Command) -> list[Result]:
    return run_in_database_transaction(Steps([[command]]))


def _use(database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment_of(database).items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()


def _backend_pid(connection: Connection) -> int:
    """Whose connection this is, asked of the driver so that no statement is sent."""
    driver_connection = connection.connection.driver_connection
    assert driver_connection is not None
    if connection.dialect.driver == "psycopg":
        return int(driver_connection.info.backend_pid)
    return int(driver_connection.get_server_pid())
