"""Makes HTTP clients: through the proxy that the environment names, but not to this machine."""

from typing import Any

import httpx

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def open_http_client(**options: Any) -> httpx.AsyncClient:
    """An `httpx.AsyncClient` of these options, which asks loopback itself.

    httpx sends everything through `HTTP_PROXY`, `HTTPS_PROXY` and `ALL_PROXY` that `NO_PROXY` does
    not name; a proxy elsewhere would look for our loopback on its own machine.
    """
    return httpx.AsyncClient(**options, mounts={f"all://{host}": None for host in _LOOPBACK})
