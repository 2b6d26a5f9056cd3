"""Contestants over HTTP: our application under uvicorn, asked by one worker process."""

import json
import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from benchmarks.calls.http import API_KEY, ENV, PORT
from benchmarks.calls.http_reads import ISSUER, KID, SIGNING_KEY
from benchmarks.calls.webhooks import WEBHOOK_SECRET
from benchmarks.checkouts import HERE, Checkout
from benchmarks.contestants.base import Clocks, ContestantFailed, Database, Load, Outcome
from benchmarks.contestants.processes import run_workers
from benchmarks.cpu import family_seconds
from src.local_postgres import free_port

_START_SECONDS = 600
"""On a busy machine; an application that has ended is noticed at once."""
_END_SECONDS = 60
_POLL_SECONDS = 0.05
_LOG_SHOWN_CHARACTERS = 4_000


@dataclass(frozen=True)
class HttpContestant:
    """A route of `benchmarks/http_app.py`; `load.processes` are the server's workers."""

    name: str
    calls: str
    api_key: str
    writes: bool = True
    database: Database = Database.LEDGER
    checkout: Checkout = HERE
    """The application's; whoever asks is always this one's."""

    def run(self, load: Load, clocks: Clocks) -> Outcome:
        """Start the application, let one worker ask, stop it."""
        port = free_port()
        environment = (
            os.environ
            | deployment()
            | {
                "DATABASE_NAME": self.database,
                "WEB_CONCURRENCY": str(load.processes),
                PORT: str(port),
                API_KEY: self.api_key,
            }
        )
        with application(self.checkout, port, load.processes, environment) as process:
            watch = _ApplicationClocks(clocks, process.pid)
            outcome = run_workers(self.name, self.calls, load, watch, 1, environment)
        unwritten = outcome.unwritten if self.writes else outcome.acknowledged
        return replace(outcome, application_cpu_seconds=watch.seconds, unwritten=unwritten)


def deployment() -> dict[str, str]:
    """What a deployment sets, and a developer's machine need not: logs are JSON, as deployed."""
    key = ec.generate_private_key(ec.SECP256R1())
    jwk = ECAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": KID}
    return {
        "ENV": ENV,
        "AUTH_JWT_SECRET": json.dumps({"keys": [jwk]}),
        "AUTH_JWT_ISSUER": ISSUER,
        SIGNING_KEY: ECAlgorithm.to_jwk(key),
        "STRIPE_SECRET_KEY": "sk_test_nobody_is_asked",
        "STRIPE_MODE": "test",
        "CHECKOUT_SUCCESS_URL": "https://benchmark.invalid/paid",
        "CHECKOUT_CANCEL_URL": "https://benchmark.invalid/",
        "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "LOG_LEVEL": "INFO",
    }


class _ApplicationClocks:
    """The runner's clocks, and the application's CPU beside them."""

    def __init__(self, clocks: Clocks, pid: int) -> None:
        self._clocks = clocks
        self._pid = pid
        self.seconds = 0.0

    def start(self) -> None:
        """Open the window."""
        self.seconds = -family_seconds(self._pid)
        self._clocks.start()

    def stop(self) -> None:
        """Close it."""
        self._clocks.stop()
        self.seconds += family_seconds(self._pid)


@contextmanager
def application(
    checkout: Checkout, port: int, workers: int, environment: dict[str, str]
) -> Generator[subprocess.Popen[bytes]]:
    """Run uvicorn as `flashslides serve` does, until it answers and then until the block ends."""
    with tempfile.TemporaryDirectory(prefix="flashslides-") as folder:
        several = {"PROMETHEUS_MULTIPROC_DIR": folder} if workers > 1 else {}
        command = [
            *(str(checkout.python), "-m", "uvicorn", "benchmarks.http_app:app"),
            *(f"--port={port}", f"--workers={workers}", "--loop=uvloop", "--http=httptools"),
            *("--no-access-log", "--no-server-header", "--log-level=warning"),
        ]
        log = Path(folder, "log")
        with log.open("wb") as written:
            process = subprocess.Popen(
                command,
                cwd=checkout.root,
                env=checkout.environment(environment | several),
                stderr=written,
            )
        try:
            _wait_until_it_answers(port, process, log)
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_it_answers(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=5).close()
        except (urllib.error.URLError, OSError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                logged = log.read_text(errors="replace")[-_LOG_SHOWN_CHARACTERS:]
                raise ContestantFailed(f"The application did not start:\n{logged}") from error
            time.sleep(_POLL_SECONDS)
        else:
            return
