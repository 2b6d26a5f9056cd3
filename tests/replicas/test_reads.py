"""A replica answers what may lag, and nothing else; the primary answers what a replica cannot."""

import asyncio
import socket
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.orm import Session

from src.common import async_replicas
from src.common.async_replicas import AsyncReader, dispose_async_replicas
from src.common.credits import ledger, queries
from src.common.postgres.errors import READ_ONLY, RetryableDatabaseError
from src.common.postgres.lagging_reads import (
    Answered,
    MayLag,
    PrimaryBecause,
    ReadAfter,
    ReplicaSession,
    Source,
    may_lag,
)
from src.common.postgres.replica_circuit import circuit_of
from src.common.postgres.replica_lag import Replay
from src.common.replicas import Reader, get_replica_engine
from src.common.settings import get_settings
from tests.fixtures.standbys import Pair
from tests.replicas.conftest import SettingsOf, give, user_with, wait_for_received

pytestmark = pytest.mark.xdist_group("pair of servers: reads")

T = TypeVar("T")
Read = Callable[..., Awaitable[Answered[Any]]]


@pytest.fixture(params=["psycopg", "asyncpg"])
def read(request: pytest.FixtureRequest) -> Read:
    """Ask as sync callers do and as async ones do, from the replica if it can."""

    async def ask(
        reading: MayLag[..., T], *args: Any, after: ReadAfter | None = None, **kwargs: Any
    ) -> Answered[T]:
        if request.param == "asyncpg":
            return await AsyncReader(Source.REPLICA, after).read(reading, *args, **kwargs)
        reader = Reader(Source.REPLICA, after)
        return await asyncio.to_thread(reader.read, reading, *args, **kwargs)

    return ask


@may_lag
def server_and_session(session: Session) -> tuple[bool, type[Session], str]:
    """Whether a standby answers, in which session, and what it sees between statements."""
    isolation = session.scalar(text("SHOW transaction_isolation"))
    return session.scalar(text("SELECT pg_is_in_recovery()")), type(session), isolation


async def test_what_may_lag_is_answered_by_the_replica_as_of_one_snapshot(
    replicated: Pair, read: Read
) -> None:
    """It says who answered, and as of when: all it received is replayed."""
    user_id = user_with(100, 20)
    replicated.catch_up()
    found = await read(server_and_session)
    assert found.value == (True, ReplicaSession, "repeatable read")
    assert found.read_from.source is Source.REPLICA
    last = replicated.on_standby("SELECT pg_last_xact_replay_timestamp()")
    assert found.read_from.as_of is not None
    assert found.read_from.as_of >= last
    page = await read(queries.history, user_id, limit=1)
    assert [entry.amount for entry in page.value.items] == [20]
    assert (await read(queries.explain, user_id)).value.now.balance == 120


async def test_the_same_pool_serves_the_next_reading(replicated: Pair, read: Read) -> None:
    """What one reading set for its database transaction, the next one does not find."""
    assert replicated
    first = await read(server_and_session)
    assert (await read(server_and_session)).value == first.value


