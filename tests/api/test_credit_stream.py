"""A user's balance as it changes: what is told, to whom, for how long, and at what cost."""

import asyncio
import datetime as dt
import uuid
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import pytest
from fastapi import routing
from sqlalchemy import event, update
from sqlalchemy.orm import Session

from src.api.src import balance_streams, metrics
from src.api.src.authentication import build_verifier
from src.api.src.balance_streams import BalanceStreams
from src.api.src.principals import Principal
from src.api.src.schemas.balance_events import BalanceEvent
from src.common.accounts.api_keys import Scope, list_api_keys, revoke_api_key
from src.common.async_database import get_async_engine, run_in_async_database_transaction
from src.common.credits import ledger
from src.common.credits.balance_changes import ENTRIES_MAX, read_current
from src.common.models.user import User
from src.common.settings import load_settings
from tests.api.event_streams import Watched, watching
from tests.api.tokens import jwk_set, make_token, new_key
from tests.fixtures.api import Api, StartApi, error_type_of, make_api_key, make_user

TIMEOUT_SECONDS = 600


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow each other at once, and each asks whether who watches still may."""
    monkeypatch.setattr(balance_streams, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(balance_streams, "RIGHTS_SECONDS", 0)
    monkeypatch.setattr(balance_streams, "_END_CHECK_SECONDS", 0.01)


async def grant(user_id: uuid.UUID, amount: int, **options: Any) -> None:
    """Give credits, committed."""
    await run_in_async_database_transaction(
        lambda session: ledger.grant(session, user_id, amount, key=str(uuid.uuid4()), **options)
    )


async def grant_many(user_id: uuid.UUID, times: int) -> None:
    """Give one credit so many times."""

    def work(session: Session) -> None:
        for _ in range(times):
            ledger.grant(session, user_id, 1, key=str(uuid.uuid4()))

    await run_in_async_database_transaction(work)


def path_of(user_id: uuid.UUID) -> str:
    """The stream of a user's balance."""
    return f"/user/{user_id}/credits/stream"


def seqs(data: dict[str, Any]) -> list[int]:
    """The entries that an event tells of."""
    return [entry["seq"] for entry in data["entries"]]


def streams_of(api: Api) -> BalanceStreams:
    """Those of the running application."""
    found: BalanceStreams = api.app.state.balance_streams
    return found


