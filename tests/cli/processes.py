"""The real command in processes of its own, with the environment a test gives it and no other."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from tests.fixtures.commands import COMMAND, forked_commands

PATIENCE_SECONDS = 600


@dataclass(frozen=True)
class Program:
    """The command `flashslides`, run in one folder with one environment."""

    folder: Path
    environment: Mapping[str, str]
    is_installed: bool = False
    """Whether it is the installed command: for who looks at its imports, number or children.

    Or at what comes first, a signal or the end of stdin: signals are passed on to a forked one.
    """

    @property
    def command(self) -> Path:
        """What is started."""
        return COMMAND if self.is_installed else forked_commands() / "flashslides"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command; its stderr goes to a file, so that nothing it says can block it."""
        with (self.folder / "stderr").open("a") as stderr:
            return subprocess.Popen(
                [str(self.command), *arguments],
                stdin=subprocess.PIPE,  # nobody answers
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=self.folder,
                env=dict(self.environment),
            )

    def run(self, *arguments: str) -> str:
        """Run a command that must succeed; what it printed on stdout."""
        done = subprocess.run(
            [str(self.command), *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=dict(self.environment),
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run_json(self, *arguments: str) -> Any:
        """Run a command that must print one JSON document and nothing else on stdout."""
        return json.loads(self.run(*arguments, "--json"))

    @contextmanager
    def serve(
        self, port: int, *options: str, ready: str = "/readyz"
    ) -> Generator[subprocess.Popen[str]]:
        """Run `serve` until the block ends, if it has not ended by itself.

        It is there once the path `ready` is answered.
        """
        process = self.start("serve", "--port", str(port), *options)
        try:
            self._wait_until_ready(process, port, ready)
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            stop(process)

    def said(self) -> str:
        """What all started commands have written on stderr."""
        return (self.folder / "stderr").read_text()

    def _wait_until_ready(self, process: subprocess.Popen[str], port: int, path: str) -> None:
        def ask(client: httpx.Client) -> None:
            if process.poll() is not None:
                raise AssertionError(self.said())
            client.get(path).raise_for_status()

        waiting = Retrying(
            retry=retry_if_exception_type(httpx.HTTPError),
            wait=wait_fixed(0.05),
            stop=stop_after_delay(PATIENCE_SECONDS),
        )
        address = f"http://127.0.0.1:{port}"
        # A client reads all certificates; one for each attempt would take more CPU than the start.
        with httpx.Client(base_url=address, trust_env=False) as client:
            waiting(ask, client)


def stop(process: subprocess.Popen[str], by: signal.Signals | None = None) -> int:
    """Send a signal, if one is given, and wait for the end; the exit code."""
    if by is not None:
        process.send_signal(by)
    try:
        process.communicate(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode


def is_running(pid: int) -> bool:
    """Whether there is such a process; one that ended and was not waited for counts as gone."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def wait_until_gone(pid: int) -> None:
    """Wait for a process that is not ours to end; fail if it does not."""
    until = time.monotonic() + PATIENCE_SECONDS
    while is_running(pid):
        assert time.monotonic() < until, f"process {pid} is still there"
        os.sched_yield()
