"""uvicorn's HTTP protocol with bounds: how large a request's head may be, how long it may take.

httptools has none, unlike h11. What is refused here is no request yet, so no middleware sees it;
how long a body may take is `src/api/src/body_limit.py`'s to say.
"""

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from src.common.settings import get_settings

HEAD_BYTES_MAX = 65_536
"""Request line and headers together: what uvicorn allows h11."""
_BETWEEN = len(": \r\n")
_MALFORMED = (400, "BAD_REQUEST", "This is not HTTP")
_TOO_LARGE = (431, "HEADERS_TOO_LARGE", f"Request line and headers exceed {HEAD_BYTES_MAX} bytes")
_TOO_SLOW = (408, "REQUEST_TIMEOUT", "The request's headers did not come in time")


class BoundedHttpProtocol(HttpToolsProtocol):
    """Answers 431 and 408 where h11's bounds, and a time for the head, are exceeded."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head_timeout_seconds = get_settings().api_head_timeout_seconds
        self._head_timer: asyncio.TimerHandle | None = None
        self._awaits_head = True
        """Whether the next byte belongs to a request that has not begun to be served."""
        self._head_bytes = 0
        """How many have come for it; a body before it may be among them."""
        self._refusal = _MALFORMED

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._limit_time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._lift_time_limit()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request, unless its head has become too large."""
        if self._awaits_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._awaits_head and not self.transport.is_closing():
            if self._head_bytes > HEAD_BYTES_MAX:
                self._refuse(_TOO_LARGE)
            elif self._head_timer is None and not self._serves:
                self._limit_time()
        elif self._is_answered_early and self._head_timer is None:
            # Nobody reads the rest of this body: each byte of it would put off uvicorn's own limit.
            self._head_timer = self.loop.call_later(
                self._head_timeout_seconds, self.transport.close
            )

    def on_headers_complete(self) -> None:
        """Serve a request whose head is within bounds."""
        self._lift_time_limit()
        if self._head_bytes > HEAD_BYTES_MAX and self._head_size() > HEAD_BYTES_MAX:
            self._refusal = _TOO_LARGE
            raise ValueError(_TOO_LARGE)  # the parser's caller answers it
        self._awaits_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Wait for the next request on this connection."""
        self._lift_time_limit()
        self._awaits_head, self._head_bytes = True, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  uvicorn's sentence
        """Refuse what the parser has refused."""
        self._refuse(self._refusal)

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: it is answered as a plain request, whatever the client would rather speak.

        What follows it is no HTTP, so the connection ends with the answer.
        """
        if self._cycle is not None:
            self._cycle.keep_alive = False

    @property
    def _serves(self) -> bool:
        return self._cycle is not None and not self._cycle.response_complete

    @property
    def _is_answered_early(self) -> bool:
        """Whether the answer is sent, and more of the request still comes."""
        return not self._awaits_head and not self._serves

    @property
    def _cycle(self) -> RequestResponseCycle | None:
        """The newest request on this connection, if any; uvicorn's type leaves that out."""
        return self.cycle

    def _head_size(self) -> int:
        headers = sum(len(name) + len(value) + _BETWEEN for name, value in self.headers)
        return len(self.url) + headers

    def _limit_time(self) -> None:
        self._head_timer = self.loop.call_later(self._head_timeout_seconds, self._time_out)

    def _lift_time_limit(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _time_out(self) -> None:
        if self._head_bytes:
            self._refuse(_TOO_SLOW)
        else:  # nobody asked anything
            self.transport.close()

    def _refuse(self, refusal: tuple[int, str, str]) -> None:
        if self.transport.is_closing():
            return
        status, error_type, message = refusal
        detail = {"error_type": error_type, "message": message, "request_id": None}
        body = json.dumps({"detail": detail}).encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[status], lines, body))
        self.transport.close()
