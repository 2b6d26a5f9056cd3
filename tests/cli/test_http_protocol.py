"""Answers reach clients that still send; connections leave file descriptors for the rest of us."""

import asyncio
import json
import os
import resource
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from src.api.src.body_limit import BodyLimitMiddleware
from src.api.src.error_handlers import install_error_handlers
from src.api.src.request_context import RequestContextMiddleware
from src.cli import descriptors, http_protocol
from src.cli.http_protocol import BoundedHttpProtocol
from src.common.settings import get_settings

PATIENCE_SECONDS = 600
BODY_BYTES_MAX = 1_000
LARGE = 8_000_000
"""More than the buffers of both ends hold."""
GATE, BEGUN = threading.Event(), threading.Event()


def small_app() -> FastAPI:
    """What reads bodies, what reads none, and what takes its time; bounded as the service is."""
    app = FastAPI()
    app.add_middleware(BodyLimitMiddleware, max_bytes=BODY_BYTES_MAX, timeout_seconds=600)
    install_error_handlers(app)
    app.add_middleware(RequestContextMiddleware)

    @app.post("/read")
    async def read(request: Request) -> int:
        return len(await request.body())

    @app.get("/slow")
    async def slow() -> str:
        BEGUN.set()
        await asyncio.to_thread(GATE.wait, PATIENCE_SECONDS)
        return "done"

    @app.get("/pieces")
    async def pieces() -> StreamingResponse:
        async def made() -> AsyncGenerator[bytes]:
            yield b"first"
            await asyncio.to_thread(GATE.wait, PATIENCE_SECONDS)
            yield b"last"

        return StreamingResponse(made())

    @app.get("/quick")
    async def quick() -> str:
        return "done"

    return app


