"""Ctrl-C is one line and exit code 130, whatever a command is at."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from pydantic_core import SchemaError

from src.common import observability
from src.common.postgres import reach
from src.local_postgres import ConnectionParameters, free_port
from tests.cli.conftest import Note, RunCommand
from tests.cli.every_command import COMMAND_LINES, WITHOUT_DATABASE, arguments_of
from tests.cli.processes import PATIENCE_SECONDS, Program, stop
from tests.cli.test_worker_threads import silent_server, until
from tests.fixtures.databases import environment_of

ROOT = Path(__file__).parents[2]
INTERRUPTED = "flashslides: Interrupted\n"
WHILE_IMPORTING = """
import os, signal, sys
class AtImport:
    def find_spec(self, name, *_):
        if name == "src.cli.verify":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, AtImport())
from src.cli.main import main
main()
"""
WHILE_PYTHON_ENDS = """
import os, signal
from src.cli.main import main
try:
    main()
finally:
    os.kill(os.getpid(), signal.SIGINT)
"""


WHILE_AN_EVENT_LOOP_ENDS = """
import asyncio, contextlib, os, signal, time
from src.cli import server_processes

def press():
    os.kill(os.getpid(), signal.SIGINT)

def press_again():
    time.sleep(0.5)
    press()
    time.sleep(0.2)

async def application(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    loop = asyncio.get_running_loop()
    loop.call_later(0.2, press)
    await receive()
    loop.run_in_executor(None, press_again)
    await send({"type": "lifespan.shutdown.complete"})

server_processes.import_application = lambda name: None
with contextlib.suppress(KeyboardInterrupt):
    server_processes.run_server(application, hang_timeout_seconds=60, port=0, loop="uvloop")
    print("ended as if nobody had pressed it")
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""


def test_again_while_a_server_s_event_loop_ends(tmp_path: Path) -> None:
    """By an impatient hand, or by `uv run`, which passes it on: nothing more is said."""
    ended = subprocess.run(
        [sys.executable, "-c", WHILE_AN_EVENT_LOOP_ENDS],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        timeout=PATIENCE_SECONDS,
    )
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    assert "Finished server process" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(("program", "printed"), [(WHILE_IMPORTING, 0), (WHILE_PYTHON_ENDS, 1)])
def test_before_and_after_a_command(program: str, printed: int, tmp_path: Path) -> None:
    """While it imports what it needs, and while Python ends, what was printed or not."""
    ended = subprocess.run(
        [sys.executable, "-c", program, "--version"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        timeout=PATIENCE_SECONDS,
    )
    assert (ended.returncode, ended.stderr) == (130, INTERRUPTED)
    assert len(ended.stdout.splitlines()) == printed


@pytest.mark.usefixtures("worker_database")
@pytest.mark.parametrize("name", sorted(COMMAND_LINES))
def test_of_every_command(
    run_command: RunCommand, monkeypatch: pytest.MonkeyPatch, note: Note, name: str
) -> None:
    """On its way to the database; where it needs none, as it begins."""

    def interrupt(*_arguments: object) -> NoReturn:
        raise KeyboardInterrupt

    if name in {*WITHOUT_DATABASE, "doctor"}:  # doctor looks whether a database is in reach itself
        monkeypatch.setattr(observability, "configure_logging", interrupt)
    else:
        monkeypatch.setattr(reach, "database_in_reach", interrupt)
    options = ["--port", str(free_port())] if name == "serve" else []
    result = run_command(*arguments_of(name), *options)
    assert (result.exit_code, result.out, result.err) == (130, "", INTERRUPTED)
    note(name, "Ctrl-C", result.exit_code, result.err.strip())


def test_while_pydantic_builds_a_model(
    run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes an error of its own of Ctrl-C; the same error without it is a defect."""

    def build(text: str) -> Callable[..., NoReturn]:
        def fail(*_arguments: object) -> NoReturn:
            raise SchemaError(text)

        return fail

    built = (
        "Error building `model` serializer:\n  SchemaError: Error building `literal` serializer:"
    )
    monkeypatch.setattr(
        observability, "configure_logging", build(f"{built}\n  KeyboardInterrupt: ")
    )
    result = run_command("verify")
    assert (result.exit_code, result.err) == (130, INTERRUPTED)
    monkeypatch.setattr(observability, "configure_logging", build(f"{built}\n  TypeError: x"))
    result = run_command("verify")
    assert (result.exit_code, "Traceback" in result.err) == (1, True)


def test_at_a_question(tmp_path: Path, worker_database: ConnectionParameters) -> None:
    """It is no answer: nothing is done."""
    program = Program(tmp_path, environment_of(worker_database), is_installed=True)
    process = program.start("user", "erase", "ada@example.com")
    until(lambda: program.said().endswith(":"))
    assert stop(process, signal.SIGINT) == 130
    assert program.said().endswith(f"[y/N]:\n{INTERRUPTED}")


def test_while_the_database_is_waited_for(tmp_path: Path) -> None:
    """A server that takes the connection and says nothing."""
    with silent_server() as (port, taken):
        environment = {"DATABASE_HOST": "127.0.0.1", "DATABASE_PORT": str(port)}
        program = Program(tmp_path, environment)
        assert_interrupted(program, taken, "user", "show", "ada@example.com")


def test_while_stripe_is_waited_for(tmp_path: Path, fresh_database: ConnectionParameters) -> None:
    """In an event loop, with a database beside it."""
    with silent_server() as (port, taken):
        environment = environment_of(fresh_database) | {
            "STRIPE_SECRET_KEY": "sk_test_1",
            "STRIPE_API_BASE_URL": f"http://127.0.0.1:{port}",
            "STRIPE_TIMEOUT_SECONDS": "600",
        }
        program = Program(tmp_path, environment)
        assert_interrupted(program, taken, "stripe", "reconcile", "--since", "2026-01-01")


def assert_interrupted(program: Program, taken: Callable[[], int], *arguments: str) -> None:
    """Start a command, and interrupt it once a connection was taken."""
    process = program.start(*arguments)
    until(lambda: taken() > 0)
    assert stop(process, signal.SIGINT) == 130
    assert program.said() == INTERRUPTED
