"""Several server processes: slow to start, unable to start, left alone by their parent."""

import signal
import subprocess
import sys
from multiprocessing import Pipe
from pathlib import Path

import httpx
import pytest
import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from uvicorn.supervisors import multiprocess

from src.cli.server_processes import ServerProcesses
from src.local_postgres import ConnectionParameters, free_port
from tests.cli.processes import Program, stop, wait_until_gone
from tests.fixtures.databases import environment_of

ROOT = Path(__file__).parents[2]
BUSY = """
import os
from src.common.credits import engine_metrics
engine_metrics.QUEUED.set(7)
engine_metrics.FAILED_BATCHES.inc()
print(os.getpid())
"""


class Child:
    """A server process as its parent sees it."""

    def __init__(self, *_arguments: object, exitcode: int | None = None) -> None:
        self.exitcode = exitcode
        self.pid = 1
        self.process = self
        self.readiness: bool | None = None
        self.was_started = False
        self.parent_conn, self.child_conn = Pipe()

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self.exitcode is None

    def is_ready(self, timeout: float) -> bool:
        """Whether it says that it serves; the parent must not wait for that."""
        assert timeout == 0
        return self.readiness is True

    def join(self) -> None:
        """Wait for its end, which has come."""
        assert not self.is_alive()

    def start(self) -> None:
        """Begin."""
        self.was_started = True


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> ServerProcesses:
    """A parent of two, neither of which answers."""
    monkeypatch.setattr(multiprocess, "SIGNALS", {})
    monkeypatch.setattr("src.cli.server_processes.Process", Child)
    parent = ServerProcesses(uvicorn.Config("none:none", workers=2), [])
    parent.processes = [Child(), Child()]  # type: ignore[list-item]
    return parent


def test_who_starts_slowly_is_waited_for(parent: ServerProcesses) -> None:
    """Nobody is killed or replaced for not answering, however often it is asked."""
    before = list(parent.processes)
    for _ in range(100):
        parent.keep_subprocess_alive()
    assert parent.processes == before
    assert not parent.should_exit.is_set()


@pytest.mark.parametrize("exit_code", [1, 3])
def test_who_cannot_start_ends_them_all(parent: ServerProcesses, exit_code: int) -> None:
    """Whether it could not be imported or its start-up failed: it would fail the same again."""
    parent.processes[1] = Child(exitcode=exit_code)  # type: ignore[call-overload]
    parent.keep_subprocess_alive()
    assert parent.cannot_start
    assert parent.should_exit.is_set()


@pytest.mark.parametrize(("exit_code", "is_serving"), [(-9, False), (-9, True), (3, True)])
def test_who_ends_otherwise_is_replaced(
    parent: ServerProcesses, exit_code: int, *, is_serving: bool
) -> None:
    """Killed at any time, or failing to start while the other serves; its pipe is closed."""
    first: Child = parent.processes[0]  # type: ignore[assignment]
    first.readiness = is_serving
    parent.keep_subprocess_alive()
    gone = Child(exitcode=exit_code)
    parent.processes[1] = gone  # type: ignore[call-overload]
    parent.keep_subprocess_alive()
    assert gone.parent_conn.closed
    assert gone.child_conn.closed
    replacement: Child = parent.processes[1]  # type: ignore[assignment]
    assert (replacement.exitcode, replacement.was_started) == (None, True)
    assert not parent.cannot_start


def test_the_gauges_of_who_was_killed_go_with_it(
    parent: ServerProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waited in it waits no more; what it counted stays counted, and others' gauges stay."""
    environment = {"PYTHONPATH": str(ROOT), "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    children: list[Child] = parent.processes  # type: ignore[assignment]
    for child in children:
        child.pid = int(
            subprocess.check_output(
                [sys.executable, "-c", BUSY], cwd=tmp_path, env=environment, text=True
            )
        )

    def told(name: str) -> float | None:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # of an untyped library
        return registry.get_sample_value(f"flashslides_credits_engine_{name}")

    assert (told("queued"), told("failed_batches_total")) == (14, 2)
    children[0].exitcode = -9
    parent.keep_subprocess_alive()
    assert (told("queued"), told("failed_batches_total")) == (7, 2)
    children[1].exitcode = 0
    parent.processes = [children[1]]  # type: ignore[list-item]
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
    program, port = Program(tmp_path, environment), free_port()
    with program.serve(port, "--workers", "2") as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) >= 2
        stop(process, signal.SIGKILL)
        for child in children:
            wait_until_gone(int(child))
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/livez", trust_env=False)
