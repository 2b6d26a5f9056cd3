"""What strangers may send, and for how long: no request keeps the server, or its end, waiting."""

import json
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from signal import SIGTERM
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from src.common.credits.operations import execute
from src.common.database import SessionLocal
from src.local_postgres import ConnectionParameters, free_port
from tests.cli.processes import PATIENCE_SECONDS, Program, stop
from tests.credits.books import grant, make_user
from tests.fixtures.databases import Server, environment_of

HEAD = "POST /api/v1/webhook HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
HANDSHAKE = (
    "GET /livez HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@dataclass(frozen=True)
class Served:
    """A server, and raw connections to it."""

    program: Program
    process: subprocess.Popen[str]
    port: int
    connections: ExitStack

    def connect(self, *pieces: str) -> socket.socket:
        """A connection on which this was sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), PATIENCE_SECONDS)
        self.connections.enter_context(connection)
        for piece in pieces:
            connection.sendall(piece.encode())
        return connection


def answer_on(connection: socket.socket) -> tuple[int, Any]:
    """All that comes until the server hangs up: the status and the body; 0 where nothing came."""
    answer = b""
    try:
        while piece := connection.recv(65_536):
            answer += piece
    except ConnectionResetError:
        pass
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ")[1]) if head else 0
    return status, json.loads(body) if body else None


@contextmanager
def serving(folder: Path, database: ConnectionParameters) -> Generator[Served]:
    """The service, patient for two seconds with heads and bodies, and long with all else."""
    environment = environment_of(database) | {
        "FLASHSLIDES_DATA_DIR": str(folder / "data"),
        "API_HEAD_TIMEOUT_SECONDS": "2",
        "API_BODY_TIMEOUT_SECONDS": "2",
        "API_SHUTDOWN_TIMEOUT_SECONDS": "60",
        "CREDITS_ENGINE_LOCK_TIMEOUT_MS": "60000",
        "DATABASE_LOCK_TIMEOUT_MS": "60000",
    }
    program, port = Program(folder, environment), free_port()
    with program.serve(port) as process, ExitStack() as connections:
        yield Served(program, process, port, connections)


@pytest.fixture(scope="module")
def served(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    """One for all tests that leave nothing behind."""
    name = f"bounds_{secrets.token_hex(4)}"
    with serving(tmp_path_factory.mktemp("bounds"), server.clone(name)) as served:
        yield served
    server.drop(name)


@pytest.fixture
def served_alone(tmp_path: Path, fresh_database: ConnectionParameters) -> Generator[Served]:
    """One that a test may stop, on the database that its own process is at."""
    with serving(tmp_path, fresh_database) as served:
        yield served


def test_what_is_too_large_or_too_slow_is_refused_in_the_one_body(served: Served) -> None:
    """Each is answered, where there is a request to answer, and its connection is closed."""
    long_line = f"GET /{'x' * 70_000} HTTP/1.1\r\nHost: test\r\n\r\n"
    long_header = f"GET /livez HTTP/1.1\r\nHost: test\r\nX-Long: {'x' * 70_000}\r\n\r\n"
    endless_header = f"GET /livez HTTP/1.1\r\nHost: test\r\nX-Endless: {'x' * 600_000}"
    for sent in (long_line, long_header, endless_header):
        status, body = answer_on(served.connect(sent))
        assert (status, body["detail"]["error_type"]) == (431, "HEADERS_TOO_LARGE")
    waiting = {
        "nothing": served.connect(),
        "part of a line": served.connect("GET /liv"),
        "part of the headers": served.connect("GET /livez HTTP/1.1\r\nHost: t"),
        "no body": served.connect(f"{HEAD}Content-Length: 100\r\n\r\n"),
        "part of a body": served.connect(f"{HEAD}Content-Length: 100\r\n\r\n", "{"),
        "part of a chunk": served.connect(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\n{{"),
        "a blank line": served.connect("\r\n"),
    }
    answers = {name: answer_on(connection) for name, connection in waiting.items()}
    assert answers.pop("nothing") == (0, None)
    for name, (status, body) in answers.items():
        assert (name, status, body["detail"]["error_type"]) == (name, 408, "REQUEST_TIMEOUT")
    status, body = answer_on(served.connect("nonsense\r\n\r\n"))
    assert (status, body["detail"]["error_type"]) == (400, "BAD_REQUEST")
    just_small = f"GET /livez HTTP/1.1\r\nHost: t\r\nConnection: close\r\nX: {'x' * 60_000}\r\n\r\n"
    assert answer_on(served.connect(just_small))[0] == 200


def test_a_connection_that_is_used_again_is_bounded_each_time(served: Served) -> None:
    """The second request's head may take as long as the first's, and no longer."""
    connection = served.connect()
    for _ in range(2):
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n")
        answer = HTTPResponse(connection)
        answer.begin()
        assert (answer.status, answer.read()) == (200, b'{"status":"alive"}')
    connection.sendall(b"GET /livez HTTP/1.1\r\nHo")
    assert answer_on(connection)[0] == 408


def test_a_body_that_dribbles_in_is_bounded_as_a_whole(served: Served) -> None:
    """A byte now and then does not help; the time is the whole body's."""
    connection = served.connect(f"{HEAD}Content-Length: 100000\r\n\r\n")
    answered = threading.Event()

    def dribble() -> None:
        while not answered.wait(0.05):
            try:
                connection.sendall(b" ")
            except OSError:
                return

    thread = threading.Thread(target=dribble)
    thread.start()
    assert answer_on(connection)[0] in (408, 0)  # 0: the dribble met a closed connection
    answered.set()
    thread.join()


def test_a_body_that_nobody_reads_is_bounded_too(served: Served) -> None:
    """Where the answer is sent already, what still comes of the request holds no connection."""
    connection = served.connect(
        "POST /nowhere HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\n"
    )
    assert connection.recv(65_536).startswith(b"HTTP/1.1 404")
    connection.sendall(b"x")
    connection.settimeout(PATIENCE_SECONDS)
    while connection.recv(65_536):
        pass  # the rest of the answer; then the server hangs up


def test_a_websocket_is_an_ordinary_request(served: Served) -> None:
    """We serve none, and nobody can tell our log to install one."""
    handshake = served.connect(HANDSHAKE)
    assert handshake.recv(65_536).startswith(b"HTTP/1.1 200")
    assert "WebSocket" not in served.program.said()


def test_sigterm_waits_for_whom_we_serve_and_for_no_stranger(served_alone: Served) -> None:
    """A spend that waits for a lock is answered 200; what never comes is not waited for."""
    served = served_alone
    with SessionLocal.begin() as session:
        user_id = make_user(session).user_id
        execute(session, [grant(user_id, 100)])
    key = served.program.run_json("api-key", "create", "--scopes", "credits:spend")["key"]
    answers: list[httpx.Response] = []

    def spend() -> None:
        answers.append(
            httpx.post(
                f"http://127.0.0.1:{served.port}/api/v1/user/{user_id}/credits/spend",
                json={"amount": 10},
                headers={"Authorization": f"Bearer {key}", "Idempotency-Key": "one"},
                timeout=PATIENCE_SECONDS,
                trust_env=False,
            )
        )

    spending = threading.Thread(target=spend)
    with SessionLocal() as other:
        other.execute(text("SELECT FROM users FOR UPDATE"))
        spending.start()
        wait_for_a_lock()
        strangers = [
            served.connect(),
            served.connect("GET /liv"),
            served.connect(f"{HEAD}Content-Length: 100\r\n\r\n"),
            served.connect(HANDSHAKE),
        ]
        served.process.send_signal(SIGTERM)
        while "Shutting down" not in served.program.said():
            time.sleep(0.05)
    spending.join(PATIENCE_SECONDS)
    assert [answer.status_code for answer in answers] == [200]
    assert stop(served.process) == 0
    for stranger in strangers[:3]:
        assert answer_on(stranger)[0] in (0, 408)


def test_sigterm_ends_streams_of_balances_at_once(served_alone: Served) -> None:
    """Properly, with their last chunk: what is cut off at the end of all patience has none."""
    served = served_alone
    with SessionLocal.begin() as session:
        user_id = make_user(session).user_id
        execute(session, [grant(user_id, 100)])
    key = served.program.run_json("api-key", "create", "--scopes", "credits:read")["key"]
    stream = served.connect(
        f"GET /api/v1/user/{user_id}/credits/stream HTTP/1.1\r\nHost: t\r\n"
        f"Authorization: Bearer {key}\r\n\r\n"
    )
    answer = b""
    while b"\n\n" not in answer.partition(b"\r\n\r\n")[2]:
        answer += stream.recv(65_536)
    assert b'"balance":100' in answer
    served.process.send_signal(SIGTERM)
    while piece := stream.recv(65_536):
        answer += piece
    assert answer.endswith(b"0\r\n\r\n")
    assert stop(served.process) == 0
    assert "timeout graceful shutdown exceeded" not in served.program.said()


def wait_for_a_lock() -> None:
    """Until somebody waits for one."""
    waiting = text(
        "SELECT count(*) > 0 FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        with SessionLocal() as session:
            if session.scalars(waiting).one():
                return
        assert time.monotonic() < until, "nobody waits for a lock"
        time.sleep(0.05)