@pytest.mark.parametrize("pooler", ["transaction", "prepared"])
async def test_a_pooler_in_front_of_it_makes_no_difference(
    pooler: str, replicated: Pair, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time-outs come with each database transaction, and do not begin the snapshot early."""
    monkeypatch.setenv("DATABASE_POOLER", pooler)
    get_settings.cache_clear()
    user_id = user_with(100)
    replicated.catch_up()
    found = await read(server_and_session)
    assert found.value == (True, ReplicaSession, "repeatable read")
    page = await read(queries.history, user_id)
    assert [entry.amount for entry in page.value.items] == [100]


async def test_a_replica_that_is_paused_answers_what_it_has(replicated: Pair, read: Read) -> None:
    """As far as it may lag; its answer is as of the last commit that it has."""
    user_id = user_with(100)
    with replicated.paused():
        give(user_id, 7)
        wait_for_received(replicated)
        found = await read(queries.history, user_id)
        last = replicated.on_standby("SELECT pg_last_xact_replay_timestamp()")
        assert [entry.amount for entry in found.value.items] == [100]
        assert found.read_from.source is Source.REPLICA
        assert found.read_from.as_of == last
        assert (found.read_from.lag_seconds or 0) > 0


async def test_further_behind_than_it_may_be_it_is_passed_by(
    replicated: Pair, read: Read, settings_of: SettingsOf
) -> None:
    """The primary answers, and says why."""
    settings_of(lag_max_seconds=0)
    user_id = user_with(100)
    with replicated.paused():
        give(user_id, 7)
        wait_for_received(replicated)
        found = await read(queries.history, user_id)
        assert [entry.amount for entry in found.value.items] == [7, 100]
        assert found.read_from.source is Source.PRIMARY
        assert found.read_from.because is PrimaryBecause.LAGGING
        assert (found.read_from.lag_seconds or 0) > 0


async def test_one_that_receives_nothing_is_as_old_as_its_last_commit(
    replicated: Pair, read: Read, settings_of: SettingsOf
) -> None:
    """Having replayed all that was received means nothing where nothing is received."""
    settings_of(lag_max_seconds=0)
    user_id = user_with(100)
    with replicated.disconnected():
        give(user_id, 7)
        found = await read(queries.history, user_id)
        assert found.read_from.because is PrimaryBecause.LAGGING
        assert [entry.amount for entry in found.value.items] == [7, 100]


async def test_a_reader_is_not_shown_less_than_it_has_seen(replicated: Pair, read: Read) -> None:
    """The replica is asked from the version on that it has, which is read with the answer."""
    user_id = user_with(100)
    with replicated.paused():
        seen = give(user_id, 7)
        older = await read(queries.history, user_id, after=ReadAfter(user_id, seen - 1))
        assert older.read_from.source is Source.REPLICA
        newer = await read(queries.history, user_id, after=ReadAfter(user_id, seen))
        assert newer.read_from.because is PrimaryBecause.BEHIND_READER
        assert [entry.amount for entry in newer.value.items] == [7, 100]
        stranger = user_with(1)
        unknown = await read(queries.history, stranger, after=ReadAfter(stranger, 1))
        assert unknown.read_from.because is PrimaryBecause.BEHIND_READER
    found = await read(queries.history, user_id, after=ReadAfter(user_id, seen))
    assert found.read_from.source is Source.REPLICA


async def test_what_a_replica_does_not_know_yet_the_primary_may(
    replicated: Pair, read: Read
) -> None:
    """Who signed up a moment ago is no stranger."""
    with replicated.paused():
        user_id = user_with(100)
        found = await read(queries.history, user_id)
        assert found.read_from.because is PrimaryBecause.NOT_FOUND
        assert [entry.amount for entry in found.value.items] == [100]


async def test_a_reading_that_recovery_cancels_is_done_by_the_primary(
    replicated: Pair, read: Read
) -> None:
    """A standby that must go on replaying ends who stands in its way (40001), or their connection.

    That is no reason to leave it alone.
    """
    table = f"conflict_{uuid.uuid4().hex[:8]}"
    replicated.on_primary(f"CREATE TABLE {table} AS SELECT 1 AS one")
    replicated.catch_up()
    asked: list[bool] = []

    @may_lag
    def in_the_way(session: Session) -> int:
        is_standby = session.scalar(text("SELECT pg_is_in_recovery()"))
        asked.append(bool(is_standby))
        one = session.scalar(text(f"SELECT one FROM {table}"))  # noqa: S608  our own name
        if is_standby:
            replicated.on_primary(f"ALTER TABLE {table} ADD COLUMN two int")
            session.execute(text("SELECT pg_sleep(60)"))
        assert isinstance(one, int)
        return one

    replicated.on_standby("ALTER SYSTEM SET max_standby_streaming_delay = 0")
    replicated.on_standby("SELECT pg_reload_conf()")
    found = await read(in_the_way)
    MayLag.marked.remove(in_the_way)
    assert (found.value, asked) == (1, [True, False])
    assert found.read_from.because is PrimaryBecause.BROKEN_OFF
    assert circuit_of(str(get_settings().replica_address)).may_ask()


async def test_a_replica_that_is_away_is_left_alone_for_a_while(
    replicated: Pair, read: Read, settings_of: SettingsOf
) -> None:
    """The first request finds out; those after it do not even try."""
    assert replicated
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings_of(port=taken.getsockname()[1])
    found = await read(server_and_session)
    assert found.read_from.because is PrimaryBecause.AWAY
    assert found.value[0] is False
    circuit = circuit_of(str(get_settings().replica_address))
    assert not circuit.may_ask()
    again = await read(server_and_session)
    assert again.read_from.because is PrimaryBecause.AWAY


async def test_of_several_the_first_that_lets_us_in_is_asked(
    replicated: Pair, read: Read, settings_of: SettingsOf
) -> None:
    """As of several primaries: each has its own time-out, a silent one too."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ports = (1, silent.getsockname()[1], replicated.standby.port)
        settings_of(
            host="127.0.0.1,127.0.0.1,127.0.0.1", port=",".join(map(str, ports)), timeout_seconds=2
        )
        assert (await read(server_and_session)).read_from.source is Source.REPLICA


async def test_of_several_a_primary_is_passed(
    replicated: Pair, read: Read, settings_of: SettingsOf
) -> None:
    """Since a failover one of them may be it; the others still answer."""
    ports = (replicated.primary.port, replicated.standby.port)
    settings_of(host="127.0.0.1,127.0.0.1", port=",".join(map(str, ports)))
    assert (await read(server_and_session)).read_from.source is Source.REPLICA


async def test_a_replica_that_says_nothing_is_given_up(
    replicated: Pair, read: Read, settings_of: SettingsOf
) -> None:
    """It accepts connections, and no more: within its own time-out, which is not the primary's."""
    assert replicated
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings_of(port=silent.getsockname()[1], timeout_seconds=2)
        found = await read(server_and_session)
        assert found.read_from.because is PrimaryBecause.AWAY
        assert found.value[0] is False
        await dispose_async_replicas()


async def test_a_full_pool_is_no_replica_that_is_away(
    replicated: Pair, read: Read, settings_of: SettingsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The primary answers whom it has no room for; the others go on asking the replica."""
    assert replicated
    for name, value in {"POOL_SIZE": "1", "MAX_OVERFLOW": "0"}.items():
        monkeypatch.setenv(f"DATABASE_{name}", value)
        monkeypatch.setenv(f"DATABASE_ASYNC_{name}", value)
    settings_of(timeout_seconds=8)
    with get_replica_engine().connect() as taken:
        taken.execute(text("SELECT 1"))
        async with async_replicas.get_async_replica_engine().connect():
            found = await read(server_and_session)
    assert found.read_from.because is PrimaryBecause.BUSY
    assert circuit_of(str(get_settings().replica_address)).may_ask()


async def test_a_primary_in_the_place_of_a_replica_is_not_asked(
    replicated: Pair, read: Read, settings_of: SettingsOf
) -> None:
    """It may be one that was left behind by a failover, and never catches up.

    Nor is a connection to it kept: of several hosts another may be a standby by now.
    """
    settings_of(port=replicated.primary.port)
    opened: list[object] = []

    def note(connection: object, _entry: object) -> None:
        opened.append(connection)

    for engine in (get_replica_engine(), async_replicas.get_async_replica_engine().sync_engine):
        event.listen(engine, "connect", note)
    for _ in range(2):
        found = await read(server_and_session)
        assert found.read_from.because is PrimaryBecause.NO_STANDBY
    assert len(opened) == 2


async def test_without_a_replica_the_primary_answers(
    replicated: Pair, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may be shown something older may be shown the newest."""
    assert replicated
    monkeypatch.delenv("DATABASE_REPLICA_HOST")
    get_settings.cache_clear()
    found = await read(server_and_session)
    assert found.read_from.because is PrimaryBecause.NOT_CONFIGURED


async def test_a_reading_that_writes_fails(replicated: Pair, read: Read) -> None:
    """It is a defect: the primary does not do it in the replica's place."""
    user_id = user_with(100)
    replicated.catch_up()

    @may_lag
    def wrongly_marked(session: Session) -> None:
        session.execute(
            text("UPDATE users SET first_name = 'x' WHERE user_id = :id"), {"id": user_id}
        )

    with pytest.raises(RetryableDatabaseError) as caught:
        await read(wrongly_marked)
    assert caught.value.sqlstate == READ_ONLY
    MayLag.marked.remove(wrongly_marked)


async def test_who_is_cancelled_as_the_replica_answers_leaves_no_connection_open(
    replicated: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was opened for a caller who is not there any more; nobody else would close it."""
    assert replicated
    opened: list[AsyncConnection] = []
    ask = async_replicas._ask  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  the moment meant

    async def ask_and_cancel(engine: AsyncEngine) -> tuple[AsyncConnection, Replay]:
        connection, replay = await ask(engine)
        opened.append(connection)
        reading.cancel()
        return connection, replay

    monkeypatch.setattr(async_replicas, "_ask", ask_and_cancel)
    reading = asyncio.create_task(AsyncReader(Source.REPLICA).read(server_and_session))
    with pytest.raises(asyncio.CancelledError):
        await reading
    await dispose_async_replicas()
    assert [connection.closed for connection in opened] == [True]


async def test_nothing_else_than_a_reading_is_taken(read: Read) -> None:
    """What is not marked is refused before anybody is asked."""
    with pytest.raises(TypeError, match="no reading that may lag"):
        await read(ledger.balance, uuid.uuid4())
