"""Finds what the harness runs, and the ordinary account to run it as."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from src.local_postgres.accounts import Account, account_for, run_as
from src.local_postgres.binaries import NEWEST_MAJOR, OLDEST_MAJOR

ROOT = Path(__file__).resolve().parents[2]
_DEBIAN_S_POSTGRES = Path("/usr/lib/postgresql")
_DEBIAN_S_PACKAGES = {
    "etcd": "etcd-server",
    "etcdctl": "etcd-client",
    "haproxy": "haproxy",
    "pgbouncer": "pgbouncer",
}


class NotInstalled(Exception):
    """Something is missing that no part of this project brings; the message says what."""


def account() -> Account:
    """Whoever runs this, or for root `postgres`: PostgreSQL and PgBouncer refuse to run as root."""
    return account_for(_DEBIAN_S_POSTGRES)


def program(name: str) -> Path:
    """Where a program is; a variable in capitals (`PGBOUNCER`) names another one.

    Raises:
        NotInstalled: it is nowhere.
    """
    named = os.environ.get(name.upper())
    found = shutil.which(named or name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if found is None:
        package = _DEBIAN_S_PACKAGES[name]
        raise NotInstalled(f"{named or name} is not installed: apt-get install {package}")
    return Path(found)


def postgres_programs() -> Path:
    """The folder of Debian's PostgreSQL, the newest that the project supports.

    Raises:
        NotInstalled: there is none.
    """
    for major in range(NEWEST_MAJOR, OLDEST_MAJOR - 1, -1):
        folder = _DEBIAN_S_POSTGRES / str(major) / "bin"
        if (folder / "postgres").exists():
            return folder
    raise NotInstalled(
        f"No PostgreSQL {OLDEST_MAJOR} to {NEWEST_MAJOR} in {_DEBIAN_S_POSTGRES}: "
        "apt-get install postgresql"
    )


def python_for(runner: Account) -> Path:
    """A Python that the account can run: this one, or the system's where this one is root's.

    Raises:
        NotInstalled: it can run neither.
    """
    for candidate in (Path(sys.executable), *_pythons_of_system()):
        try:
            if run_as(runner, [candidate, "-c", "pass"]).returncode == 0:
                return candidate
        except PermissionError:
            continue
    raise NotInstalled(
        f"The account {runner.name} can run no Python: this one is in a folder closed to it, and "
        "there is none in /usr/bin"
    )


def install_patroni(folder: Path, runner: Account) -> Path:
    """Install Patroni, at the version of the dependency group `failover`, below `folder`.

    Returns the Python that has it.

    Raises:
        NotInstalled: the packages cannot be had.
    """
    wanted = folder / "patroni.txt"
    home = folder / "patroni"
    python = home / "bin" / "python"
    for command in (
        ["export", "--only-group", "failover", "--no-emit-project", "-o", str(wanted)],
        ["venv", "--python", str(python_for(runner)), str(home)],
        ["pip", "install", "--python", str(python), "-r", str(wanted)],
    ):
        done = subprocess.run(
            ["uv", *command],  # noqa: S607  from PATH, as everywhere
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise NotInstalled(f"uv {command[0]} failed for Patroni: {done.stderr[-2_000:]}")
    return python


def _pythons_of_system() -> Iterable[Path]:
    return sorted(Path("/usr/bin").glob("python3"))
