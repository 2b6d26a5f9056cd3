"""Running uvicorn, in one process or several under a parent; saying where that cannot start.

The parent replaces whoever ends, and whoever hangs: each process shows from its event loop, once a
second, that it is alive (decision 0028).
"""

import asyncio
import ctypes
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import structlog
import uvicorn
from prometheus_client.multiprocess import (
    mark_process_dead,  # pyright: ignore[reportUnknownVariableType]  an untyped library
)
from uvicorn.config import STARTUP_FAILURE
from uvicorn.importer import ImportFromStringError, import_from_string
from uvicorn.supervisors import ChangeReload
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from src.common.exceptions import SettingsError

logger = structlog.get_logger(__name__)

BEAT_SECONDS = 1.0
CHECK_SECONDS = 0.5
"""How often uvicorn's parent looks after its processes."""
PASSED_ON_SECONDS = 5.0
"""Within so long a second Ctrl-C may be the first one, passed on by another process."""
_METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
END_SECONDS = 5
"""How much longer than its requests' time a process may take to end."""


class ServerProcess(Process):
    """A server process whose event loop counts its beats, from when it is ready."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        self._beats = multiprocessing.get_context("spawn").RawValue(ctypes.c_ulong, 0)
        self._beats_seen = 0
        self.checks_without_beat = 0
        super().__init__(config, sockets)

    @property
    def beats(self) -> int:
        """How often it has shown that it serves; 0 until it is ready."""
        return self._beats.value

    def check(self) -> None:
        """Note whether it has beaten since the last check."""
        beats = self.beats
        self.checks_without_beat = self.checks_without_beat + 1 if beats == self._beats_seen else 0
        self._beats_seen = beats

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        """What the process does: serve, and beat."""
        BeatingServer(self.config, self._beats).run(sockets)


class SupervisedServer(uvicorn.Server):
    """Ends when its parent says so.

    Ctrl-C reaches both, and the parent passes it on. A second signal would cut off requests, or
    the end of the event loop, with a traceback.
    """

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until the parent ends it."""
        if threading.current_thread() is threading.main_thread():  # who alone may say so
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        super().run(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the parent's signal."""
        if sig != signal.SIGINT:
            super().handle_exit(sig, frame)


class BeatingServer(SupervisedServer):
    """Beats from when it is ready to its end; not while something blocks its event loop."""

    def __init__(self, config: uvicorn.Config, beats: ctypes.c_ulong) -> None:
        super().__init__(config)
        self._beats = beats

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup(sockets)
        if self.started:
            self._beat()

    def _beat(self) -> None:
        self._beats.value += 1
        asyncio.get_running_loop().call_later(BEAT_SECONDS, self._beat)


class ServerProcesses(Multiprocess):
    """Server processes that may take their time to start, and are replaced when they hang.

    uvicorn's own parent kills whoever does not answer it for five seconds, as nobody does who is
    still importing on a busy machine; asks a thread, which answers while the event loop hangs; and
    starts anew, for ever, what cannot be imported.
    """

    processes: list[ServerProcess]  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleVariableOverride]  all are ours

    def __init__(
        self, config: uvicorn.Config, sockets: list[socket.socket], hang_timeout_seconds: float
    ) -> None:
        hangup = signal.getsignal(signal.SIGHUP)
        super().__init__(config, sockets)
        if hangup == signal.SIG_IGN:  # as nohup has it
            signal.signal(signal.SIGHUP, hangup)
        self._checks_without_beat_max = hang_timeout_seconds / CHECK_SECONDS
        self.cannot_start = False
        self._has_served = False

    handle_hup = Multiprocess.handle_term
    """A lost terminal ends it as it ends one process."""

    def handle_ttin(self) -> None:
        """Start no further process: there are as many as were asked for."""

    handle_ttou = handle_ttin

    def init_processes(self) -> None:
        """Start as many as were asked for."""
        _forget_earlier_processes()
        self.processes.extend(self._start() for _ in range(self.processes_num))

    def keep_subprocess_alive(self) -> None:
        """Replace whoever has ended or hangs; give up where one ends and none ever served."""
        for place, process in enumerate(self.processes):
            if self.should_exit.is_set():
                return
            if process.process.is_alive():
                self._look_after(process)
                continue
            process.join()
            self._forget(process)
            if (process.exitcode or 0) > 0 and not self._has_served:
                self.cannot_start = True
                self.should_exit.set()
                return
            logger.warning("A server process ended", pid=process.pid, exit_code=process.exitcode)
            self.processes[place] = self._start()

    def join_all(self) -> None:
        """Wait for the end of all; a process that hangs is killed."""
        until = time.monotonic() + (self.config.timeout_graceful_shutdown or 0) + END_SECONDS
        for process in self.processes:
            process.process.join(max(until - time.monotonic(), 0))
            if process.process.is_alive():
                logger.warning("A server process did not end: killed", pid=process.pid)
                process.process.kill()
            process.join()
            self._forget(process)

    def _start(self) -> ServerProcess:
        process = ServerProcess(self.config, self.sockets)
        process.start()
        return process

    def _look_after(self, process: ServerProcess) -> None:
        """Kill it if it is ready and has not beaten for too long, by our own count of checks.

        While this process was stopped itself, it has counted none.
        """
        process.check()
        if not process.beats:
            return
        self._has_served = True
        if process.checks_without_beat > self._checks_without_beat_max:
            logger.error("A server process hangs: killed", pid=process.pid)
            process.process.kill()  # the next look finds it ended

    def _forget(self, process: ServerProcess) -> None:
        """Let go of what is left of one that has ended; no gauge counts it any more."""
        process.parent_conn.close()
        process.child_conn.close()
        if _METRICS_FOLDER in os.environ:
            mark_process_dead(process.pid)  # type: ignore[no-untyped-call]  # of an untyped library


