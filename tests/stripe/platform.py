"""Stripe Connect: a platform's own account, and one that it acts for."""

import json
from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from src.offline_stripe import InProcessClient, OfflineStripe

THEIRS = "acct_theirs"


class Platform(InProcessClient):
    """Stripe with two accounts: who is asked for is in the request's header."""

    def __init__(self, own: OfflineStripe, connected: OfflineStripe) -> None:
        super().__init__(own)
        self._connected = InProcessClient(connected)

    @override
    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        post_data: Any = None,
        **more: Any,
    ) -> tuple[str, int, Mapping[str, str]]:
        """One request."""
        account = (headers or {}).get("Stripe-Account")
        if account == THEIRS:
            return self._connected.request(method, url, headers, post_data, **more)
        if account is None:
            return super().request(method, url, headers, post_data, **more)
        error = {
            "code": "account_invalid",
            "message": f"The provided key does not have access to account '{account}'",
            "type": "invalid_request_error",
        }
        return json.dumps({"error": error}), 403, {}
