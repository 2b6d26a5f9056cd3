"""Requests over HTTP/1.1 on one kept-open connection a caller: little more than a socket.

A load generator must be cheap, since it shares the machine with what it measures; the route that
does nothing shows what is left of that.
"""

import asyncio
import json
import os
from typing import cast

import httptools

from benchmarks.calls.base import AsyncCalls, Refused
from benchmarks.workload import Operation

PORT = "BENCHMARK_HTTP_PORT"
API_KEY = "BENCHMARK_HTTP_API_KEY"
ENV = "benchmark"
"""The deployment that is measured; Stripe's events name it."""
OK = 200


class _Connection(asyncio.Protocol):
    """One connection, one request at a time; its answer's status, body and replay header."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[tuple[int, bytes, bool]] | None = None
        self._start()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what to write to; uvloop's is no subclass of asyncio's."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request that is under way."""
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(exc or ConnectionResetError("closed by the server"))

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take note of the one header that matters."""
        self._replayed |= name.lower() == b"idempotent-replayed" and value == b"true"

    def on_body(self, body: bytes) -> None:
        """Collect the body."""
        self._body += body

    def on_message_complete(self) -> None:
        """Hand the answer over."""
        answered, status = self._answered, self._parser.get_status_code()
        body, replayed = self._body, self._replayed
        self._start()
        assert answered is not None  # noqa: S101  nothing is answered that was not asked
        answered.set_result((status, body, replayed))

    async def ask(self, request: bytes) -> tuple[int, bytes, bool]:
        """Send a request and wait for its answer."""
        assert self._transport is not None  # noqa: S101  connected
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answered

    def close(self) -> None:
        """Close the connection."""
        assert self._transport is not None  # noqa: S101  connected
        self._transport.close()

    def _start(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""
        self._replayed = False


class HttpCalls(AsyncCalls):
    """Requests; subclasses say of what."""

    async def open(self, callers: int) -> None:
        """Connect once for every caller."""
        loop = asyncio.get_running_loop()
        port = int(os.environ[PORT])
        self._head = f"Host: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        self._connections = [
            (await loop.create_connection(_Connection, "127.0.0.1", port))[1]
            for _ in range(callers)
        ]

    async def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.close()

    async def post(
        self, caller: int, path: str, headers: str, content: str
    ) -> tuple[int, bytes, bool]:
        """Send ASCII `content`; the answer's status, body and whether it says it is a replay."""
        return await self.ask(caller, self.request("POST", path, headers, content))

    def request(self, method: str, path: str, headers: str, content: str) -> bytes:
        """A whole request; `content` is ASCII."""
        return (
            f"{method} {path} HTTP/1.1\r\n{self._head}{headers}\r\n"
            f"Content-Length: {len(content)}\r\n\r\n{content}"
        ).encode()

    async def ask(self, caller: int, request: bytes) -> tuple[int, bytes, bool]:
        """Send a whole request; the answer's status, body and whether it says it is a replay."""
        return await self._connections[caller].ask(request)


class _CreditCalls(HttpCalls):
    """Spends over HTTP; subclasses say which routes."""

    def spend_path(self, user_id: str) -> str:
        """Return the path that takes credits."""
        raise NotImplementedError

    def grant_path(self, user_id: str) -> str:
        """Return the path that gives credits."""
        raise NotImplementedError

    async def open(self, callers: int) -> None:
        """Connect once for every caller."""
        self._authorization = f"Authorization: Bearer {os.environ[API_KEY]}"
        await super().open(callers)

    async def call(self, caller: int, operation: Operation) -> bool:
        """Send the request and read whether it was answered as a replay."""
        user_id, amount, key = operation
        if amount < 0:
            path, body = self.grant_path(str(user_id)), {"amount": -amount, "source": "promo"}
        else:
            path, body = self.spend_path(str(user_id)), {"amount": amount}
        headers = f"{self._authorization}\r\nIdempotency-Key: {key}"
        status, answer, replayed = await self.post(caller, path, headers, json.dumps(body))
        if status != OK:
            raise Refused(f"HTTP {status} {answer[:200].decode(errors='replace')}")
        return replayed


class HttpSpend(_CreditCalls):
    """The API's own endpoints, with an API key."""

    def spend_path(self, user_id: str) -> str:
        """Return the path that takes credits."""
        return f"/api/v1/user/{user_id}/credits/spend"

    def grant_path(self, user_id: str) -> str:
        """Return the path that gives credits."""
        return f"/api/v1/user/{user_id}/credits/grant"


class HttpEcho(_CreditCalls):
    """The route that parses the same body and answers."""

    tops_up = False
    replays = False

    def spend_path(self, user_id: str) -> str:
        """Return the path of the echo."""
        return f"/benchmark/user/{user_id}/echo"


class HttpDocument(_CreditCalls):
    """The route that runs the document's update."""

    replays = False

    def spend_path(self, user_id: str) -> str:
        """Return the path that takes credits."""
        return f"/benchmark/user/{user_id}/document/spend"

    def grant_path(self, user_id: str) -> str:
        """Return the path that gives credits."""
        return f"/benchmark/user/{user_id}/document/grant"
