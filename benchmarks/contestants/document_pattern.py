"""The document's asynchronous credit update, word for word, on our async engine.

One Python process, one event loop (uvloop, as uvicorn has it), the settings' own pool. More clients
than `pool_size` open and close overflow connections; more than both together wait for one.
"""

import asyncio
import random
import resource
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import uvloop
from sqlalchemy import select
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from benchmarks.contestants.base import (
    AMOUNT_PAID_CENTS,
    CREDITS,
    ContestantFailed,
    Load,
    Outcome,
)
from benchmarks.seed import user_ids
from src.common.async_database import dispose_async_db, get_async_db, init_async_db
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.transaction import Transaction
from src.common.models.user import User

_WARM_UP_OPERATIONS = 3
_PATIENCE_SECONDS = 60

Operation = Callable[[uuid.UUID], Awaitable[None]]


async def update_credits(user_id: uuid.UUID) -> None:
    """Lock the user, add the credits and the purchase's row, commit both (the document)."""
    async with get_async_db() as db:  # noqa: SIM117  as the document writes it
        async with db.begin():
            result = await db.execute(
                select(User)
                .with_for_update()  # Row-level lock
                .where(User.user_id == user_id)
            )
            user = result.scalar_one_or_none()

            if not user:
                raise ExceptionWithErrorType("User not found", "USER_NOT_FOUND")

            user.credits_balance += CREDITS
            transaction = Transaction(
                user_id=user.user_id,
                stripe_session_id=f"cs_{uuid.uuid4()}",
                amount_paid_cents=AMOUNT_PAID_CENTS,
                credits_added=CREDITS,
            )
            db.add(transaction)
            # Auto-commit on context exit


class DocumentPattern:
    """The document's pattern as a contestant."""

    name = "document"

    def __init__(self, operation: Operation = update_credits) -> None:
        self._operation = operation

    def run(self, load: Load) -> Outcome:
        """Run the clients as tasks of one event loop; the engine is opened and closed here."""
        cpu_before = _cpu_seconds()
        try:
            tally = uvloop.run(_run_clients(self._operation, load))
        except TimeoutError as error:
            raise ContestantFailed(f"{self.name} did not end in time") from error
        return Outcome(
            acknowledged=tally.acknowledged,
            latencies_ms=tally.latencies_ms,
            elapsed_seconds=tally.ended - tally.started,
            client_cpu_seconds=_cpu_seconds() - cpu_before,
            failures=dict(tally.failures),
        )


@dataclass
class _Tally:
    """What the clients of one run did together."""

    acknowledged: int = 0
    latencies_ms: list[float] = field(default_factory=list[float])
    failures: Counter[str] = field(default_factory=Counter[str])
    started: float = 0
    ended: float = 0


async def _run_clients(operation: Operation, load: Load) -> _Tally:
    tally = _Tally()
    ready = asyncio.Barrier(load.clients)
    ids = user_ids(load.user_count)[load.first_number :][: load.numbers_drawn]
    try:
        async with asyncio.timeout(load.seconds + _PATIENCE_SECONDS):
            await init_async_db()
            async with asyncio.TaskGroup() as clients:
                for _ in range(load.clients):
                    clients.create_task(_client(operation, ids, load.seconds, ready, tally))
    finally:
        await dispose_async_db()
    return tally


async def _client(
    operation: Operation, ids: list[uuid.UUID], seconds: int, ready: asyncio.Barrier, tally: _Tally
) -> None:
    """Do one operation after another: a few to warm up, then, all clients together, the window."""
    for _ in range(_WARM_UP_OPERATIONS):
        await _attempt(operation, random.choice(ids), tally)  # noqa: S311  no secret
    await ready.wait()
    now = time.perf_counter()
    tally.started = tally.started or now
    deadline = tally.started + seconds
    while now < deadline:
        done = await _attempt(operation, random.choice(ids), tally)  # noqa: S311  no secret
        before, now = now, time.perf_counter()
        if done:
            tally.latencies_ms.append((now - before) * 1000)
    tally.ended = max(tally.ended, now)


async def _attempt(operation: Operation, user_id: uuid.UUID, tally: _Tally) -> bool:
    """Do one operation; a refusal is counted, anything unexpected ends the run."""
    try:
        await operation(user_id)
    except ExceptionWithErrorType as refusal:
        tally.failures[refusal.error_type] += 1
        return False
    except PoolTimeoutError:
        tally.failures["no connection free in time"] += 1
        return False
    tally.acknowledged += 1
    return True


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
