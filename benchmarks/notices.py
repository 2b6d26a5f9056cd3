"""How many notices a second one worker delivers to one endpoint on loopback, and after kill -9.

Run it by `uv run python -m benchmarks.notices`. It exits with 1 if a figure is beyond its bound.

Notices wait before the worker starts. The clock runs from the first request to the last one that
was answered. The endpoint is a process of its own, and says that it has what it is sent.
"""

import argparse
import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from multiprocessing.connection import Connection
from pathlib import Path

from sqlalchemy import func, insert, select

from benchmarks.output import show, tell
from benchmarks.server import SERVER_SETTINGS, refuse_volatile, temporary_server
from src.common.credits.domain.commands import Grant
from src.common.credits.operations import execute
from src.common.database import SessionLocal, dispose_db
from src.common.models import CreditNotice, NoticeEndpoint, NoticeSecret, User
from src.common.models.credit_notice import NoticeType
from src.common.postgres.migrations import upgrade_to_head

RATE_MIN = 500
BATCH = 500
COMMAND = (sys.executable, "-c", "from src.cli.main import main; main()", "worker")
PATIENCE_SECONDS = 600
_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class _Endpoint(asyncio.Protocol):
    """Takes every request, and notes its id."""

    received: list[str]
    times: list[float]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  of a server
        self._transport, self._read = transport, b""

    def data_received(self, data: bytes) -> None:
        """Answer what is complete."""
        self._read += data
        while (at := self._read.find(b"\r\n\r\n")) >= 0:
            head = self._read[:at].lower()
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            if len(self._read) < at + 4 + length:
                return
            self._read = self._read[at + 4 + length :]
            self.received.append(head.split(b"webhook-id: ")[1].split(b"\r\n")[0].decode())
            self.times.append(time.perf_counter())
            self._transport.write(_ANSWER)


def _serve(pipe: Connection) -> None:
    """Serve until told to end; answer what came whenever asked."""
    received: list[str] = []
    times: list[float] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        made = type("Endpoint", (_Endpoint,), {"received": received, "times": times})
        server = await loop.create_server(made, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        while await loop.run_in_executor(None, pipe.recv):
            pipe.send((list(received), list(times)))
            received.clear()
            times.clear()

    asyncio.run(run())


def main() -> None:
    """Fill an outbox, deliver it, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--notices", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    refuse_volatile(options.folder)
    ours, theirs = multiprocessing.Pipe()
    endpoint = multiprocessing.Process(target=_serve, args=(theirs,), daemon=True)
    endpoint.start()
    port: int = ours.recv()
    with temporary_server(options.folder, SERVER_SETTINGS, tell):
        upgrade_to_head()
        _add_endpoint(f"http://127.0.0.1:{port}/hook")
        show(f"| notices | users | a second (≥ {RATE_MIN}) | sent again |")
        show("|---|---|---|---|")
        is_within = True
        for users in (1_000, 1):
            wanted = options.notices if users > 1 else options.notices // 10
            _fill(users, wanted)
            received, times = _delivered(ours)
            rate = (len(received) - 1) / (times[-1] - times[0])
            is_within = is_within and rate >= RATE_MIN and len(set(received)) == wanted
            again = len(received) - len(set(received))
            show(f"| {wanted} | {users} | {rate:.0f} | {again} |")
        _fill(1_000, options.notices)
        received, _ = _delivered(ours, kills=True)
        lost = options.notices - len(set(received))
        again = len(received) - len(set(received))
        show(f"\nkill -9 in their midst: {lost} lost, {again} of {options.notices} sent again")
        dispose_db()
    ours.send(False)
    endpoint.join()
    sys.exit(0 if is_within and not lost else 1)


def _add_endpoint(url: str) -> None:
    with SessionLocal.begin() as session:
        endpoint = NoticeEndpoint(url=url, types=[NoticeType.GRANTED])
        session.add(endpoint)
        session.flush()
        session.add(NoticeSecret(endpoint_id=endpoint.endpoint_id, secret=os.urandom(32)))


def _fill(users: int, notices: int) -> None:
    tell(f"{notices} notices of {users} users")
    ids = [uuid.uuid4() for _ in range(users)]
    rows = [
        {"user_id": each, "email": f"{each}@example.com", "password_hash": "managed_externally"}
        for each in ids
    ]
    with SessionLocal.begin() as session:
        session.execute(insert(User), rows)
    for first in range(0, notices, BATCH):
        commands = [
            Grant(user_id=ids[number % users], actor="key:b", key=str(number), amount=1)
            for number in range(first, min(first + BATCH, notices))
        ]
        with SessionLocal.begin() as session:
            execute(session, commands)


def _delivered(pipe: Connection, *, kills: bool = False) -> tuple[list[str], list[float]]:
    """Deliver all that waits; what the endpoint got and when."""
    worker = subprocess.Popen(COMMAND)
    try:
        if kills:
            total = _pending()
            while _pending() > total // 2:
                time.sleep(0.05)
            worker.kill()
            worker.wait()
            worker = subprocess.Popen(COMMAND)
        until = time.monotonic() + PATIENCE_SECONDS
        while _pending():
            if time.monotonic() > until:
                raise SystemExit("The worker does not deliver")
            time.sleep(0.5)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait()
    pipe.send(True)
    received, times = pipe.recv()
    return received, times


def _pending() -> int:
    with SessionLocal() as session:
        return session.scalars(
            select(func.count()).select_from(CreditNotice).where(CreditNotice.status == "pending")
        ).one()


if __name__ == "__main__":
    main()
