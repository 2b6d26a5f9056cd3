"""Several server processes: slow to start, unable to start, left alone by their parent."""

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import cast

import httpx
import pytest
import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from uvicorn.supervisors import multiprocess

from src.cli import server_processes
from src.cli.server_processes import ServerProcess, ServerProcesses
from src.local_postgres import ConnectionParameters, free_port
from tests.cli.processes import PATIENCE_SECONDS, Program, is_running, stop, wait_until_gone
from tests.fixtures.databases import environment_of

HANG_TIMEOUT_SECONDS = 60
ROOT = Path(__file__).parents[2]
BUSY = """
import os
from src.common.credits.engine import metrics
metrics.QUEUED.set(7)
metrics.FAILED_BATCHES.inc()
print(os.getpid())
"""


class Child(ServerProcess):
    """A server process that is none, as its parent sees it."""

    def __init__(self, *_arguments: object, exitcode: int | None = None) -> None:
        super().__init__(uvicorn.Config("none:none"), [])
        self.code = exitcode
        self.number = 1
        self.was_started = False
        self.process = self  # type: ignore[assignment]  # it does for both

    @property
    def pid(self) -> int:
        """Its number."""
        return self.number

    @property
    def exitcode(self) -> int | None:
        """How it has ended."""
        return self.code

    def is_alive(self, timeout: float = 0) -> bool:
        """Whether it has not ended."""
        assert timeout == 0
        return self.code is None

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, which has come if it comes at all."""
        assert not self.is_alive() or timeout is not None

    def start(self) -> None:
        """Begin."""
        self.was_started = True

    def kill(self) -> None:
        """End by SIGKILL."""
        self.code = -9

    def beat(self) -> None:
        """Show a sign of life."""
        self._beats.value += 1


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> ServerProcesses:
    """A parent of two, neither of which answers."""
    monkeypatch.setattr(multiprocess, "SIGNALS", {})
    monkeypatch.setattr(server_processes, "ServerProcess", Child)
    monkeypatch.setattr(server_processes, "END_SECONDS", 0)
    config = uvicorn.Config("none:none", workers=2)
    parent = ServerProcesses(config, [], HANG_TIMEOUT_SECONDS)
    parent.init_processes()
    return parent


def children_of(parent: ServerProcesses) -> list[Child]:
    """What stands for its processes."""
    return cast("list[Child]", parent.processes)


def check(parent: ServerProcesses, seconds: float, *beating: Child) -> None:
    """Have the parent look after its processes for so long, some of which beat."""
    for _ in range(int(seconds / server_processes.CHECK_SECONDS)):
        for child in beating:
            child.beat()
        parent.keep_subprocess_alive()


def test_who_starts_slowly_is_waited_for(parent: ServerProcesses) -> None:
    """Nobody is killed or replaced before it is ready, however long that takes."""
    before = list(parent.processes)
    check(parent, 100 * HANG_TIMEOUT_SECONDS)
    assert parent.processes == before
    assert not parent.should_exit.is_set()


@pytest.mark.parametrize("exit_code", [1, 3])
def test_who_cannot_start_ends_them_all(parent: ServerProcesses, exit_code: int) -> None:
    """Whether it could not be imported or its start-up failed: it would fail the same again."""
    children_of(parent)[1].code = exit_code
    parent.keep_subprocess_alive()
    assert parent.cannot_start
    assert parent.should_exit.is_set()


@pytest.mark.parametrize(("exit_code", "is_serving"), [(-9, False), (-9, True), (3, True)])
def test_who_ends_otherwise_is_replaced(
    parent: ServerProcesses, exit_code: int, *, is_serving: bool
) -> None:
    """Killed at any time, or failing to start while the other serves; its pipe is closed."""
    first, gone = children_of(parent)
    if is_serving:
        first.beat()
    parent.keep_subprocess_alive()
    gone.code = exit_code
    parent.keep_subprocess_alive()
    assert gone.parent_conn.closed
    assert gone.child_conn.closed
    replacement = children_of(parent)[1]
    assert replacement is not gone
    assert (replacement.exitcode, replacement.was_started) == (None, True)
    assert not parent.cannot_start


def test_who_hangs_is_replaced(parent: ServerProcesses) -> None:
    """Once it has shown no sign of life for as long as is allowed, and not before."""
    healthy, hanging = children_of(parent)
    check(parent, 2 * HANG_TIMEOUT_SECONDS, healthy, hanging)
    check(parent, HANG_TIMEOUT_SECONDS, healthy)
    assert (hanging.exitcode, parent.processes) == (None, [healthy, hanging])
    hanging.beat()
    check(parent, HANG_TIMEOUT_SECONDS, healthy)
    assert hanging.exitcode is None
    check(parent, 2, healthy)
    assert hanging.exitcode == -9
    assert children_of(parent)[0] is healthy
    replacement = children_of(parent)[1]
    assert (replacement is hanging, replacement.was_started) == (False, True)
    assert not parent.cannot_start


def test_a_blocked_event_loop_does_not_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ready server does; a thread of its own would go on beating while nobody is served."""
    monkeypatch.setattr(server_processes, "BEAT_SECONDS", 0.01)
    blocked, released = threading.Event(), threading.Event()

    async def block(_scope: object, _receive: object, _send: object) -> None:
        blocked.set()
        released.wait(PATIENCE_SECONDS)

    config = uvicorn.Config(block, loop="uvloop", lifespan="off", log_config=None)
    beats = ctypes.c_ulong(0)
    server = server_processes.BeatingServer(config, beats)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = threading.Thread(target=server.run, args=([listening],), daemon=True)
        serving.start()
        while beats.value < 3:
            time.sleep(0.01)
        with socket.create_connection(listening.getsockname()) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            assert blocked.wait(PATIENCE_SECONDS)
            seen = beats.value
            time.sleep(0.2)
            assert beats.value == seen
            released.set()
            while beats.value == seen:
                time.sleep(0.01)
        server.should_exit = True
        serving.join(PATIENCE_SECONDS)
    assert not serving.is_alive()


