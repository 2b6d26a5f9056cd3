"""Starts the server or attaches to it, whatever state the data folder is in."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from src.local_postgres.accounts import Account
from src.local_postgres.binaries import (
    Binaries,
    binaries_for_new_data,
    binaries_of_major,
    reachable_bin_dir,
)
from src.local_postgres.cluster import create, major_version_of, set_password, write_settings
from src.local_postgres.connection import (
    ConnectionParameters,
    StoredFacts,
    new_facts,
    read_facts,
    write_facts,
)
from src.local_postgres.errors import LocalPostgresError
from src.local_postgres.locations import Layout
from src.local_postgres.postmaster import (
    START_TIMEOUT_SECONDS,
    Answer,
    PidFile,
    Silence,
    ask,
    discard_stale_locks,
    ensure_database,
    free_port,
    has_living_processes,
    launch,
    log_tail,
    port_is_busy,
    read_pid_file,
)

PORT_VARIABLE = "FLASHSLIDES_PG_PORT"
FIRST_PORT = 54329
_PORT_MAX = 65535
_PORT_ATTEMPTS = 5
_POLL_SECONDS = 0.05

Report = Callable[[str], None]


@dataclass(frozen=True)
class RunningServer:
    """A server that answered when this was made."""

    folder: Path
    connection: ConnectionParameters
    version: str
    """As the server says it: "18.6"."""
    started_here: bool
    """False where it ran already and was attached to."""
    pid: int
    bin_dir: Path
    """Where psql, pg_dump, pgbench and the others of its version are."""


@dataclass(frozen=True)
class Wishes:
    """How the caller wants the server, should this call be the one that starts it."""

    port: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Found:
    """The server that runs on this data folder at this moment."""

    parameters: ConnectionParameters
    answer: Answer
    pid_file: PidFile


def bring_up(layout: Layout, account: Account, wishes: Wishes, report: Report) -> RunningServer:
    """Return the server of this folder, started if need be (with the main lock held).

    Raises:
        LocalPostgresError: if anything is in the way; nothing is destroyed then.
    """
    port = _port_asked_for(wishes)
    major = major_version_of(layout.pgdata)
    if major is None:
        binaries = binaries_for_new_data()
    else:
        binaries = binaries_of_major(major, layout.pgdata)
        found = find_running(layout)
        if found is not None:
            return _running_server(layout, found, binaries, started_here=False)
        discard_stale_locks(layout)
    bin_dir = reachable_bin_dir(binaries, account, layout)
    if major is None:
        report(f"Making a new database in {layout.folder} (PostgreSQL {binaries.version})")
        facts = _create(layout, bin_dir, binaries, account)
    else:
        facts = _facts_of_existing(layout, bin_dir, account)
    report(f"Starting PostgreSQL {binaries.version}")
    _start(layout, bin_dir, account, port or facts.port, wishes.settings)
    found = find_running(layout)
    if found is None:
        raise LocalPostgresError(
            f"The database server in {layout.folder} ended right after its start. The end of its "
            f"log, {layout.log}:\n{log_tail(layout)}"
        )
    ensure_database(found.parameters)
    if facts.port != found.parameters.port:
        write_facts(layout, facts.with_port(found.parameters.port), account)
    return _running_server(layout, found, binaries, started_here=True)


def look(layout: Layout) -> Found | Silence | None:
    """Ask once for the server of this folder; None where it does not run."""
    is_alive = has_living_processes(layout)  # first: whoever dies meanwhile is seen next time
    facts = read_facts(layout)
    pid_file = read_pid_file(layout)
    silence = Silence("it has not opened its port yet")
    if facts is None:
        silence = Silence(f"{layout.connection}, which holds its password, is missing")
    elif pid_file is not None:
        parameters = facts.parameters(pid_file.port)
        answer = ask(layout, parameters)
        if isinstance(answer, Answer):
            return Found(parameters, answer, pid_file)
        silence = answer
    return silence if is_alive else None


def find_running(layout: Layout, *, timeout_seconds: float = START_TIMEOUT_SECONDS) -> Found | None:
    """Return the server of this folder; None where it does not run.

    Waits for one that is coming up, or whose last processes are ending.

    Raises:
        LocalPostgresError: if it lives but does not answer, or not to our password.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        seen = look(layout)
        if not isinstance(seen, Silence):
            return seen
        if seen.is_hopeless or time.monotonic() > deadline:
            raise LocalPostgresError(
                f"The database server in {layout.folder} runs, but cannot be used: {seen.reason}. "
                f"Its log is {layout.log}."
            )
        time.sleep(_POLL_SECONDS)


def _running_server(
    layout: Layout, found: Found, binaries: Binaries, *, started_here: bool
) -> RunningServer:
    return RunningServer(
        folder=layout.folder,
        connection=found.parameters,
        version=found.answer.version,
        started_here=started_here,
        pid=found.pid_file.pid,
        bin_dir=binaries.bin_dir,
    )


def _create(layout: Layout, bin_dir: Path, binaries: Binaries, account: Account) -> StoredFacts:
    # The password is on disk before the data exists: an interruption never leaves data without.
    facts = read_facts(layout) or new_facts()
    write_facts(layout, facts, account)
    create(layout, bin_dir, binaries.major, facts.password, account)
    return facts


def _facts_of_existing(layout: Layout, bin_dir: Path, account: Account) -> StoredFacts:
    facts = read_facts(layout)
    if facts is None:
        facts = new_facts()
        set_password(layout, bin_dir, facts.password, account)
        write_facts(layout, facts, account)
    return facts


def _start(
    layout: Layout,
    bin_dir: Path,
    account: Account,
    port: int | None,
    settings: Mapping[str, str],
) -> None:
    """Start the server on `port`; without one on the usual first port, or any that is free."""
    if port is not None:
        if port_is_busy(port):
            raise LocalPostgresError(
                f"Port {port} on 127.0.0.1 is in use by another program, so the database server "
                f"in {layout.folder} cannot start. End that program, or choose another port in "
                f"{PORT_VARIABLE}."
            )
        write_settings(layout, bin_dir, port, settings, account)
        launch(layout, bin_dir, account)
        return
    for attempt in range(1, _PORT_ATTEMPTS + 1):
        port = FIRST_PORT if attempt == 1 and not port_is_busy(FIRST_PORT) else free_port()
        write_settings(layout, bin_dir, port, settings, account)
        try:
            launch(layout, bin_dir, account)
        except LocalPostgresError as error:
            # Between our look and its start somebody else may have taken the port.
            if attempt == _PORT_ATTEMPTS or "could not bind" not in str(error):
                raise
        else:
            return


def configured_port() -> int | None:
    """The port that the environment asks for, if it does.

    Raises:
        LocalPostgresError: it is no port number.
    """
    configured = os.environ.get(PORT_VARIABLE)
    if not configured:
        return None
    try:
        return _possible(int(configured), PORT_VARIABLE)
    except ValueError:
        raise _impossible(PORT_VARIABLE) from None


def _port_asked_for(wishes: Wishes) -> int | None:
    if wishes.port is None:
        return configured_port()
    return _possible(wishes.port, "The port asked for")


def _possible(port: int, what: str) -> int:
    if not 0 < port <= _PORT_MAX:
        raise _impossible(what)
    return port


def _impossible(what: str) -> LocalPostgresError:
    return LocalPostgresError(f"{what} is no port number from 1 to {_PORT_MAX}.")
