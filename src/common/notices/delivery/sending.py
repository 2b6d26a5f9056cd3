"""Sends one notice over HTTP: no redirect, no proxy, bounded in time and in what is read."""

import asyncio
import datetime as dt
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from urllib.parse import urlsplit

import httpcore
import httpx

from src.common.notices.delivery.addresses import AddressRefused, CheckedBackend
from src.common.notices.delivery.messages import Notice, body_of, headers_of
from src.common.notices.delivery.schedule import Answer, Outcome, answer_of

CONNECT_TIMEOUT_SECONDS = 5.0
ANSWER_BYTES_MAX = 65_536
"""What is read of an answer before its connection is closed; nothing of it is kept."""
READ_ON_SECONDS = 2.0
"""And for how long, once its status has come."""
IDLE_SECONDS = 15.0
"""How long a connection is kept: until then its name may lead elsewhere unseen."""
_LOST = (httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.WriteError)
"""What a connection that was closed while it was idle ends with, too."""


class Sender:
    """The connections to one endpoint: as many as there are requests at a time."""

    def __init__(self, url: str, *, is_local: bool, timeout_seconds: float) -> None:
        self._url = _url_of(url)
        self._is_refused = not is_local and self._url.scheme != b"https"
        self._timeout_seconds = timeout_seconds
        self._ssl_context = _tls() if self._url.scheme == b"https" else None
        self._backend = CheckedBackend(allows_all=is_local)
        self._idle: list[httpcore.AsyncHTTPConnection] = []

    async def aclose(self) -> None:
        """Close what is open."""
        for connection in self._idle:
            await connection.aclose()

    async def send(self, notice: Notice, secrets: Sequence[bytes]) -> Answer:
        """Send it once; never raises for what the other side does."""
        if self._is_refused:
            return _failed("URL_REFUSED: only https is sent to")
        if not secrets:
            return _failed("NO_SECRET: the endpoint has no secret that is valid")
        now = dt.datetime.now(dt.UTC)
        body = body_of(notice)
        headers = headers_of(notice, body, secrets, now)
        deadline = asyncio.get_running_loop().time() + self._timeout_seconds
        try:
            try:
                return await self._post(body.encode(), headers, now, deadline)
            except _LOST:  # an idle connection, perhaps: once more, at once
                return await self._post(body.encode(), headers, now, deadline)
        except AddressRefused:
            return _failed("ADDRESS_REFUSED: the name leads to no address of the public internet")
        except (TimeoutError, httpcore.TimeoutException):
            return _failed("TIMEOUT: the endpoint did not answer in time")
        except (httpcore.ConnectError, ssl.SSLError, OSError):
            return _failed("CONNECTION_FAILED: no connection to the endpoint")
        except (httpcore.NetworkError, httpcore.ProtocolError):
            return _failed("CONNECTION_LOST: the connection ended without an answer")

    async def _post(
        self, body: bytes, headers: Mapping[str, str], now: dt.datetime, deadline: float
    ) -> Answer:
        request = httpcore.Request(
            "POST",
            self._url,
            headers=[
                (b"Host", _host_of(self._url)),
                (b"Content-Length", b"%d" % len(body)),
                *((name.encode(), value.encode()) for name, value in headers.items()),
            ],
            content=body,
            extensions={"timeout": {"connect": CONNECT_TIMEOUT_SECONDS}},
        )
        connection = await self._connection()
        try:
            async with asyncio.timeout_at(deadline):  # until its status is there
                response = await connection.handle_async_request(request)
            given = {name.lower(): value for name, value in response.headers}
            after = given.get(b"retry-after")
            try:
                with suppress(TimeoutError, httpcore.NetworkError, httpcore.ProtocolError):
                    await _read_on(response)
            finally:
                await response.aclose()
        finally:
            if connection.is_available():
                self._idle.append(connection)
            else:
                await connection.aclose()
        return answer_of(response.status, None if after is None else after.decode("latin-1"), now)

    async def _connection(self) -> httpcore.AsyncHTTPConnection:
        """One that is open and idle, or a new one."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.has_expired():
                return connection
            await connection.aclose()
        return httpcore.AsyncHTTPConnection(
            origin=self._url.origin,
            ssl_context=self._ssl_context,
            keepalive_expiry=IDLE_SECONDS,
            network_backend=self._backend,
        )


def _url_of(text: str) -> httpcore.URL:
    """All of it: httpcore's own parser drops what follows a semicolon in the path."""
    parts = urlsplit(text)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return httpcore.URL(
        scheme=parts.scheme, host=parts.hostname or "", port=parts.port, target=target
    )


def _host_of(url: httpcore.URL) -> bytes:
    host = b"[%b]" % url.host if b":" in url.host else url.host
    return host if url.port is None else b"%b:%d" % (host, url.port)


async def _read_on(response: httpcore.Response) -> None:
    """Read what is left, so that the connection can be used again; what it says does not matter.

    One that says too much, or takes too long over it, loses its connection.
    """
    read = 0
    async with asyncio.timeout(READ_ON_SECONDS):
        async for piece in response.aiter_stream():
            read += len(piece)
            if read > ANSWER_BYTES_MAX:
                return


def _failed(error: str) -> Answer:
    return Answer(outcome=Outcome.OUT_OF_REACH, error=error)


@cache
def _tls() -> ssl.SSLContext:
    """Verifies an endpoint's certificate for the name in its URL.

    One for all: to make it holds up whatever is sent beside, for longer than a request takes.
    """
    return httpx.create_ssl_context()