def test_who_has_a_parent_leaves_ctrl_c_to_it() -> None:
    """A terminal tells both; twice would mean at once, in the midst of requests."""
    server = server_processes.SupervisedServer(uvicorn.Config("none:none"))
    for _ in range(2):
        server.handle_exit(signal.SIGINT, None)
    assert not server.should_exit
    server.handle_exit(signal.SIGTERM, None)
    assert (server.should_exit, server.force_exit) == (True, False)


def test_who_does_not_end_is_killed(parent: ServerProcesses) -> None:
    """The parent's own end waits for no process that hangs."""
    children_of(parent)[0].code = 0
    parent.join_all()
    assert [child.exitcode for child in parent.processes] == [0, -9]


@pytest.mark.parametrize("is_parent_killed", [False, True])
def test_the_gauges_of_who_was_killed_go_with_it(
    parent: ServerProcesses,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_parent_killed: bool,
) -> None:
    """What waited in it waits no more; what it counted stays counted, and others' gauges stay.

    With the last one they all go; where the parent was killed too, when the next one starts.
    """
    environment = {"PYTHONPATH": str(ROOT), "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    children = children_of(parent)
    for child in children:
        child.number = int(
            subprocess.check_output(
                [sys.executable, "-c", BUSY], cwd=tmp_path, env=environment, text=True
            )
        )

    def told(name: str) -> float | None:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # of an untyped library
        return registry.get_sample_value(f"flashslides_credits_engine_{name}")

    assert (told("queued"), told("failed_batches_total")) == (14, 2)
    children[0].code = -9
    parent.keep_subprocess_alive()
    assert (told("queued"), told("failed_batches_total")) == (7, 2)
    if is_parent_killed:
        parent.init_processes()
    else:
        parent.join_all()
    assert (told("queued"), told("failed_batches_total")) == (None, 2)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_service_that_cannot_start_exits_78(
    tmp_path: Path, fresh_database: ConnectionParameters, workers: str
) -> None:
    """As whatever else is configured wrongly; the log says what, nothing is tried for ever."""
    environment = environment_of(fresh_database) | {
        "FLASHSLIDES_DATA_DIR": str(tmp_path / "data"),
        "AUTH_JWT_SECRET": "no set of keys",
        "STRIPE_SECRET_KEY": "sk_test_1",
    }
    program = Program(tmp_path, environment)
    process = program.start("serve", "--port", str(free_port()), "--workers", workers)
    assert stop(process) == 78
    assert "AUTH_JWT_SECRET" in program.said()


def test_a_killed_parent_leaves_no_orphan(
    tmp_path: Path, fresh_database: ConnectionParameters
) -> None:
    """Its processes end, and the port is free again."""
    environment = environment_of(fresh_database) | {"FLASHSLIDES_DATA_DIR": str(tmp_path / "data")}
    program, port = Program(tmp_path, environment, is_installed=True), free_port()
    with program.serve(port, "--workers", "2") as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) >= 2
        stop(process, signal.SIGKILL)
        for child in children:
            wait_until_gone(int(child))
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/livez", trust_env=False)


def answering_pid(port: int) -> int:
    """The server process that answers a request."""
    metrics = httpx.get(
        f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=PATIENCE_SECONDS
    )
    pids = re.findall(r'pid="(\d+)"', metrics.text)
    return int(pids[0])


def server_pids(parent_pid: int) -> set[int]:
    """The server processes that a parent has and that have not ended."""
    children = Path(f"/proc/{parent_pid}/task/{parent_pid}/children").read_text().split()
    return {
        int(child)
        for child in children
        if is_running(int(child)) and "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()
    }


def test_a_stopped_server_process_is_replaced(
    tmp_path: Path, fresh_database: ConnectionParameters
) -> None:
    """One that SIGSTOP holds is killed, and another started; SIGTERM ends all, stopped or not."""
    environment = environment_of(fresh_database) | {
        "FLASHSLIDES_DATA_DIR": str(tmp_path / "data"),
        "API_HANG_TIMEOUT_SECONDS": "5",
        "API_SHUTDOWN_TIMEOUT_SECONDS": "1",
    }
    program, port = Program(tmp_path, environment, is_installed=True), free_port()
    with program.serve(port, "--workers", "2") as process:
        hanging = answering_pid(port)
        os.kill(hanging, signal.SIGSTOP)
        wait_until_gone(hanging)
        assert answering_pid(port) != hanging
        until = time.monotonic() + PATIENCE_SECONDS
        while len(servers := server_pids(process.pid)) < 2:
            assert time.monotonic() < until, program.said()
            time.sleep(0.05)
        os.kill(servers.pop(), signal.SIGSTOP)
        assert stop(process, signal.SIGTERM) == 0
    said = program.said()
    assert "A server process hangs: killed" in said
    assert "A server process did not end: killed" in said