async def ended(stream: Watched) -> None:
    """Wait for a stream's end; a hang is an error."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await stream.end()


async def test_the_balance_now_and_after_each_change(start_api: StartApi) -> None:
    """Its id is the version; entries come with the event that follows them, each once, in order."""
    api = await start_api()
    user = await make_user()
    await grant(user.user_id, 5)
    async with watching(api.app, path_of(user.user_id), make_token(user.user_id)) as stream:
        number, data = await stream.event()
        assert (number, data["balance"], data["entries"], data["omitted"]) == (1, 5, [], 0)
        assert stream.status == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert "no-store" in stream.headers["cache-control"]
        await grant(user.user_id, 7)
        number, data = await stream.event()
        assert (number, data["version"], data["balance"], seqs(data)) == (2, 2, 12, [2])
        assert data["entries"][0]["kind"] == "grant"
        assert data["entries"][0]["balance_after"] == 12
        await grant_many(user.user_id, 3)
        number, data = await stream.event()
        assert (number, data["balance"], seqs(data)) == (5, 15, [3, 4, 5])


async def test_what_was_missed_comes_with_the_first_event(start_api: StartApi) -> None:
    """All of it up to a hundred entries; of more the newest, and how many there are besides."""
    api = await start_api()
    user = await make_user()
    token, path = make_token(user.user_id), path_of(user.user_id)
    await grant_many(user.user_id, 4)
    async with watching(api.app, path, token, {"Last-Event-ID": "2"}) as stream:
        number, data = await stream.event()
        assert (number, seqs(data), data["omitted"]) == (4, [3, 4], 0)
    async with watching(api.app, path, token, {"Last-Event-ID": "9"}) as stream:
        number, data = await stream.event()  # of a database that has lost some since
        assert (number, seqs(data), data["omitted"]) == (4, [], 0)
    await grant_many(user.user_id, 120)
    async with watching(api.app, path, token, {"Last-Event-ID": "4"}) as stream:
        number, data = await stream.event()
        assert (number, seqs(data), data["omitted"]) == (124, list(range(25, 125)), 20)
    for wrong in ("x", "-1", "99999999999"):
        answer = await api.get(path, token, headers={"Last-Event-ID": wrong})
        assert (answer.status_code, error_type_of(answer)) == (422, "VALIDATION_ERROR")


async def test_a_slow_reader_gets_the_newest_balance_and_no_entry_twice(
    start_api: StartApi,
) -> None:
    """What was not read yet is one event; it never grows beyond a hundred entries."""
    api = await start_api()
    user = await make_user()
    watcher = balance_streams.Watcher(
        principal=Principal(f"user:{user.user_id}", user.user_id, frozenset()),
        token=make_token(user.user_id),
        expires_at=None,
        is_shutting_down=lambda: False,
    )
    streams = streams_of(api)
    with streams.opened(user.user_id, watcher) as stream:
        current = await run_in_async_database_transaction(
            lambda session: read_current(session, {user.user_id: None})
        )
        stream.begin(current[user.user_id], None)
        reader = stream.events()
        assert (await anext(reader)).id == "0"
        for _ in range(3):
            await grant_many(user.user_id, 60)
            await streams.look()
        told = (await anext(reader)).data
        assert isinstance(told, BalanceEvent)
        assert [entry.seq for entry in told.entries] == list(range(81, 181))
        assert (len(told.entries), told.omitted, told.version) == (ENTRIES_MAX, 80, 180)


async def test_an_expiry_is_told_though_nobody_has_booked_it(start_api: StartApi) -> None:
    """The effective balance counts: the same version again, with less."""
    api = await start_api()
    user = await make_user()
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)
    await grant(user.user_id, 5)
    await grant(user.user_id, 7, expires_at=soon)
    async with watching(api.app, path_of(user.user_id), make_token(user.user_id)) as stream:
        number, data = await stream.event()
        if data["balance"] == 12:  # a busy machine may have let it expire already
            number, data = await stream.event()
        assert (number, data["balance"], data["entries"]) == (2, 5, [])


async def test_all_who_watch_cost_one_statement(
    start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look while nothing happens; three statements for all that has changed."""
    monkeypatch.setattr(balance_streams, "LOOK_SECONDS", TIMEOUT_SECONDS)
    monkeypatch.setattr(balance_streams, "RIGHTS_SECONDS", TIMEOUT_SECONDS)
    api = await start_api()
    users = [await make_user() for _ in range(6)]
    streams = streams_of(api)
    monkeypatch.setattr(streams, "_rights_checked_at", float("inf"))
    async with AsyncExitStack() as stack:
        watched = [
            await stack.enter_async_context(
                watching(api.app, path_of(user.user_id), make_token(user.user_id))
            )
            for user in users
            for _ in range(3)
        ]
        for stream in watched:
            await stream.event()
        with statements() as quiet:
            await streams.look()
        assert len(quiet) == 1
        for user in users:
            await grant(user.user_id, 1)
        with statements() as busy:
            await streams.look()
        assert len(busy) == 3
        for stream in watched:
            assert (await stream.event())[1]["balance"] == 1


@contextmanager
def statements() -> Generator[list[str]]:
    """Those that are sent meanwhile."""
    sent: list[str] = []
    engine = get_async_engine().sync_engine

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def test_it_ends_when_rights_go(start_api: StartApi) -> None:
    """A deactivated user's, a revoked key's, a former administrator's; not that of others."""
    api = await start_api()
    user, other = await make_user(), await make_user()
    admin = await make_user(user_type="admin")
    key = await make_api_key(Scope.CREDITS_READ)
    async with AsyncExitStack() as stack:
        own, by_key, by_admin, untouched = [
            await stack.enter_async_context(watching(api.app, path_of(whose), token))
            for whose, token in (
                (user.user_id, make_token(user.user_id)),
                (user.user_id, key),
                (user.user_id, make_token(admin.user_id)),
                (other.user_id, make_token(other.user_id)),
            )
        ]
        for stream in (own, by_key, by_admin, untouched):
            assert (await stream.event())[0] == 0

        def take_rights(session: Session) -> None:
            [record] = list_api_keys(session)
            revoke_api_key(session, record.key_id)
            session.execute(
                update(User).where(User.user_id == user.user_id).values(is_active=False)
            )
            session.execute(
                update(User).where(User.user_id == admin.user_id).values(user_type="individual")
            )

        await run_in_async_database_transaction(take_rights)
        for stream in (own, by_key, by_admin):
            await ended(stream)
        await grant(other.user_id, 3)
        assert (await untouched.event())[1]["balance"] == 3


