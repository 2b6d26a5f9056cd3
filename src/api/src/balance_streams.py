"""Streams of users' balances: one look at the database a second for all who watch in a process.

Each stream ends by itself: when its token does, when its caller's rights go, after the longest time
that the settings allow, and when the server is to end. Whoever watched connects again.
"""

import asyncio
import datetime as dt
import time
import uuid
from collections import Counter
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import structlog
from fastapi.sse import ServerSentEvent
from sqlalchemy.orm import Session

from src.api.src import metrics
from src.api.src.authentication import LEEWAY_SECONDS, TokenVerifier
from src.api.src.principals import Principal, find_service, find_user
from src.api.src.schemas.balance_events import BalanceEvent
from src.common.accounts.api_keys import Scope
from src.common.async_database import read_from_async_database
from src.common.credits.balance_changes import (
    ENTRIES_MAX,
    Changed,
    CurrentBalance,
    NewEntry,
    Seen,
    find_changed,
    read_current,
)
from src.common.exceptions import (
    ExceptionWithErrorType,
    Forbidden,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from src.common.postgres.routes import current_route, routed_to_schema
from src.common.routing import async_routed_to
from src.common.settings import Settings
from src.shutdowns import IS_SHUTTING_DOWN

logger = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
"""How often the database is asked for all who watch."""
RIGHTS_SECONDS = 5.0
"""How long it may be believed that whoever watches still may."""
_END_CHECK_SECONDS = 0.25
_NEVER = dt.datetime.max.replace(tzinfo=dt.UTC)
_NOTHING = Changed(user_ids=frozenset(), inactive=frozenset())


class TooManyStreams(Unavailable):
    """As many streams are open as may be."""

    retry_after_seconds = 10

    def __init__(self, whose: str) -> None:
        super().__init__(
            f"{whose} has as many streams open as may be; close one, or try again later.",
            "STREAMS_BUSY",
        )


@dataclass(frozen=True, kw_only=True)
class Watcher:
    """Who watches, and how that is proved."""

    principal: Principal
    token: str = field(repr=False)
    """The user's token or the service's key, which is looked at again and again."""
    expires_at: float | None
    """When a user's token is not accepted any more, in seconds since 1970; None for a key."""
    is_shutting_down: Callable[[], bool]
    """Whether the server was told to end."""


class Stream:
    """One caller's view of one user's balance."""

    def __init__(self, user_id: uuid.UUID, watcher: Watcher, lifetime_seconds: float) -> None:
        self.user_id = user_id
        self.watcher = watcher
        self.seen: Seen | None = None
        """What was told last; None before the first time."""
        self._until = time.monotonic() + lifetime_seconds
        self._woken = asyncio.Event()
        self.has_ended = False
        """Whether the client is let go."""
        self._sent_version = 0
        self._entries: list[NewEntry] = []
        self._current: CurrentBalance | None = None
        """What is to be told; the newest, however slowly the client reads."""
        self._schemas: tuple[str | None, str | None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has lasted as long as it may, or its server is to end."""
        expires_at = self.watcher.expires_at
        return (
            time.monotonic() >= self._until
            or (expires_at is not None and time.time() >= expires_at)
            or self.watcher.is_shutting_down()
        )

    @property
    def is_ones_own(self) -> bool:
        """Whether the user watches their own balance."""
        return self.watcher.principal.user_id == self.user_id

    async def find_schemas(self) -> tuple[str | None, str | None]:
        """The groups of who is watched and who watches: looked up once, as none changes."""
        if self._schemas is None:
            watcher_id = self.watcher.principal.user_id
            self._schemas = await _schema_of(self.user_id), await _schema_of(watcher_id)
        return self._schemas

    def begin(self, current: CurrentBalance, after: int | None) -> None:
        """Tell what there is; `after` is the entry that the client has seen last, if any."""
        self._sent_version = current.balance.version if after is None else after
        self.tell(current)

    def tell(self, current: CurrentBalance) -> None:
        """Have this told next, in place of what was not told yet."""
        newest = self.seen.version if self.seen is not None else 0
        self._entries += (entry for entry in current.entries if entry.seq > newest)
        del self._entries[:-ENTRIES_MAX]
        self.seen, self._current = current.seen, current
        self._woken.set()

    def end(self) -> None:
        """Let the client go."""
        self.has_ended = True
        self._woken.set()

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        """What is sent, until the end."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            if self._current is not None:
                yield self._next_event(self._current)
            if self.has_ended or self.is_over:
                return

    def _next_event(self, current: CurrentBalance) -> ServerSentEvent:
        self._current, entries = None, self._entries
        self._entries = []
        version = current.balance.version
        omitted = max(version - self._sent_version - len(entries), 0)
        self._sent_version = version
        event = BalanceEvent.of(current.balance, entries, omitted)
        return ServerSentEvent(data=event, event="balance", id=str(version))


class BalanceStreams:
    """All streams of a process, and the task that looks for all of them."""

    def __init__(self, verifier: TokenVerifier, settings: Settings) -> None:
        self._verifier = verifier
        self._streams_max = settings.credits_streams_max
        self._per_user_max = settings.credits_streams_per_user_max
        self._lifetime_seconds = settings.credits_stream_max_seconds
        self._streams: set[Stream] = set()
        self._count_by_user: Counter[uuid.UUID] = Counter()
        self._is_wanted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._rights_checked_at = 0.0

    async def __aenter__(self) -> Self:
        """Begin to look."""
        self._tasks = [
            asyncio.create_task(self._keep_looking()),
            asyncio.create_task(self._keep_ending()),
        ]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End all streams."""
        for stream in self._streams:
            stream.end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextmanager
    def opened(self, user_id: uuid.UUID, watcher: Watcher) -> Generator[Stream]:
        """A stream, until the block is left.

        Raises:
            TooManyStreams: STREAMS_BUSY.
        """
        if self._count_by_user[user_id] >= self._per_user_max:
            raise TooManyStreams("This user")
        if len(self._streams) >= self._streams_max:
            raise TooManyStreams("This process")
        stream = Stream(user_id, watcher, self._lifetime_seconds)
        self._streams.add(stream)
        self._count_by_user[user_id] += 1
        self._is_wanted.set()
        metrics.BALANCE_STREAMS.inc()
        try:
            yield stream
        finally:
            metrics.BALANCE_STREAMS.dec()
            self._streams.remove(stream)
            self._count_by_user[user_id] -= 1
            if not self._count_by_user[user_id]:
                del self._count_by_user[user_id]
            if not self._streams:
                self._is_wanted.clear()

    async def _keep_ending(self) -> None:
        """Whatever the database does meanwhile."""
        while True:
            await self._is_wanted.wait()
            for stream in self._streams:
                if stream.is_over:
                    stream.end()
            await asyncio.sleep(_END_CHECK_SECONDS)

    async def _keep_looking(self) -> None:
        while True:
            await self._is_wanted.wait()
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except ExceptionWithErrorType as error:
                logger.info("Balances are not told", error_type=error.error_type)
            except Exception:  # an edge: the next look is soon
                logger.exception("Balances are not told")

    async def look(self) -> None:
        """Tell all who watch what has changed, and let go who may not watch any more."""
        streams = [stream for stream in self._streams if stream.seen is not None]
        if not streams:
            return
        now = time.monotonic()
        checks_rights = now - self._rights_checked_at >= RIGHTS_SECONDS
        if checks_rights:
            await self._end_where_token_is_refused(streams)
        groups = await _by_group(streams, with_watchers=checks_rights)
        for group in groups:
            await group.look()
        if checks_rights:
            self._rights_checked_at = now
        inactive = {user_id for group in groups for user_id in group.changed.inactive}
        allowed = {token for group in groups for token in group.allowed}
        for stream in streams:
            is_refused = stream.is_ones_own and stream.user_id in inactive
            if is_refused or (
                checks_rights and not stream.is_ones_own and stream.watcher.token not in allowed
            ):
                stream.end()
        for group in groups:
            current = await group.read_changed()
            for stream in streams:
                if not stream.has_ended and stream.user_id in current:
                    stream.tell(current[stream.user_id])

    async def _end_where_token_is_refused(self, streams: Iterable[Stream]) -> None:
        """Where its key was withdrawn, too; while keys cannot be had, it is believed."""
        for stream in streams:
            if stream.watcher.principal.user_id is None:
                continue
            try:
                await self._verifier.verify(stream.watcher.token)
            except Unauthenticated:
                stream.end()
            except Unavailable:
                return


@dataclass
class _Group:
    """Whom to look at in one group of users; in one are all where these have no schemas."""

    schema: str | None
    seen: dict[uuid.UUID, Seen] = field(default_factory=dict[uuid.UUID, Seen])
    """What was told of those who are watched."""
    watchers: dict[str, Principal] = field(default_factory=dict[str, Principal])
    """Those who watch others, by their tokens."""
    allowed: frozenset[str] = frozenset()
    """Whose tokens still may."""
    changed: Changed = _NOTHING

    async def look(self) -> None:
        """See who still may watch, and what has changed."""

        def work(session: Session) -> None:
            self.allowed = _still_allowed(session, self.watchers)
            if self.seen:
                self.changed = find_changed(session, self.seen)

        with routed_to_schema(self.schema):
            await read_from_async_database(work)

    async def read_changed(self) -> dict[uuid.UUID, CurrentBalance]:
        """What those have now of whom something has changed."""
        after = {user_id: self.seen[user_id].version for user_id in self.changed.user_ids}
        if not after:
            return {}
        with routed_to_schema(self.schema):
            return await read_from_async_database(lambda session: read_current(session, after))


async def _by_group(streams: Sequence[Stream], *, with_watchers: bool) -> Collection[_Group]:
    """Those who are watched and, `with_watchers`, those who watch others, by their groups."""
    groups: dict[str | None, _Group] = {}

    def of(schema: str | None) -> _Group:
        return groups.setdefault(schema, _Group(schema))

    known = _known_by_all(streams)
    for stream in streams:
        watched, watching = await stream.find_schemas()
        if stream.user_id in known:
            of(watched).seen[stream.user_id] = known[stream.user_id]
        if with_watchers and not stream.is_ones_own:
            watcher = stream.watcher
            of(watching).watchers[watcher.token] = watcher.principal
    return groups.values()


async def _schema_of(user_id: uuid.UUID | None) -> str | None:
    if user_id is None:
        return None
    async with async_routed_to(user_id):
        return current_route()


def _known_by_all(streams: Iterable[Stream]) -> dict[uuid.UUID, Seen]:
    """Of each user what the stream knows that knows least."""
    known: dict[uuid.UUID, Seen] = {}
    for stream in streams:
        if stream.seen is not None:
            least = known.get(stream.user_id, stream.seen)
            known[stream.user_id] = min(least, stream.seen, key=_how_much)
    return known


def _how_much(seen: Seen) -> tuple[int, dt.datetime]:
    """Of two at the same entry, one may not know yet what has fallen due since."""
    return seen.version, seen.due_at or _NEVER


def _still_allowed(session: Session, by_token: Mapping[str, Principal]) -> frozenset[str]:
    """The tokens of those who still may watch others; each is looked up once."""
    allowed: set[str] = set()
    for token, principal in by_token.items():
        with suppress(NotFound, Forbidden, Unauthenticated):
            found = (
                find_service(session, token)
                if principal.user_id is None
                else find_user(session, principal.user_id)
            )
            if Scope.CREDITS_READ in found.scopes:
                allowed.add(token)
    return frozenset(allowed)


def watcher_of(
    principal: Principal, token: str, claims: Mapping[str, Any] | None, scope: Mapping[str, Any]
) -> Watcher:
    """Who asks for a stream."""
    return Watcher(
        principal=principal,
        token=token,
        expires_at=None if claims is None else float(claims["exp"]) + LEEWAY_SECONDS,
        is_shutting_down=scope.get(IS_SHUTTING_DOWN, _never),
    )


def _never() -> bool:
    return False
