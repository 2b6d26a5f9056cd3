"""A command that tests have forked is as one that is started."""

import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.processes import PATIENCE_SECONDS, Program, stop


@pytest.mark.parametrize("arguments", [("--version",), ("no-such-command",), ("db", "url")])
def test_it_has_the_arguments_folder_streams_and_exit_code(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """Good, badly used, and with a setting in the folder's `.env` that is wrong."""
    (tmp_path / ".env").write_text("DATABASE_PORT=none")
    forked = Program(tmp_path, {"COLUMNS": "60"})
    ended = [
        subprocess.run(
            [program.command, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=dict(program.environment),
        )
        for program in (forked, replace(forked, is_installed=True))
    ]
    answers = [(each.returncode, each.stdout, each.stderr) for each in ended]
    assert answers[0] == answers[1]
    assert answers[0][0] == {"--version": 0, "no-such-command": 2, "db": 78}[arguments[0]]


def test_who_is_killed_takes_the_command_along(tmp_path: Path) -> None:
    """It was waiting for a server that takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        environment = {
            "DATABASE_HOST": "127.0.0.1",
            "DATABASE_PORT": str(listening.getsockname()[1]),
            "DATABASE_CONNECT_TIMEOUT_SECONDS": str(PATIENCE_SECONDS),
        }
        process = Program(tmp_path, environment).start("user", "show", "ada@example.com")
        listening.settimeout(PATIENCE_SECONDS)
        connection, _ = listening.accept()
        with connection:
            connection.settimeout(PATIENCE_SECONDS)
            process.kill()
            while connection.recv(1_024):
                pass
    assert stop(process) == -9
