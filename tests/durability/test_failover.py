"""The standby is frozen, the primary ends, the standby takes over: what was answered is there."""

import os
import signal
import uuid
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from sqlalchemy.orm import Session

from src.common import async_database, database
from src.common.async_database import run_in_async_database_transaction
from src.common.credits import ledger
from src.common.credits.engine.engine import Engine
from src.common.exceptions import DatabaseBusy
from src.common.models.user import User
from src.common.postgres import silent_servers
from src.common.settings import get_settings
from src.common.stripe import inbox
from src.common.stripe.wire import parse_event
from tests.durability.conftest import LITTLE_PATIENCE, NOBODY_WAITS
from tests.fixtures.api import until as until_done
from tests.fixtures.databases import environment_of
from tests.fixtures.standbys import Pair, connected, until
from tests.models.examples import a_user
from tests.stripe.payments import make_event, make_session, to_body

pytestmark = pytest.mark.xdist_group("pair of servers: failover")

END_WAITING = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
)
NAME = "SET synchronous_standby_names = '*'"


@pytest_asyncio.fixture
async def synchronous(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Pair]:
    """The pair, whose primary waits for the standby; the settings lead to it."""
    pair.on_primary(f"ALTER SYSTEM {NAME}")
    pair.on_primary("SELECT pg_reload_conf()")
    until(
        lambda: pair.on_primary(
            "SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')"
        )
    )
    for variable, value in (environment_of(pair.primary) | LITTLE_PATIENCE).items():
        monkeypatch.setenv(variable, value)
    get_settings.cache_clear()
    monkeypatch.setattr(silent_servers, "SILENCE_SECONDS", 0.0)
    yield pair
    database.dispose_db()
    await async_database.dispose_async_db()
    monkeypatch.undo()
    get_settings.cache_clear()


async def test_what_was_answered_is_on_the_standby(synchronous: Pair) -> None:
    """What was written before it froze is there; what was tried twice after it, nobody answered."""
    pair = synchronous
    user_id = uuid.uuid4()
    await until_done(partial(_set_up, user_id))
    acknowledged: list[str] = []
    async with Engine.from_settings(get_settings()) as engine:

        async def write(name: str) -> None:
            event = make_event(make_session(user_id), id=f"evt_{name}")
            body = to_body(event)

            def store(session: Session) -> bool:
                return inbox.store_event(session, parse_event(body), body)

            for key, trying in {
                f"engine {name}": engine.spend(user_id, 1, key=f"engine {name}"),
                f"session {name}": run_in_async_database_transaction(
                    partial(ledger.spend, user_id=user_id, amount=1, key=f"session {name}")
                ),
                f"evt_{name}": run_in_async_database_transaction(store),
            }.items():
                try:
                    await trying
                except DatabaseBusy:
                    pair.on_primary(END_WAITING)
                    until(lambda: pair.on_primary(NOBODY_WAITS))
                else:
                    acknowledged.append(key)

        while len(acknowledged) < 3:  # a machine that is very busy may not have the patience
            acknowledged.clear()
            await write("before")
        receiver = pair.on_standby("SELECT pid FROM pg_stat_wal_receiver")
        os.kill(receiver, signal.SIGSTOP)
        for _ in range(2):
            await write("frozen")
        assert acknowledged == ["engine before", "session before", "evt_before"]
        only_here = pair.on_primary(
            "SELECT count(*) FROM credit_entries WHERE idempotency_key LIKE '% frozen'"
        )
        assert only_here, "the second tries had nothing to find"
    _end(pair, signal.SIGQUIT)
    with connected(pair.standby) as witness:
        os.kill(receiver, signal.SIGKILL)
        # The standby ends everybody and begins anew. Until then it answers, and is about to end.
        until(lambda: not _serves(witness))
    until(lambda: _answers(pair))
    pair.on_standby("SELECT pg_promote()")
    kept = pair.on_standby(
        "SELECT array_agg(idempotency_key) FROM credit_entries WHERE idempotency_key LIKE '% %'"
    )
    kept += pair.on_standby("SELECT array_agg(event_id) FROM stripe_events")
    assert set(acknowledged) <= set(kept)


async def _set_up(user_id: uuid.UUID) -> bool:
    def work(session: Session) -> None:
        if session.get(User, user_id) is None:
            session.add(a_user(user_id=user_id))
            session.flush()
        ledger.grant(session, user_id, 100, key="0")

    try:
        await run_in_async_database_transaction(work)
    except DatabaseBusy:
        return False
    return True


def _end(pair: Pair, how: signal.Signals) -> None:
    folder = Path(pair.on_primary("SHOW data_directory"))
    os.kill(int((folder / "postmaster.pid").read_text().splitlines()[0]), how)


def _answers(pair: Pair) -> bool:
    try:
        return bool(pair.on_standby("SELECT pg_is_in_recovery()"))
    except psycopg.OperationalError:
        return False


def _serves(connection: psycopg.Connection[Any]) -> bool:
    try:
        connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True
