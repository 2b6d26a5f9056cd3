"""Stripe's own library on an offline Stripe in the same process: no port, no thread, no wait."""

import asyncio
from collections.abc import Awaitable, Mapping
from email.utils import formatdate
from typing import Any
from urllib.parse import urlsplit

import httpx
import stripe

from src.offline_stripe.server import OfflineStripe
from src.offline_stripe.wire import Request


class InProcessClient(stripe.HTTPClient):
    """An `http_client` for `stripe.StripeClient`, sync and async; no address is ever asked."""

    name = "offline"

    def __init__(self, offline: OfflineStripe) -> None:
        super().__init__()
        self._offline = offline

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        post_data: Any = None,
        *,
        _usage: list[str] | None = None,
    ) -> tuple[str, int, Mapping[str, str]]:
        """One request.

        Raises:
            stripe.APIConnectionError: the offline Stripe was told to be too slow; the request is
                carried out all the same.
        """
        parts = urlsplit(url)
        body = post_data.encode() if isinstance(post_data, str) else post_data or b""
        response = self._offline.handle(
            Request(
                method=method.upper(),
                path=parts.path,
                query=parts.query,
                headers={name.lower(): value for name, value in (headers or {}).items()},
                body=body,
            )
        )
        if response.delay_seconds:
            raise stripe.APIConnectionError(  # type: ignore[no-untyped-call]  # the library's own
                "The offline Stripe is slow", should_retry=True
            )
        date = formatdate(self._offline.account.now(), usegmt=True)
        answered = httpx.Headers({"Date": date, **response.headers})
        return response.body.decode(), response.status, answered

    async def request_async(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        post_data: Any = None,
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """The same."""
        body, status, answered = self.request(method, url, headers, post_data)
        return body.encode(), status, answered

    def sleep_async(self, secs: float) -> Awaitable[None]:
        """Between retries; nobody waits here."""
        del secs
        return asyncio.sleep(0)

    def close(self) -> None:
        """Nothing is open."""

    async def close_async(self) -> None:
        """Nothing is open."""
