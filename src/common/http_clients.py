"""Makes HTTP clients: through the proxy that the environment names, but not to this machine."""

from typing import Any

import httpx

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class _Client(httpx.AsyncClient):
    """Its answers, once read, end with whoever uses them.

    In httpx an answer and its stream refer to each other: it stays until the collector comes.
    """

    async def send(
        self, request: httpx.Request, *, stream: bool = False, **options: Any
    ) -> httpx.Response:
        """As `httpx.AsyncClient.send`."""
        answer = await super().send(request, stream=stream, **options)
        if not stream:
            answer.stream = httpx.ByteStream(answer.content)
        return answer


def open_http_client(**options: Any) -> httpx.AsyncClient:
    """An `httpx.AsyncClient` of these options, which asks loopback itself.

    httpx sends everything through `HTTP_PROXY`, `HTTPS_PROXY` and `ALL_PROXY` that `NO_PROXY` does
    not name; a proxy elsewhere would look for our loopback on its own machine.
    """
    return _Client(**options, mounts={f"all://{host}": None for host in _LOOPBACK})


def open_sync_http_client(**options: Any) -> httpx.Client:
    """As `open_http_client`, for what is done in a thread of its own."""
    return httpx.Client(**options, mounts={f"all://{host}": None for host in _LOOPBACK})
