"""The API, the console and the command line on a pair of servers."""

import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from src.api.src import install
from src.common.credits import ledger
from src.common.database import SessionLocal
from src.common.settings import get_settings
from tests.api.tokens import ISSUER, jwk_set
from tests.cli.conftest import data_folder, run_command
from tests.fixtures.api import Api, NoCollector, build_app, client_of, logging_restored
from tests.fixtures.standbys import Pair, until
from tests.models.examples import a_user

__all__ = ["data_folder", "run_command"]

SettingsOf = Callable[..., None]


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch) -> SettingsOf:
    """Change settings of the replica: `lag_max_seconds=0` is DATABASE_REPLICA_LAG_MAX_SECONDS."""

    def change(**settings: object) -> None:
        for name, value in settings.items():
            monkeypatch.setenv(f"DATABASE_REPLICA_{name.upper()}", str(value))
        get_settings.cache_clear()

    return change


@pytest_asyncio.fixture
async def served(replicated: Pair, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Api]:
    """The API on the pair, with the console's lists from the replica."""
    assert replicated
    monkeypatch.setattr(install, "gc", NoCollector)
    for name, value in {
        "AUTH_JWT_SECRET": jwk_set(),
        "AUTH_JWT_ISSUER": ISSUER,
        "METRICS_CACHE_SECONDS": "0",
        "STRIPE_MODE": "test",
        "DATABASE_REPLICA_CONSOLE": "true",
    }.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    async with AsyncExitStack() as stack:
        app = build_app()
        stack.enter_context(logging_restored())
        await stack.enter_async_context(app.router.lifespan_context(app))
        yield await stack.enter_async_context(client_of(app))


def user_with(*amounts: int) -> uuid.UUID:
    """A user who was given these credits, at the primary."""
    with SessionLocal.begin() as session:
        user = a_user()
        session.add(user)
        session.flush()
        for amount in amounts:
            ledger.grant(session, user.user_id, amount, key=f"grant of {amount}")
        return user.user_id


def give(user_id: uuid.UUID, amount: int) -> int:
    """Give credits at the primary; the version that the user's books have then."""
    with SessionLocal.begin() as session:
        return ledger.grant(session, user_id, amount, key=f"grant of {amount}").seq


def wait_for_received(pair: Pair) -> None:
    """Until the standby has what is committed, whether or not it replays."""
    committed = pair.on_primary("SELECT pg_current_wal_lsn()::text")
    until(lambda: pair.on_standby("SELECT pg_last_wal_receive_lsn() >= %s::pg_lsn", committed))
