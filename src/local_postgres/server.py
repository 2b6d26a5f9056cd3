"""The embedded server, as the rest of the project uses it: start or attach, leave, stop, look."""

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from src.local_postgres.accounts import Account
from src.local_postgres.binaries import binaries_of_major, reachable_bin_dir
from src.local_postgres.bring_up import (
    Found,
    Report,
    RunningServer,
    Wishes,
    bring_up,
    find_running,
    look,
)
from src.local_postgres.cluster import major_version_of
from src.local_postgres.connection import read_connection
from src.local_postgres.errors import LocalPostgresError, explained
from src.local_postgres.leases import Lease, drop_lease, holders, main_lock, take_lease
from src.local_postgres.locations import Layout, layout_of, prepare, write_private
from src.local_postgres.postmaster import shut_down

_CLIENTS_LEAVE_TIMEOUT_SECONDS = 1.0
_STOP_FINDS_TIMEOUT_SECONDS = 30.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class ServerStatus:
    """What is known about the server of one data folder."""

    folder: Path
    running: bool
    pid: int | None
    version: str | None
    """The running server's; of a stopped one the major version of its data."""
    port: int | None
    holders: tuple[int, ...]
    """Process ids of its users, one for each lease."""
    keep_running: bool
    """Whether it outlives its last user."""
    since: datetime | None
    """When it started (UTC)."""
    log: Path


@contextmanager
def running_server(
    folder: Path | None = None,
    *,
    port: int | None = None,
    settings: Mapping[str, str] | None = None,
    on_progress: Report | None = None,
) -> Generator[RunningServer]:
    """Start the server or attach to it, and use it within the block.

    The last user to leave stops it, unless `start` asked that it keeps running, or clients of
    others are still connected. `port` and `settings` (names and values of postgresql.conf) count
    only where this call is the one that starts it.

    Raises:
        LocalPostgresError: if anything is in the way.
    """
    report = on_progress or _silent
    layout = layout_of(folder)
    with explained(layout.folder):
        account = prepare(layout)
        lease, server = _enter(layout, account, Wishes(port, settings or {}), report)
    try:
        yield server
    finally:
        with explained(layout.folder), main_lock(layout, account, report):
            _leave(layout, account, lease)


def start(
    folder: Path | None = None,
    *,
    port: int | None = None,
    settings: Mapping[str, str] | None = None,
    on_progress: Report | None = None,
) -> RunningServer:
    """Start the server or attach to it, and let it run until `stop`.

    Raises:
        LocalPostgresError: if anything is in the way.
    """
    with running_server(folder, port=port, settings=settings, on_progress=on_progress) as server:
        layout = Layout(server.folder)
        with explained(layout.folder), main_lock(layout, layout.account, on_progress or _silent):
            found = find_running(layout)
            if found is None:
                raise LocalPostgresError(f"The server in {layout.folder} ended unexpectedly.")
            write_private(layout.keep_running, found.pid_file.run, layout.account)
    return server


def stop(folder: Path | None = None, *, force: bool = False) -> bool:
    """Stop the server, whoever started it; False where it did not run.

    Raises:
        LocalPostgresError: if others use it and `force` is not given, or it does not stop.
    """
    layout = layout_of(folder)
    with explained(layout.folder):
        if not layout.pgdata.exists():
            return False
        account = prepare(layout)
        with main_lock(layout, account, _silent):
            found = find_running(layout, timeout_seconds=_STOP_FINDS_TIMEOUT_SECONDS)
            if found is None:
                return False
            users = holders(layout)
            if users and not force:
                raise LocalPostgresError(
                    f"The database server in {layout.folder} is in use by process "
                    f"{', '.join(map(str, users))}. End it first, or stop the server with --force."
                )
            _stop(layout, account)
            return True


def status(folder: Path | None = None) -> ServerStatus:
    """Look at the server without changing or waiting for anything.

    Raises:
        LocalPostgresError: if this user may not look into the folder.
    """
    layout = layout_of(folder)
    with explained(layout.folder):
        seen = look(layout)
        found = seen if isinstance(seen, Found) else None
        stored = read_connection(layout.folder)
        major = major_version_of(layout.pgdata)
        return ServerStatus(
            folder=layout.folder,
            running=seen is not None and major is not None,  # else initdb is at work
            pid=found.pid_file.pid if found else None,
            version=found.answer.version if found else str(major) if major else None,
            port=found.parameters.port if found else stored.port if stored else None,
            holders=holders(layout),
            keep_running=found is not None and _keeps_running(layout, found),
            since=found.answer.since if found else None,
            log=layout.log,
        )


def _enter(
    layout: Layout, account: Account, wishes: Wishes, report: Report
) -> tuple[Lease, RunningServer]:
    with main_lock(layout, account, report):
        lease = take_lease(layout, account)
        try:
            return lease, bring_up(layout, account, wishes, report)
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl-C: only a server that is up can be stopped
                with suppress(LocalPostgresError):
                    find_running(layout)
            _leave(layout, account, lease)
            raise


def _leave(layout: Layout, account: Account, lease: Lease) -> None:
    drop_lease(lease)
    if not holders(layout) and _nobody_needs(layout):
        _stop(layout, account)


def _nobody_needs(layout: Layout) -> bool:
    """Whether the server runs, should not outlive its users, and has no clients left.

    Clients get a moment: a connection that was closed just now is listed a little longer.
    """
    deadline = time.monotonic() + _CLIENTS_LEAVE_TIMEOUT_SECONDS
    while True:
        seen = look(layout)
        if seen is None:
            return False
        if isinstance(seen, Found):
            if _keeps_running(layout, seen):
                return False
            if seen.answer.clients == 0:
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)


def _keeps_running(layout: Layout, found: Found) -> bool:
    """Whether `start` was called in this very run of the server; a crash ends the wish."""
    try:
        return layout.keep_running.read_text(encoding="utf-8") == found.pid_file.run
    except FileNotFoundError:
        return False


def _stop(layout: Layout, account: Account) -> None:
    major = major_version_of(layout.pgdata)
    if major is None:
        return
    binaries = binaries_of_major(major, layout.pgdata)
    shut_down(layout, reachable_bin_dir(binaries, account, layout), account)
    layout.keep_running.unlink(missing_ok=True)


def _silent(_message: str) -> None:
    """Report progress to nobody."""
