"""Runs a batch with locks; where it fails, its halves, down to the one operation at fault."""

import time
from collections.abc import Sequence

from src.common.credits.engine import metrics
from src.common.credits.engine.connection import EngineConnection
from src.common.credits.engine.queue import Queue, Waiting
from src.common.credits.persistence.reading import Locking
from src.common.postgres.errors import RetryableDatabaseError
from src.common.postgres.retries import is_worth_retrying

ATTEMPTS_MAX = 3
"""How often one operation alone is tried against deadlocks and the like."""


async def run(
    queue: Queue,
    connection: EngineConnection,
    batch: Sequence[Waiting],
    locking: Locking,
    attempt: int = 1,
) -> list[Waiting]:
    """Run a batch and answer everybody in it but the skipped, which come back."""
    if not batch:
        return []
    metrics.BATCH_SIZE.observe(len(batch))
    try:
        outcomes = await connection.run([each.command for each in batch], locking)
    except Exception as error:  # noqa: BLE001  the callers' edge: each gets its own error
        return await run_again(queue, connection, batch, locking, error, attempt)
    skipped = queue.answer(batch, outcomes)
    if len(skipped) < len(batch):
        note_answered(batch)
    return skipped


async def run_again(
    queue: Queue,
    connection: EngineConnection,
    batch: Sequence[Waiting],
    locking: Locking,
    error: Exception,
    attempt: int = 1,
) -> list[Waiting]:
    """Run a batch that failed in halves, or answer everybody with the error."""
    if connection.was_lost or not _is_run_again(error, len(batch), attempt):
        queue.fail(batch, error)
        return []
    metrics.FAILED_BATCHES.inc()
    middle = (len(batch) + 1) // 2
    attempt += len(batch) == 1
    skipped = await run(queue, connection, batch[:middle], locking, attempt)
    # Whom the first half skipped would overtake himself in the second.
    users = {each.command.user_id for each in skipped}
    others = [each for each in batch[middle:] if each.command.user_id not in users]
    again = await run(queue, connection, others, locking, attempt)
    skipped += [each for each in batch[middle:] if each.command.user_id in users]
    return skipped + again


def note_answered(batch: Sequence[Waiting]) -> None:
    """Tell Prometheus how long the oldest of a batch waited."""
    metrics.SECONDS.observe(time.perf_counter() - batch[0].since)


def _is_run_again(error: Exception, size: int, attempt: int) -> bool:
    """Whether to run a failed batch of this size again, in halves, or one operation alone.

    A passing condition is the database's, not one operation's: waiting for it once for each would
    take as often as long. Unless the server says that trying again may help.
    """
    if isinstance(error, RetryableDatabaseError):
        return is_worth_retrying(error) and (size > 1 or attempt < ATTEMPTS_MAX)
    return size > 1