async def test_it_ends_with_its_token_or_the_key_that_signed_it(
    start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing happens; and after the longest time that is set."""
    monkeypatch.setattr(balance_streams, "LEEWAY_SECONDS", -600)
    api = await start_api()
    user = await make_user()
    path = path_of(user.user_id)
    async with watching(api.app, path, make_token(user.user_id, lifetime=601)) as stream:
        await ended(stream)
    async with watching(api.app, path, make_token(user.user_id, lifetime=6_000)) as stream:
        await stream.event()
        other = load_settings(auth_jwt_secret=jwk_set(new_key("other").public_jwk))
        with monkeypatch.context() as patch:
            patch.setattr(streams_of(api), "_verifier", build_verifier(other))
            await ended(stream)
    monkeypatch.setattr(streams_of(api), "_lifetime_seconds", 0)
    async with watching(api.app, path, make_token(user.user_id, lifetime=6_000)) as stream:
        assert (await stream.event())[0] == 0
        await ended(stream)


async def test_there_are_only_so_many(start_api: StartApi) -> None:
    """Of a user and of a process; who has closed one may open another."""
    api = await start_api(CREDITS_STREAMS_MAX="3", CREDITS_STREAMS_PER_USER_MAX="2")
    user, other, third = [await make_user() for _ in range(3)]
    token, path = make_token(user.user_id), path_of(user.user_id)
    async with watching(api.app, path, token) as first:
        await first.event()
        async with watching(api.app, path, token) as second:
            await second.event()
            refused = await api.get(path, token)
            assert (refused.status_code, error_type_of(refused)) == (503, "STREAMS_BUSY")
            assert refused.headers["Retry-After"] == "10"
            async with watching(
                api.app, path_of(other.user_id), make_token(other.user_id)
            ) as another:
                await another.event()
                refused = await api.get(path_of(third.user_id), make_token(third.user_id))
                assert (refused.status_code, error_type_of(refused)) == (503, "STREAMS_BUSY")
        async with watching(api.app, path, token) as again:
            await again.event()
    assert metrics.BALANCE_STREAMS._value.get() == 0  # noqa: SLF001  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType, reportAttributeAccessIssue]  no public name


async def test_nobody_watches_another_and_head_does_not_wait(start_api: StartApi) -> None:
    """The same 403 whether or not there is such a user; a service asks in vain for nobody."""
    api = await start_api()
    user, stranger = await make_user(), make_token((await make_user()).user_id)
    for whose in (user.user_id, uuid.uuid4()):
        answer = await api.get(path_of(whose), stranger)
        assert (answer.status_code, error_type_of(answer)) == (403, "FORBIDDEN")
    key = await make_api_key(Scope.CREDITS_READ)
    answer = await api.get(path_of(uuid.uuid4()), key)
    assert (answer.status_code, error_type_of(answer)) == (404, "USER_NOT_FOUND")
    answer = await api.call("HEAD", path_of(user.user_id), make_token(user.user_id))
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert "no-store" in answer.headers["Cache-Control"]


async def test_it_says_something_while_nothing_happens_and_is_no_slow_request(
    start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comments, which clients ignore; the time of its answer's head is what is measured."""
    monkeypatch.setattr(routing, "_PING_INTERVAL", 0.01)
    seen: list[float] = []

    def note(_method: str, route: str, _status: int, seconds: float) -> None:
        if route.endswith("/stream"):
            seen.append(seconds)

    monkeypatch.setattr(metrics, "observe_request", note)
    api = await start_api()
    user = await make_user()
    began = asyncio.get_running_loop().time()
    async with watching(api.app, path_of(user.user_id), make_token(user.user_id)) as stream:
        await stream.event()
        answered = asyncio.get_running_loop().time()
        for _ in range(20):
            assert await stream.piece() == ": ping\n\n"
    assert len(seen) == 1
    assert seen[0] <= answered - began


async def test_rights_go_though_books_cannot_be_read(
    start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may not watch any more is let go, whatever is wrong with what would be told."""

    def fail(*_: Any) -> None:
        raise ValueError

    api = await start_api()
    user = await make_user()
    async with watching(api.app, path_of(user.user_id), make_token(user.user_id)) as stream:
        await stream.event()
        monkeypatch.setattr(balance_streams, "read_current", fail)
        await grant(user.user_id, 1)
        await run_in_async_database_transaction(
            lambda session: session.execute(
                update(User).where(User.user_id == user.user_id).values(is_active=False)
            )
        )
        await ended(stream)


def test_a_token_is_in_no_repr() -> None:
    """Whatever is logged of who watches: a token reads that user's data, a key everybody's."""
    watcher = balance_streams.watcher_of(
        Principal("key:t", None, frozenset()), "fsk_secret", None, {}
    )
    assert watcher.token == "fsk_secret"
    assert "fsk_secret" not in repr(watcher)
