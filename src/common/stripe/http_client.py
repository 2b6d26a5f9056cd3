"""How Stripe's library speaks HTTP: on connections of ours, and some answers as they came."""

import ssl
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any

import stripe

from src.common.http_clients import open_http_client

_KEPT: ContextVar[list[bytes] | None] = ContextVar("kept", default=None)


@contextmanager
def text_kept() -> Generator[list[bytes]]:
    """Answers as they came, which the library does not read: it makes a tree of each.

    That is three times as large and takes longer than all else that is done with a page.
    """
    kept: list[bytes] = []
    token = _KEPT.set(kept)
    try:
        yield kept
    finally:
        _KEPT.reset(token)


class HttpClient(stripe.HTTPXClient):
    """Stripe's own client on connections of ours, which no proxy comes between and loopback."""

    def __init__(self, timeout: float) -> None:
        super().__init__(timeout=timeout)
        context = ssl.create_default_context(cafile=stripe.ca_bundle_path)
        self._client_async = open_http_client(verify=context)

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """Ask; an answer whose text is kept is empty to the library, and errors are never kept."""
        content, status, answered = await super().request_async(method, url, headers, post_data)
        kept = _KEPT.get()
        if kept is not None and status == HTTPStatus.OK:
            kept.append(content)
            content = b"{}"
        return content, status, answered