def _forget_earlier_processes() -> None:
    """Count no gauges of processes whose parent was killed, in a folder that outlives both."""
    folder = os.environ.get(_METRICS_FOLDER)
    for file in Path(folder).glob("gauge_live*_*.db") if folder else ():
        pid = int(file.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid)  # type: ignore[no-untyped-call]  # of an untyped library
        except PermissionError:
            continue  # somebody else's, and alive


def run_server(application: str, *, hang_timeout_seconds: float, **options: Any) -> None:
    """Serve until a signal; the other options are uvicorn's.

    Raises:
        SettingsError: there is no such application, or it cannot start; then its log says why.
    """
    config = uvicorn.Config(application, **options)
    if config.workers > 1:
        processes = ServerProcesses(config, [config.bind_socket()], hang_timeout_seconds)
        processes.run()
        cannot_start = processes.cannot_start
    elif config.should_reload:
        ChangeReload(config, SupervisedServer(config).run, [config.bind_socket()]).run()
        cannot_start = False  # whoever mends the file is served
    else:
        import_application(application)
        cannot_start = not _serve(config)
    if cannot_start:
        raise SettingsError("The service cannot start: the lines above say why")


def import_application(application: str) -> None:
    """Import the application before the server starts, so that a lack of it is one line.

    Raises:
        SettingsError: there is no such application.
    """
    try:
        import_from_string(application)
    except ImportFromStringError as error:
        raise SettingsError(f"{application} cannot be served: {error}") from None


def _serve(config: uvicorn.Config) -> bool:
    """Serve in this process; False where the application did not start."""
    try:
        with _interrupted_once():
            uvicorn.Server(config).run()
    except SystemExit as end:
        if end.code == STARTUP_FAILURE:
            return False
        raise
    return True


@contextmanager
def _interrupted_once() -> Generator[None]:
    """Once Ctrl-C has ended the server, another leaves its event loop alone for some seconds.

    `uv run` passes on what the terminal has sent already. The loop would be closed before its
    threads have ended, and they would fail. Where a thread does not end, later ones cut it off.
    """
    usual = signal.getsignal(signal.SIGINT)
    if usual is not signal.default_int_handler:
        yield
        return
    first_at: float | None = None

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal first_at
        now = time.monotonic()
        first_at = first_at or now
        if now == first_at or now - first_at > PASSED_ON_SECONDS:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
