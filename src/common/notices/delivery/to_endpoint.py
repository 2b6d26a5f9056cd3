"""Delivers to one endpoint: several users at once, each user's notices one after the other.

How many users at once grows with each that works, and halves with each time that the endpoint is
out of reach. So one that hangs has one connection soon, and one that is quick has many.
"""

import asyncio
import random
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

import structlog
from sqlalchemy.orm import Session

from src.common.models.credit_notice import NoticeStatus
from src.common.notices import endpoints
from src.common.notices.delivery import exchange
from src.common.notices.delivery.exchange import Claimed, Condition, Result, Target
from src.common.notices.delivery.messages import Notice
from src.common.notices.delivery.schedule import (
    ATTEMPTS_MAX,
    Answer,
    Outcome,
    next_delay_seconds,
    pause_seconds,
)
from src.common.notices.delivery.sending import Sender

logger = structlog.get_logger(__name__)
T = TypeVar("T")

AT_ONCE_FIRST = 4
AT_ONCE_MAX = 16
"""Users whose notices are sent to one endpoint at the same time."""
AHEAD = 4
"""How many times as many are claimed, to be sent next."""
EXCHANGE_SECONDS = 0.03
"""How often what came of them is written, and others are claimed, while there is something."""
WAIT_SECONDS = 1.0
"""How long is waited for an answer before others are looked for."""
CUT_OFF = "ATTEMPT_CUT_OFF: the process ended during the last attempt"
GONE = "The endpoint answered 410: it wants no more notices"


class InDatabase(Protocol):
    """Runs work in one database transaction and commits it."""

    async def __call__(self, work: Callable[[Session], T]) -> T:
        """What the work returned."""
        ...


class Claim:
    """A user's notices that are sent now, one after the other, and what came of them."""

    def __init__(self, notices: Sequence[Notice], until: float) -> None:
        self.notices = notices
        self.until = until
        """When no further one is begun: the lease has to outlast it."""
        self.results: list[Result] = []
        self.answers: list[Answer] = []

    def handed_back(self) -> list[Result]:
        """What is left where it was not sent: as if it had not been claimed."""
        first = self.notices[0]
        if self.results:
            return []
        pending = Result(
            notice=first, status=NoticeStatus.PENDING, attempts=first.attempts, delay_seconds=0
        )
        return [pending]