@contextmanager
def serving() -> Generator[tuple[uvicorn.Server, Callable[[], socket.socket]]]:
    """A server in a thread of its own, and what connects to it; it ends with the block."""
    config = uvicorn.Config(
        small_app(), http=BoundedHttpProtocol, loop="uvloop", lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()

        def connect() -> socket.socket:
            address = listening.getsockname()
            return stack.enter_context(socket.create_connection(address, PATIENCE_SECONDS))

        try:
            yield server, connect
        finally:
            server.should_exit = True
            thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive(), "it waits for strangers"


StartServing = Callable[
    ..., AbstractContextManager[tuple[uvicorn.Server, Callable[[], socket.socket]]]
]


@pytest.fixture
def start_serving(monkeypatch: pytest.MonkeyPatch) -> Generator[StartServing]:
    """Serve with these settings; by default nobody is hung up on because time has passed."""

    def start(
        **environment: str,
    ) -> AbstractContextManager[tuple[uvicorn.Server, Callable[[], socket.socket]]]:
        for name, value in ({"API_HEAD_TIMEOUT_SECONDS": "600"} | environment).items():
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()
        return serving()

    yield start
    get_settings.cache_clear()


def has_begun_to_end(server: uvicorn.Server) -> bool:
    """Whether every connection that is left has been told."""
    left: list[Any] = list(server.server_state.connections)
    told: list[bool] = [each._is_ending for each in left]  # noqa: SLF001
    return all(told)


def answer_on(connection: socket.socket) -> tuple[int, str, bytes]:
    """The next answer: its status, its `Connection` header, its body."""
    answer = HTTPResponse(connection)
    answer.begin()
    return answer.status, answer.getheader("Connection", ""), answer.read()


def error_type(body: bytes) -> str:
    """Of the one body of all errors."""
    found: str = json.loads(body)["detail"]["error_type"]
    return found


DECLARED = f"Content-Length: {LARGE}"
CHUNKED = "Transfer-Encoding: chunked"
CHUNK = b"%x\r\n%b\r\n" % (LARGE, b"x" * LARGE)


@pytest.mark.parametrize(
    ("path", "version", "length", "expected"),
    [
        ("/read", "1.0", DECLARED, "PAYLOAD_TOO_LARGE"),
        ("/read", "1.1", DECLARED, "PAYLOAD_TOO_LARGE"),
        ("/read", "1.1", CHUNKED, "PAYLOAD_TOO_LARGE"),
        ("/nowhere", "1.1", CHUNKED, "NOT_FOUND"),
        ("/nowhere", "1.1", f"{CHUNKED}\r\nConnection: close", "NOT_FOUND"),
    ],
)
def test_an_answer_reaches_a_client_that_is_still_sending(
    start_serving: StartServing, path: str, version: str, length: str, expected: str
) -> None:
    """One that reads only once it has sent all, as many do; also where the connection ends then."""
    head = f"POST {path} HTTP/{version}\r\nHost: t\r\n{length}\r\n\r\n"
    with start_serving() as (_, connect):
        connection = connect()
        connection.sendall(head.encode())
        connection.sendall(b"x" * LARGE if length == DECLARED else CHUNK + b"0\r\n\r\n")
        _, connection_header, body = answer_on(connection)
        assert error_type(body) == expected
        if (path, length) != ("/nowhere", CHUNKED):  # then another request may follow
            assert connection_header == "close"
            assert connection.recv(1) == b""


def test_a_head_that_is_too_large_is_answered_while_it_is_sent(
    start_serving: StartServing,
) -> None:
    """431, where closing at once would reset the connection; pages of other origins may read it."""
    with start_serving(CORS_ORIGINS="https://app.example") as (_, connect):
        connection = connect()
        connection.sendall(b"GET /quick HTTP/1.1\r\nHost: t\r\nX-Endless: " + b"x" * LARGE)
        answer = HTTPResponse(connection)
        answer.begin()
        assert (answer.status, error_type(answer.read())) == (431, "HEADERS_TOO_LARGE")
        assert answer.getheader("Access-Control-Allow-Origin") == "*"


def send_until_hung_up(connection: socket.socket, piece: bytes) -> None:
    """Send for as long as the other end takes it."""
    try:
        while True:
            connection.sendall(piece)
    except (BrokenPipeError, ConnectionResetError):
        pass


HEAD = f"POST /read HTTP/1.1\r\nHost: t\r\nContent-Length: {10**12}\r\n\r\n".encode()


def test_reading_on_is_bounded_in_bytes(
    start_serving: StartServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who sends for ever is hung up on."""
    monkeypatch.setattr(http_protocol, "READ_ON_BYTES_MAX", 1_000_000)
    with start_serving() as (_, connect):
        connection = connect()
        connection.sendall(HEAD)
        send_until_hung_up(connection, b"x" * 10_000)


def test_reading_on_is_bounded_in_time(start_serving: StartServing) -> None:
    """Who sends a byte now and then as well."""
    with start_serving(API_HEAD_TIMEOUT_SECONDS="0.5") as (_, connect):
        connection = connect()
        connection.sendall(HEAD)
        assert answer_on(connection)[0] == 413
        send_until_hung_up(connection, b"x")


def test_the_end_does_not_wait_for_who_is_read_on(start_serving: StartServing) -> None:
    """A client that has its answer and neither sends nor hangs up."""
    with start_serving() as (_, connect):
        connection = connect()
        connection.sendall(HEAD)
        assert answer_on(connection)[0] == 413
        assert connection.recv(1) == b""


@pytest.mark.parametrize("ends", [False, True])
def test_an_answer_under_way_is_not_spoilt_by_what_follows_its_request(
    start_serving: StartServing,
    ends: bool,  # noqa: FBT001
) -> None:
    """No second answer is written into it; it is the last, also where the server ends meanwhile."""
    GATE.clear()
    BEGUN.clear()
    with start_serving() as (server, connect):
        connection = connect()
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: t\r\n\r\nnonsense\r\n\r\n")
        assert BEGUN.wait(PATIENCE_SECONDS)
        server.should_exit = ends
        while ends and not has_begun_to_end(server):
            time.sleep(0.01)
        GATE.set()
        assert answer_on(connection) == (200, "close", b'"done"')
        assert connection.recv(1) == b""


def test_a_connection_whose_whole_request_was_read_is_kept(start_serving: StartServing) -> None:
    """The next request on it is served."""
    with start_serving() as (_, connect):
        connection = connect()
        for _ in range(2):
            body = b"x" * 500
            connection.sendall(
                b"POST /read HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n%b" % (500, body)
            )
            assert answer_on(connection) == (200, "", b"500")


class Recording:
    """A connection that notes what is sent on it, call by call."""

    def __init__(self, transport: asyncio.Transport, sent: list[bytes]) -> None:
        self._transport, self._sent = transport, sent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Note it, and send it."""
        self._sent.append(data)
        self._transport.write(data)


def test_head_and_body_are_sent_at_once_and_neither_waits_for_what_takes_its_time(
    start_serving: StartServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call a whole answer; of one that is made piece by piece, each piece when it is there."""
    sent: list[bytes] = []
    as_it_is: Any = vars(http_protocol)["_AnswersTransport"]

    def recorded(transport: Any, *others: Any) -> Any:
        return as_it_is(Recording(transport, sent), *others)

    monkeypatch.setattr(http_protocol, "_AnswersTransport", recorded)
    GATE.clear()
    with start_serving() as (_, connect):
        connection = connect()
        connection.sendall(b"GET /quick HTTP/1.1\r\nHost: t\r\n\r\n")
        assert answer_on(connection) == (200, "", b'"done"')
        [whole] = sent
        assert whole.startswith(b"HTTP/1.1 200 ")
        assert whole.endswith(b'"done"')
        connection.sendall(b"GET /pieces HTTP/1.1\r\nHost: t\r\n\r\n")
        answer = HTTPResponse(connection)
        answer.begin()
        assert answer.read(5) == b"first"
        GATE.set()
        assert answer.read() == b"last"


def is_served(connection: socket.socket) -> bool:
    """Whether a request is answered on it, not hung up on."""
    try:
        connection.sendall(b"GET /quick HTTP/1.1\r\nHost: t\r\n\r\n")
        return connection.recv(1) != b""
    except OSError:
        return False


def test_more_connections_than_descriptors_are_logged(
    start_serving: StartServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for many; the others are served, and once they have left, everybody is."""
    with start_serving() as (_, connect), structlog.testing.capture_logs() as logs:
        assert is_served(connect())
        with ExitStack() as stack:  # as many as are left below the reserved
            left = [stack.enter_context(Path(os.devnull).open()) for _ in range(40)]
            limit = max(each.fileno() for each in left) + 10
        monkeypatch.setattr(descriptors, "RESERVED", 10)

        def limits(_kind: int) -> tuple[int, int]:
            return limit, limit

        monkeypatch.setattr(resource, "getrlimit", limits)
        connections: list[socket.socket] = []
        served: set[bool] = set()
        for _ in range(100):  # one by one: this process has both ends, and so both descriptors
            connections.append(connect())
            served.add(is_served(connections[-1]))
        assert served == {True, False}
        for connection in connections:
            connection.close()
        while not is_served(connect()):
            pass  # until the server has noticed that they left
    [line] = [line for line in logs if line["event"].startswith("More connections")]
    assert (line["log_level"], line["limit"]) == ("warning", limit)
