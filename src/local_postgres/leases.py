"""Who uses the server: file locks that vanish when their process dies.

A lease is a file that its holder keeps locked. Whether it is alive is whether it is locked, so a
killed process leaves nothing behind that could be mistaken for a user of the server.
"""

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from src.local_postgres.accounts import Account
from src.local_postgres.errors import LocalPostgresError
from src.local_postgres.locations import Layout, make_private_folder

_MAIN_LOCK_TIMEOUT_SECONDS = 180.0
_SERVER_LOCK_TIMEOUT_SECONDS = 60.0
_POLL_SECONDS = 0.05
_OWNER_ONLY = 0o600


@dataclass(frozen=True)
class Lease:
    """A locked file that says: this process uses the server."""

    path: Path
    descriptor: int


@contextmanager
def main_lock(layout: Layout, account: Account, report: Callable[[str], None]) -> Generator[None]:
    """Be the only one who starts, attaches, leaves or stops.

    Raises:
        LocalPostgresError: if somebody else holds the lock for minutes.
    """
    descriptor = _open(layout.main_lock, account)
    try:
        if not _try_lock(descriptor):
            report("Waiting for another process that starts or stops the server")
            _lock(
                descriptor,
                f"Another process has been starting or stopping the server in {layout.folder} for "
                f"minutes. See whether it hangs (it holds {layout.main_lock}), end it, and try "
                f"again.",
                _MAIN_LOCK_TIMEOUT_SECONDS,
            )
        yield
    finally:
        os.close(descriptor)


def take_lease(layout: Layout, account: Account) -> Lease:
    """Become a user of the server (with the main lock held)."""
    make_private_folder(layout.leases, account)
    _remove_dead(layout)
    path = layout.leases / f"{os.getpid()}-{secrets.token_hex(4)}"
    descriptor = _open(path, account)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return Lease(path, descriptor)


def drop_lease(lease: Lease) -> None:
    """Stop being a user of the server (with the main lock held)."""
    lease.path.unlink(missing_ok=True)
    os.close(lease.descriptor)


def holders(layout: Layout) -> tuple[int, ...]:
    """Return the process ids of the living users of the server, one for each lease."""
    if not layout.leases.is_dir():
        return ()
    alive = [path for path in layout.leases.iterdir() if is_locked(path)]
    return tuple(sorted(int(path.name.split("-")[0]) for path in alive))


def is_locked(path: Path) -> bool:
    """Whether a living process holds this lock."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who look at the same time do not take each other for the holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


@contextmanager
def server_lock(layout: Layout, account: Account) -> Generator[int]:
    """Lock the server's lock for the processes that work on `pgdata`, started within the block.

    Closing our descriptor leaves the lock with those that inherited it.

    Raises:
        LocalPostgresError: if processes of an earlier server hold it and do not end.
    """
    descriptor = _open(layout.server_lock, account)
    try:
        _lock(
            descriptor,
            f"Processes of an earlier database server in {layout.folder} still run. End them "
            f"(they hold {layout.server_lock}), and try again.",
            _SERVER_LOCK_TIMEOUT_SECONDS,
        )
        yield descriptor
    finally:
        os.close(descriptor)


def _open(path: Path, account: Account) -> int:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    except FileExistsError:
        return os.open(path, flags)
    account.own(descriptor)
    return descriptor


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock(descriptor: int, complaint: str, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not _try_lock(descriptor):
        if time.monotonic() > deadline:
            raise LocalPostgresError(complaint)
        time.sleep(_POLL_SECONDS)


def _remove_dead(layout: Layout) -> None:
    for path in layout.leases.iterdir():
        if not is_locked(path):
            path.unlink(missing_ok=True)