class DeliveryToEndpoint:
    """Sends what is due to one endpoint until nothing is, or it is out of reach."""

    def __init__(
        self, target: Target, in_database: InDatabase, *, is_local: bool, timeout_seconds: float
    ) -> None:
        self.endpoint_id = target.endpoint_id
        self.sent = 0
        """How many attempts there were."""
        self._target = target
        self._in_database = in_database
        self._timeout_seconds = timeout_seconds
        self._is_local = is_local
        self._secrets: list[bytes] = []
        self._at_once = 1 if target.failures else AT_ONCE_FIRST
        self._failures = target.failures
        self._waiting: deque[Claim] = deque()
        self._running: dict[asyncio.Task[None], Claim] = {}
        self._results: list[Result] = []
        self._after = uuid.UUID(int=0)
        self._has_more = True
        self._pause_seconds: float | None = None
        self._is_over = False
        """Whether nothing more is to be begun: the endpoint is gone, or left alone for a while, or
        others wait."""
        self._delivered = 0
        self._failed = 0
        """Attempts since the last exchange."""
        self._error: str | None = None

    async def run(self) -> None:
        """Deliver; where this is cancelled, what was not sent is handed back."""
        self._sender = Sender(
            self._target.url,
            is_local=self._is_local,
            timeout_seconds=self._timeout_seconds,
        )
        try:
            while True:
                await self._exchange()
                self._begin()
                if self._running:
                    await self._collect()
                elif self._is_over or not self._has_more:
                    return
        finally:
            await self._leave()

    def end(self) -> None:
        """Begin nothing more; what was begun is waited for, and the rest handed back."""
        self._is_over = True

    async def _exchange(self) -> None:
        """Write what came of notices and claim others, in one database transaction."""
        if self._is_over:
            self._hand_back_waiting()
        wanted = self._wanted()

        def work(session: Session) -> Claimed | None:
            self._write(session)
            if not wanted:
                return None
            self._secrets = endpoints.secrets_of(session, self.endpoint_id)
            return exchange.claim(session, self._target, wanted=wanted, after=self._after)

        began = asyncio.get_running_loop().time()
        claimed = await self._in_database(work)
        self._forget_written()
        if claimed is None:
            return
        self._after, self._has_more = claimed.after, claimed.has_more
        longest = exchange.LEASE_SECONDS - self._timeout_seconds
        until = began + longest / 2
        self._waiting.extend(Claim(notices, until) for notices in claimed.notices)

    def _write(self, session: Session) -> None:
        if not (self._results or self._delivered or self._failed):
            return
        now = exchange.read_clock(session)
        exchange.settle(session, self._results, now)
        if self._delivered or self._failed:
            condition = Condition(
                failures=self._failures,
                delivered=self._delivered,
                failed=self._failed,
                pause_seconds=self._pause_seconds,
                error=self._error,
            )
            exchange.note_condition(session, self.endpoint_id, condition, now)

    def _forget_written(self) -> None:
        self._results = []
        self._delivered = self._failed = 0
        self._error = None

    def _wanted(self) -> int:
        """For how many more users to claim."""
        if self._is_over:
            return 0
        ahead = 1 if self._failures else AHEAD
        return max(self._at_once * ahead - len(self._waiting) - len(self._running), 0)

    def _begin(self) -> None:
        while self._waiting and len(self._running) < self._at_once and not self._is_over:
            claim = self._waiting.popleft()
            self._running[asyncio.create_task(self._send_all(claim))] = claim

    async def _collect(self) -> None:
        """Take in what has ended, until it is time to write it, or others may be due."""
        loop = asyncio.get_running_loop()
        until = loop.time() + EXCHANGE_SECONDS
        while self._running:
            patience = WAIT_SECONDS if not self._results else max(until - loop.time(), 0)
            done, _ = await asyncio.wait(
                self._running, timeout=patience, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                self._take(self._running.pop(task))
                task.result()
            self._begin()
            if not done or (self._results and (loop.time() >= until or not self._waiting)):
                return

    def _take(self, claim: Claim) -> None:
        self._results += claim.results or claim.handed_back()
        for answer in claim.answers:
            self._judge(answer)

    def _judge(self, answer: Answer) -> None:
        """What an answer says of the endpoint."""
        if answer.outcome is Outcome.DELIVERED:
            self._delivered += 1
            self._failures = 0
            self._at_once = min(self._at_once + 1, AT_ONCE_MAX)
            return
        self._failed += 1
        self._error = answer.error
        if answer.outcome is not Outcome.OUT_OF_REACH:
            self._failures = 0
            return
        self._failures += 1
        self._at_once = max(self._at_once // 2, 1)
        pause = pause_seconds(self._failures, answer.retry_after_seconds)
        if pause is not None:
            self._pause_seconds = max(pause, self._pause_seconds or 0)
            self._is_over = True

    async def _send_all(self, claim: Claim) -> None:
        """Send a user's notices until one is not delivered, or the lease ends."""
        loop = asyncio.get_running_loop()
        for notice in claim.notices:
            if loop.time() >= claim.until or self._is_over:
                return
            if notice.attempts >= ATTEMPTS_MAX:  # each of which may have ended its process
                claim.results.append(_dead(notice, notice.attempts, CUT_OFF, None))
                continue
            answer = await self._sender.send(notice, self._secrets)
            self.sent += 1
            claim.answers.append(answer)
            claim.results.append(_result(notice, answer))
            if answer.outcome is Outcome.GONE:
                await self._disable()
            if answer.outcome is not Outcome.DELIVERED:
                return

    async def _disable(self) -> None:
        """Disable it, unless somebody has moved or deleted it meanwhile."""
        self._is_over = True
        if await self._in_database(partial(exchange.disable, target=self._target, reason=GONE)):
            logger.warning("An endpoint is disabled", endpoint_id=str(self.endpoint_id))

    def _hand_back_waiting(self) -> None:
        for claim in self._waiting:
            self._results += claim.handed_back()
        self._waiting.clear()

    async def _leave(self) -> None:
        """Write what is known; what was being sent is handed back as if it had not been begun."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._sender.aclose()
        for claim in self._running.values():
            self._take(claim)
        self._running.clear()
        self._hand_back_waiting()
        if self._results:
            await self._in_database(self._write)
            self._forget_written()


def _result(notice: Notice, answer: Answer) -> Result:
    attempts = notice.attempts + 1
    if answer.outcome is Outcome.DELIVERED:
        return Result(
            notice=notice,
            status=NoticeStatus.DELIVERED,
            attempts=attempts,
            response_status=answer.status,
        )
    delay = next_delay_seconds(attempts, answer.retry_after_seconds, random.random)
    if delay is None:
        return _dead(notice, attempts, answer.error, answer.status)
    return Result(
        notice=notice,
        status=NoticeStatus.PENDING,
        attempts=attempts,
        delay_seconds=delay,
        response_status=answer.status,
        error=answer.error,
    )


def _dead(notice: Notice, attempts: int, error: str | None, status: int | None) -> Result:
    return Result(
        notice=notice,
        status=NoticeStatus.DEAD,
        attempts=attempts,
        response_status=status,
        error=error,
    )
