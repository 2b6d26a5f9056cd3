"""`docs/how-to/charge-an-endpoint.md`, done as written: an application of the reader's own."""

import re
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tenacity import (
    Retrying,
    retry_if_exception_type,
    retry_if_result,
    stop_after_delay,
    wait_fixed,
)

from src.common.async_database import run_in_async_database_transaction
from src.common.credits import ledger
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters, free_port
from tests.api.tokens import ISSUER, jwk_set, make_token
from tests.cli.processes import PATIENCE_SECONDS, Program
from tests.fixtures.api import Api, balance_of, client_of, logging_restored, make_user

if TYPE_CHECKING:
    from fastapi import FastAPI

PAGE = (Path(__file__).parents[2] / "docs/how-to/charge-an-endpoint.md").read_text()
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
SHOP, PRICES, SESSIONS = [text for language, text in BLOCKS if language == "python"]
SERVE, ASK = [text for language, text in BLOCKS if language == "bash"]


@pytest.fixture
def shop(reader: Program) -> Program:
    """The reader's folder, with the file in it."""
    (reader.folder / "shop.py").write_text(SHOP)
    return reader


@pytest.mark.xdist_group("embedded servers")
def test_the_first_charge_goes_as_written(shop: Program) -> None:
    """Served, asked twice, charged once; and a changed file is served without starting again."""
    port = free_port()
    url = f"http://localhost:{port}"
    options = SERVE.removeprefix("uv run flashslides serve ").split()
    with shop.serve(port, *options, ready="/openapi.json"):
        printed = bash(shop, ASK.replace("http://localhost:8000", url))
        assert re.search(r'"slides":3.*"cost":10', printed)
        assert "idempotent-replayed: true" in printed
        assert printed.count(" -10 ") == 1
        assert printed.count("render") == 2
        file = shop.folder / "shop.py"
        file.write_text(SHOP.replace("charge(10,", "charge(20,"))
        token = shop.run("user", "token", "grace@example.com").strip()

        def is_served() -> bool:
            headers = {"Authorization": f"Bearer {token}"}
            answer = httpx.post(f"{url}/render?slides=1", headers=headers, trust_env=False)
            return bool(answer.json().get("cost") == 20)

        waiting = Retrying(
            retry=retry_if_exception_type(httpx.HTTPError) | retry_if_result(lambda it: not it),
            wait=wait_fixed(0.1),
            stop=stop_after_delay(PATIENCE_SECONDS),
        )
        waiting(is_served)


def bash(program: Program, block: str) -> str:
    """Run a block; the command is the one of this environment."""
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", block.replace("uv run ", "")],
        capture_output=True,
        text=True,
        cwd=program.folder,
        env=dict(program.environment),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@asynccontextmanager
async def running(source: str, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Api]:
    """The application of a block."""
    for name, value in {"AUTH_JWT_SECRET": jwk_set(), "AUTH_JWT_ISSUER": ISSUER}.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    names: dict[str, Any] = {"__name__": "shop"}
    exec(compile(source, "shop.py", "exec"), names)  # noqa: S102  the page's own
    app: FastAPI = names["app"]
    with logging_restored():
        async with app.router.lifespan_context(app), client_of(app) as api:
            yield api


async def test_a_price_of_the_request_goes_as_written(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two credits a slide are held, half of them are charged, and the history says for what."""
    assert fresh_database
    async with running(PRICES, monkeypatch) as api:
        user_id = (await make_user()).user_id
        await run_in_async_database_transaction(
            lambda session: ledger.grant(session, user_id, 100, key="start")
        )
        headers = {"Authorization": f"Bearer {make_token(user_id)}"}
        answer = await api.client.post("/decks/7", json={"slides": [1, 2, 3]}, headers=headers)
        assert answer.json() == {"deck_id": 7, "cost": 3}
        assert await balance_of(user_id) == 97
        page = await run_in_async_database_transaction(
            lambda session: ledger.history(session, user_id, cursor=None, limit=2)
        )
        assert [(it.reference, it.metadata) for it in page.items] == [
            ("deck 7", None),
            ("deck 7", {"engine": 2}),
        ]


async def test_sessions_go_as_written(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both dependencies give a session on the service's database."""
    assert fresh_database
    async with running(SESSIONS, monkeypatch) as api:
        await make_user()
        for path in ("/users/count", "/users/count-sync"):
            answer = await api.client.get(path)
            assert (answer.status_code, answer.json()) == (200, 1)
