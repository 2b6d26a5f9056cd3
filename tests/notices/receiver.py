"""An endpoint as somebody else might run it, in this event loop: it answers as a test tells it."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from src.common.notices.ids import parse_notice_id


@dataclass(frozen=True)
class Received:
    """One request."""

    target: str
    """Path and query."""
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """`webhook-id`."""
        return self.headers["webhook-id"]

    @property
    def user(self) -> str:
        """Whose notice it is."""
        found = parse_notice_id(self.id)
        assert found is not None
        return str(found[0])

    @property
    def payload(self) -> dict[str, Any]:
        """The body as JSON."""
        found: dict[str, Any] = json.loads(self.body)
        return found


Answering = Callable[[Received], Awaitable[tuple[int, dict[str, str]] | None]]
"""Status and headers; None closes the connection without an answer."""


async def take(_request: Received) -> tuple[int, dict[str, str]]:
    """Take whatever comes."""
    return 204, {}


@dataclass
class Receiver:
    """What came, and how it is answered."""

    port: int = 0
    received: list[Received] = field(default_factory=list[Received])
    taken: list[Received] = field(default_factory=list[Received])
    """Those that were answered 2xx."""
    answering: Answering = take
    connections: int = 0
    serving: set[asyncio.Task[Any]] = field(default_factory=set[asyncio.Task[Any]])
    now: int = 0
    """Requests that are being answered."""
    most: int = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/hook"

    def taken_by_user(self) -> dict[str, list[str]]:
        """The ids of what was taken, in order, repeated ones once."""
        found: defaultdict[str, dict[str, None]] = defaultdict(dict)
        for each in self.taken:
            found[each.user][each.id] = None
        return {user: list(ids) for user, ids in found.items()}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        try:
            while (request := await _read(reader)) is not None:
                self.received.append(request)
                self.now += 1
                self.most = max(self.most, self.now)
                try:
                    answer = await self.answering(request)
                finally:
                    self.now -= 1
                if answer is None:
                    return
                status, headers = answer
                if status // 100 == 2:
                    self.taken.append(request)
                body = headers.pop("body", "")
                lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                head = f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\n{lines}\r\n"
                writer.write((head + body).encode())
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return
        finally:
            self.serving.remove(task)
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Received | None:
    head = await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b""
    if not head:
        return None
    first, *lines = head.decode().strip().split("\r\n")
    headers = {name.lower(): value for name, value in _headers(lines)}
    return Received(
        first.split()[1], headers, await reader.readexactly(int(headers["content-length"]))
    )


def _headers(lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        name, _, value = line.partition(": ")
        yield name, value


@asynccontextmanager
async def receiving(answering: Answering = take, *, port: int = 0) -> AsyncGenerator[Receiver]:
    """An endpoint until the block is left; at a port that is free, or at this one."""
    receiver = Receiver(answering=answering)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", port)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        serving = list(receiver.serving)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving)
