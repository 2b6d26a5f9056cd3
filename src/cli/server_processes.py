"""Running uvicorn, in one process or several under a parent; saying where that cannot start."""

import os
from typing import Any

import structlog
import uvicorn
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from src.common.exceptions import SettingsError

logger = structlog.get_logger(__name__)


class ServerProcesses(Multiprocess):
    """Server processes that may take their time to start.

    uvicorn's own parent kills whoever does not answer it for five seconds, as nobody does who is
    still importing on a busy machine; and starts anew, for ever, what cannot be imported.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.cannot_start = False
        self._ready: set[Process] = set()
        self._has_served = False

    def keep_subprocess_alive(self) -> None:
        """Replace whoever has ended; give up where one ends by itself and none ever served."""
        for place, process in enumerate(self.processes):
            if self.should_exit.is_set():
                return
            if process.process.is_alive():
                if process not in self._ready and process.is_ready(timeout=0):
                    self._ready.add(process)
                    self._has_served = True
                continue
            process.join()
            self._forget(process)
            if (process.exitcode or 0) > 0 and not self._has_served:
                self.cannot_start = True
                self.should_exit.set()
                return
            logger.warning("A server process ended", pid=process.pid, exit_code=process.exitcode)
            self.processes[place] = Process(self.config, self.sockets)
            self.processes[place].start()

    def join_all(self) -> None:
        """Wait for the end of all."""
        super().join_all()
        for process in self.processes:
            self._forget(process)

    def _forget(self, process: Process) -> None:
        """Let go of what is left of one that has ended; no gauge counts it any more."""
        self._ready.discard(process)
        process.parent_conn.close()
        process.child_conn.close()
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            mark_process_dead(process.pid)  # type: ignore[no-untyped-call]  # of an untyped library


def run_server(application: str, **options: Any) -> None:
    """Serve until a signal; the options are uvicorn's.

    Raises:
        SettingsError: the application cannot start; its log says why.
    """
    config = uvicorn.Config(application, **options)
    if config.workers > 1:
        processes = ServerProcesses(config, [config.bind_socket()])
        processes.run()
        cannot_start = processes.cannot_start
    else:
        config.load_app()
        cannot_start = not _serve(config)
    if cannot_start:
        raise SettingsError("The service cannot start: the lines above say why")


def _serve(config: uvicorn.Config) -> bool:
    """Serve in this process; False where the application did not start."""
    try:
        uvicorn.Server(config).run()
    except SystemExit as end:
        if end.code == STARTUP_FAILURE:
            return False
        raise
    return True
