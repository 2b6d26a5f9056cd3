"""What a front end asks for with its user's token: the balance, a page of entries, signing in."""

import os
import time
from typing import Any

import jwt

from benchmarks.calls.base import Refused
from benchmarks.calls.http import OK, HttpCalls
from benchmarks.seed import email_of, user_ids
from benchmarks.workload import Operation

ISSUER = "benchmark"
KID = "benchmark"
SIGNING_KEY = "BENCHMARK_TOKEN_KEY"
"""The variable that has the private key, a JWK as JSON, of whoever issues tokens."""
USERS_SIGNED_IN = 1_000
"""Whose tokens the client has; a front end sends the same one again and again."""
_LIFETIME_SECONDS = 3_600


class _AsUsers(HttpCalls):
    """Requests with the token of a random one of those who have signed in."""

    tops_up = False
    replays = False
    method = "GET"

    def path(self, user_id: str) -> str:
        """Return what is asked for."""
        raise NotImplementedError

    async def open(self, callers: int) -> None:
        """Issue a token for everybody, and connect once for every caller."""
        key = jwt.PyJWK.from_json(os.environ[SIGNING_KEY], algorithm="ES256")
        expires_at = int(time.time()) + _LIFETIME_SECONDS
        self._requests: dict[str, bytes] = {}
        await super().open(callers)
        for number, user_id in enumerate(user_ids(USERS_SIGNED_IN)):
            claims: dict[str, Any] = {
                "sub": str(user_id),
                "email": email_of(number),
                "iss": ISSUER,
                "aud": "authenticated",
                "exp": expires_at,
                "user_metadata": {},
            }
            token = jwt.encode(claims, key.key, "ES256", headers={"kid": KID})
            headers = f"Authorization: Bearer {token}"
            self._requests[str(user_id)] = self.request(
                self.method, self.path(str(user_id)), headers, ""
            )

    async def call(self, caller: int, operation: Operation) -> bool:
        """Ask as this user; nothing is ever a replay."""
        status, answer, _ = await self.ask(caller, self._requests[str(operation.user_id)])
        if status != OK:
            raise Refused(f"HTTP {status} {answer[:200].decode(errors='replace')}")
        return False


class HttpBalance(_AsUsers):
    """One's own balance."""

    def path(self, user_id: str) -> str:
        """Return the path of the balance."""
        return f"/api/v1/user/{user_id}/credits"


class HttpEntries(_AsUsers):
    """A page of one's own journal."""

    def path(self, user_id: str) -> str:
        """Return the path of the newest page."""
        return f"/api/v1/user/{user_id}/credits/entries?limit=10"


class HttpSignIn(_AsUsers):
    """A user whom we know signs in again."""

    method = "POST"

    def path(self, user_id: str) -> str:
        """Return the one path; the token says who."""
        del user_id
        return "/api/v1/authenticate-jwt"
