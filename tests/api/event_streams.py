"""A client of server-sent events, over ASGI: httpx's own waits for an answer's end."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from starlette.types import Message, Scope


@dataclass
class Watched:
    """What came of one stream so far."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict[str, str])
    _received: "asyncio.Queue[str | None]" = field(default_factory=asyncio.Queue[str | None])

    async def piece(self) -> str | None:
        """The next event or comment as it came; None at the end."""
        return await self._received.get()

    async def event(self) -> tuple[int, dict[str, Any]]:
        """The next event's id and data; comments are passed over."""
        while (piece := await self.piece()) is not None:
            if piece.startswith(":"):
                continue
            lines = dict(line.split(": ", 1) for line in piece.strip().splitlines())
            assert lines["event"] == "balance"
            return int(lines["id"]), json.loads(lines["data"])
        raise AssertionError("the stream has ended")

    async def end(self) -> None:
        """Wait until it ends."""
        while await self.piece() is not None:
            continue

    async def take(self, message: Message) -> None:
        """What the application sends."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            for name, value in message["headers"]:
                given = self.headers.get(name.decode())
                self.headers[name.decode()] = ", ".join(filter(None, [given, value.decode()]))
        elif message.get("body"):
            self._received.put_nowait(message["body"].decode())
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._received.put_nowait(None)


@asynccontextmanager
async def watching(
    app: FastAPI, path: str, token: str, headers: Mapping[str, str] | None = None
) -> AsyncGenerator[Watched]:
    """Read a stream until the block is left; then the client is gone."""
    watched, is_gone = Watched(), asyncio.Event()
    requests: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]
    given = {"authorization": f"Bearer {token}", **(headers or {})}

    async def receive() -> Message:
        if requests:
            return requests.pop()
        await is_gone.wait()
        return {"type": "http.disconnect"}

    scope: Scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": f"/api/v1{path}",
        "raw_path": f"/api/v1{path}".encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
        "app": app,
    }
    serving = asyncio.create_task(app(scope, receive, watched.take))
    try:
        yield watched
    finally:
        is_gone.set()
        await serving
