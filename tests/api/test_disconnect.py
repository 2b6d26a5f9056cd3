"""A client that goes away in the middle of its request is no defect of ours."""

import pytest
from starlette.types import Message, Receive, Scope, Send

from src.api.src import metrics
from src.api.src.request_context import RequestContextMiddleware
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


async def test_whoever_left_is_counted_as_that_whatever_became_of_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where it ended in an error, of which nobody hears; who stays and gets none is a 500."""
    seen: list[int] = []

    def note(_method: str, _route: str, status: int, _seconds: float) -> None:
        seen.append(status)

    monkeypatch.setattr(metrics, "observe_request", note)

    async def serve(scope: Scope, receive: Receive, _send: Send) -> None:
        assert scope
        await receive()
        raise ConnectionResetError

    async def send(_message: Message) -> None:
        """Nobody listens."""

    for kind in ("http.disconnect", "http.request"):

        async def receive(kind: str = kind) -> Message:
            return {"type": kind}

        scope: Scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
        with pytest.raises(ConnectionResetError):
            await RequestContextMiddleware(serve)(scope, receive, send)
    assert seen == [499, 500]
