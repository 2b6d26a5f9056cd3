"""Requests and answers without a network: what arrives, what goes back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from src.html_pages import POLICY


@dataclass(frozen=True)
class Request:
    """What a client sent; header names in lower case."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""


@dataclass(frozen=True)
class Response:
    """What it is answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    delay_seconds: float = 0
    """How long the client waits for it: Stripe on a bad day."""


def json_response(status: int, content: Any, **headers: str) -> Response:
    """JSON, indented as Stripe's is."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(
        status,
        {"Content-Type": "application/json", **named},
        json.dumps(content, indent=2).encode(),
    )


def html_response(status: int, text: str) -> Response:
    """A page, which may load nothing from elsewhere."""
    headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": POLICY}
    return Response(status, headers, text.encode())


def see_other(url: str) -> Response:
    """Go on there."""
    return Response(303, {"Location": url}, b"")
