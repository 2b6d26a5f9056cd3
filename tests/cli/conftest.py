"""The command in this process, on the test's own outer database transaction."""

import json
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.orm import Session

from src.cli import work
from src.cli.main import main
from src.common.models.user import User
from src.common.settings import Settings
from src.common.stripe import gateway
from src.common.stripe.gateway import Gateway
from src.local_postgres import free_port
from tests.cli.processes import Program
from tests.fixtures.api import logging_restored
from tests.fixtures.commands import forked_commands
from tests.fixtures.folders import copy_data, folder_for_data
from tests.models.examples import a_user
from tests.stripe.loop import Loop, start_loop


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    exit_code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


RunCommand = Callable[..., Result]
Note = Callable[[str, str, int, str], None]
RunAs = Callable[[str | None], None]


def after(cursor: str | None) -> tuple[str, ...]:
    """The options that ask for the page after another; the first page, where there is none."""
    return () if cursor is None else ("--cursor", cursor)


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder, where development keys go."""
    folder = tmp_path / "data"
    monkeypatch.setenv("FLASHSLIDES_DATA_DIR", str(folder))
    return folder


@pytest.fixture
def run_command(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Generator[RunCommand]:
    """Run `flashslides` with arguments, through its own entry point."""
    assert data_folder
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # main() has its own
    monkeypatch.setenv("PYDANTIC_DISABLE_PLUGINS", "__all__")
    monkeypatch.setattr("src.cli.main.collect_late", lambda: None)
    by_ctrl_c = signal.getsignal(signal.SIGINT)

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["flashslides", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        signal.signal(signal.SIGINT, by_ctrl_c)
        code = caught.value.code
        captured = capsys.readouterr()
        return Result(code if isinstance(code, int) else 0, captured.out, captured.err)

    with logging_restored():
        yield run


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Note:
    """Note what a command answered under a condition, for `just answers`."""

    def write(name: str, condition: str, exit_code: int, said: str) -> None:
        record_property(f"{name}|{condition}", f"{exit_code}|{said}")

    return write


@pytest.fixture
def run_as(monkeypatch: pytest.MonkeyPatch) -> RunAs:
    """Run what follows as this account of the operating system; None is one without a name."""

    def become(account: str | None) -> None:
        def entry(_uid: int) -> SimpleNamespace:
            if account is None:
                raise KeyError
            return SimpleNamespace(pw_name=account)

        monkeypatch.setattr("pwd.getpwuid", entry)

    return become


@pytest.fixture
def user(db: Session) -> User:
    """A user without credits."""
    person = a_user()
    db.add(person)
    db.commit()
    return person


@pytest.fixture
def loop(db: Session, monkeypatch: pytest.MonkeyPatch) -> Loop:
    """An offline Stripe, which the commands and the worker's steps ask too."""
    assert db
    loop = start_loop()

    @asynccontextmanager
    async def opened(_settings: Settings) -> AsyncGenerator[Gateway | None]:
        yield loop.processor.gateway

    for module in (gateway, work):
        monkeypatch.setattr(module, "open_gateway", opened)
    monkeypatch.setattr(work, "get_settings", lambda: loop.processor.settings)
    monkeypatch.setenv("STRIPE_SECRET_KEY", "sk_test_1")
    return loop


@pytest.fixture
def flashslides(db: Session, run_command: RunCommand) -> RunCommand:
    """Run `flashslides`; what it commits is gone after the test."""
    db.connection().detach()  # each command closes the pool that this connection is from
    return run_command


@pytest.fixture
def reader(migrated_data: Path) -> Generator[Program]:
    """Whoever follows a page: a folder, and the command with a data folder and a port."""
    with folder_for_data() as folder:
        copy_data(migrated_data, folder / "data")
        environment = {
            "FLASHSLIDES_DATA_DIR": str(folder / "data"),
            "FLASHSLIDES_PG_PORT": str(free_port()),
            "PATH": f"{forked_commands()}:/usr/local/bin:/usr/bin:/bin",
        }
        yield Program(folder, environment)
