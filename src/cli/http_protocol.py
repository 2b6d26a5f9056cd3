"""uvicorn's HTTP protocol with bounds: how large a request's head may be, how long it may take.

httptools has none, unlike h11. What is refused here is no request yet, so no middleware sees it;
how long a body may take is `src/api/src/body_limit.py`'s to say.

Whoever is answered before all of the request has come still sends. A connection that is closed then
is reset, and the answer may be lost on its way: so the rest is read, within bounds, and dropped.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from src.cli.descriptors import DescriptorReserve
from src.common.settings import get_settings
from src.shutdowns import IS_SHUTTING_DOWN

READ_ON_BYTES_MAX = 67_108_864
"""How much is read, and dropped, of a request that is answered already."""
HEAD_BYTES_MAX = 65_536
"""Request line and headers together: what uvicorn allows h11."""
_BETWEEN = len(": \r\n")
_MALFORMED = (400, "BAD_REQUEST", "This is not HTTP")
_TOO_LARGE = (431, "HEADERS_TOO_LARGE", f"Request line and headers exceed {HEAD_BYTES_MAX} bytes")
_TOO_SLOW = (408, "REQUEST_TIMEOUT", "The request's headers did not come in time")


class BoundedHttpProtocol(HttpToolsProtocol):
    """Answers 431 and 408 where h11's bounds, and a time for the head, are exceeded."""

    _descriptors = DescriptorReserve()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        settings = get_settings()
        self._head_timeout_seconds = settings.api_head_timeout_seconds
        self._is_read_by_pages = bool(settings.allowed_cors_origins)
        self._head_timer: asyncio.TimerHandle | None = None
        self._awaits_head = True
        """Whether the next byte belongs to a request that has not begun to be served."""
        self._head_bytes = 0
        """How many have come for it; a body before it may be among them."""
        self._refusal = _MALFORMED
        self._dropped_bytes = 0
        """How much came of a request that is answered."""
        self._is_closed_to_requests = False
        """Whether the last answer is sent, and what still comes is dropped unread."""
        self._is_ending = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._answers_transport = _AnswersTransport(transport, self.loop, self._close)
        if self._descriptors.refuses(transport.get_extra_info("socket").fileno()):
            transport.abort()
        else:
            self._limit_time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._lift_time_limit()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request, unless its head has become too large."""
        if self._is_closed_to_requests:
            if not self._serves:
                self._drop(data)
            return
        if self._awaits_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._is_closed_to_requests or self.transport.is_closing():
            return
        if self._awaits_head:
            if self._head_bytes > HEAD_BYTES_MAX:
                self._refuse(_TOO_LARGE)
            elif self._head_timer is None and not self._serves:
                self._limit_time()
        elif not self._serves:  # the answer is sent, and more of the request still comes
            self._drop(data)

    def on_headers_complete(self) -> None:
        """Serve a request whose head is within bounds."""
        self._lift_time_limit()
        if self._head_bytes > HEAD_BYTES_MAX and self._head_size() > HEAD_BYTES_MAX:
            self._refusal = _TOO_LARGE
            raise ValueError(_TOO_LARGE)  # the parser's caller answers it
        self._awaits_head, self._dropped_bytes = False, 0
        super().on_headers_complete()
        self.cycle.scope[IS_SHUTTING_DOWN] = self._is_told_to_end  # type: ignore[literal-required]  # ours
        self.cycle.transport = self._answers_transport  # type: ignore[assignment]  # all it uses

    def on_message_complete(self) -> None:
        """Wait for the next request on this connection."""
        self._lift_time_limit()
        self._awaits_head, self._head_bytes = True, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, if there can be one."""
        self._answers_transport.flush()
        super().on_response_complete()
        if self._is_closed_to_requests:
            self._unset_keepalive_if_required()

    def shutdown(self) -> None:
        """Serve what is being served, and wait for no stranger any more."""
        self._is_ending = True
        if self._is_closed_to_requests and not self._serves:
            self.transport.close()
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  uvicorn's sentence
        """Refuse what the parser has refused."""
        self._refuse(self._refusal)

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: it is answered as a plain request, whatever the client would rather speak.

        What follows it is no HTTP, so the connection ends with the answer.
        """
        if self._cycle is not None:
            self._cycle.keep_alive = False

    def _is_told_to_end(self) -> bool:
        return self._is_ending

    @property
    def _serves(self) -> bool:
        return self._cycle is not None and not self._cycle.response_complete

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

    def _close(self) -> None:
        """Close the connection once its client can have read the answer."""
        if self._awaits_head:  # all of the request has come
            self.transport.close()
        else:
            self._read_on()

    def _read_on(self) -> None:
        """Send no more; drop what comes, until the client hangs up or the bounds are met."""
        if self._is_ending or not self.transport.can_write_eof():
            self.transport.close()
            return
        self._is_closed_to_requests = True
        self._lift_time_limit()
        self.transport.write_eof()
        self.flow.resume_reading()
        self._drop(b"")

    def _drop(self, data: bytes) -> None:
        self._dropped_bytes += len(data)
        if self._dropped_bytes > READ_ON_BYTES_MAX:
            self.transport.close()
        elif self._head_timer is None:  # a byte now and then would put off uvicorn's own limit
            self._head_timer = self.loop.call_later(
                self._head_timeout_seconds, self.transport.close
            )

    def _refuse(self, refusal: tuple[int, str, str]) -> None:
        if self.transport.is_closing() or self._is_closed_to_requests:
            return
        if self._serves:  # the request before it, whose answer is the last
            self._is_closed_to_requests, self.cycle.keep_alive = True, False
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
        if self._is_read_by_pages:  # by any: its Origin is not known yet, and this tells nothing
            headers.append((b"access-control-allow-origin", b"*"))
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[status], lines, body))
        self._read_on()


class _AnswersTransport:
    """A connection as uvicorn's answers use it, which close it in our way.

    uvicorn writes an answer's head and its body apart, each by a call of the kernel. What is
    written first waits for what comes next, until the event loop's next turn at the latest.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        close: Callable[[], None],
    ) -> None:
        self.is_closing = transport.is_closing
        self._transport = transport
        self._loop = loop
        self._close = close
        self._held = b""
        self._flush_handle: asyncio.Handle | None = None

    def write(self, data: bytes) -> None:
        """Send it, with what waits."""
        if self._flush_handle is None:
            self._held = data
            self._flush_handle = self._loop.call_soon(self.flush)
        else:
            self._held += data
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
            self._transport.write(self._held)

    def close(self) -> None:
        """Send what waits, and close the connection."""
        self.flush()
        self._close()
