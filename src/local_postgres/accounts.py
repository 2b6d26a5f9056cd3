"""The operating system's account that the server runs under, and running programs as it.

PostgreSQL refuses to run as root. An ordinary user runs it as themselves; root runs it as an
account that exists already. No account is ever created.
"""

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from src.local_postgres.errors import LocalPostgresError

ROOT = 0
_UNPRIVILEGED_NAMES = ("postgres", "nobody")
# Everything else stays with us: the server has no business with the API keys in our environment.
_PASSED_VARIABLES = (
    "PATH",
    "HOME",
    "TMPDIR",
    "TZDIR",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
)


@dataclass(frozen=True)
class Account:
    """An existing account of the operating system."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str

    def own(self, descriptor_or_path: int | Path) -> None:
        """Give a file this process has just made to the account (only root can and has to)."""
        if not is_root():
            return
        if isinstance(descriptor_or_path, int):
            os.fchown(descriptor_or_path, self.uid, self.gid)
        else:
            os.chown(descriptor_or_path, self.uid, self.gid, follow_symlinks=False)


def is_root() -> bool:
    """Whether this process is root, whom PostgreSQL refuses."""
    return os.geteuid() == ROOT


def own_account() -> Account:
    """Return the account this process runs under."""
    return _account(os.geteuid())


def account_for(*places: Path) -> Account:
    """Return who runs the server: ourselves, or for root the owner of the first place that exists.

    Where root owns every place, or none exists yet, it is `postgres`, or else `nobody`.

    Raises:
        LocalPostgresError: if root finds none of them on this machine.
    """
    if not is_root():
        return own_account()
    for place in places:
        if place.exists() and (owner := place.stat().st_uid) != ROOT:
            return _account(owner)
    for name in _UNPRIVILEGED_NAMES:
        try:
            return _account(pwd.getpwnam(name).pw_uid)
        except KeyError:
            continue
    raise LocalPostgresError(
        "PostgreSQL does not run as root, and this machine has neither an account `postgres` nor "
        "`nobody`. Run this command as an ordinary user."
    )


def name_of(uid: int) -> str:
    """Return the name of an account for a sentence, its number where it has no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"number {uid}"


def _account(uid: int) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:  # a container started with an arbitrary number
        return Account(uid, uid, (), name_of(uid))
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Account(uid, entry.pw_gid, groups, entry.pw_name)


def run_as(
    account: Account,
    command: Sequence[str | Path],
    *,
    stdin_text: str = "",
    kept_descriptors: Sequence[int] = (),
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end as `account`, with a bare environment and English messages.

    Raises:
        PermissionError: if the account cannot reach the program.
    """
    switch = is_root()
    environment = {name: os.environ[name] for name in _PASSED_VARIABLES if name in os.environ}
    return subprocess.run(  # noqa: S603  # the programs come from binaries.py, never from outside
        [str(word) for word in command],
        input=stdin_text,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        cwd="/",  # our own current folder may be closed to the account
        env=environment | {"LC_ALL": "C"},
        pass_fds=tuple(kept_descriptors),
        user=account.uid if switch else None,
        group=account.gid if switch else None,
        extra_groups=account.groups if switch else None,
    )


def can_enter(account: Account, folder: Path) -> bool:
    """Whether the account can reach `folder`; asked of the kernel, so that ACLs count too."""
    return run_as(account, ["/bin/sh", "-c", 'cd "$1"', "sh", folder]).returncode == 0
