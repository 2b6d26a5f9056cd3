"""A client that goes away in the middle of its request is no defect of ours."""

import pytest
from starlette.types import Message, Scope

from src.common.observability import configure_logging
from src.common.settings import load_settings
from tests.fixtures.api import Api, logging_restored


async def test_a_client_that_leaves_is_no_error(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    """The webhook's body never comes whole: an info line, no 500, no traceback."""
    messages: list[Message] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/api/v1/webhook",
        "raw_path": b"/api/v1/webhook",
        "root_path": "",
        "query_string": b"",
        "headers": [],
        "app": api.app,
    }
    with logging_restored():
        configure_logging(load_settings())
        await api.app(scope, receive, send)
    assert sent[0]["status"] == 499
    logged = capsys.readouterr().err
    assert "Client left" in logged
    assert "Unexpected error" not in logged
    assert "Traceback" not in logged
