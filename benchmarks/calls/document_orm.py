"""The document's asynchronous credit update, word for word, on our async engine and schema."""

import uuid
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from benchmarks.calls.base import AsyncCalls, Refused
from benchmarks.workload import Operation
from src.common.async_database import dispose_async_db, get_async_db, init_async_db
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.user import User


async def update_credits(user_id: UUID, credits: int) -> None:  # noqa: A002  the document's name
    """Lock the user and add the credits ("Asynchronous Database Access")."""
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

            user.credits_balance += credits
            # Auto-commit on context exit


class DocumentOrm(AsyncCalls):
    """A spend is the document's update with a negative number. It has no key, so no replays."""

    replays = False

    async def open(self, callers: int) -> None:
        """Connect with the document's pool of 20 + 10, whatever the number of callers."""
        del callers
        await init_async_db()

    async def close(self) -> None:
        """Close the pool."""
        await dispose_async_db()

    async def call(self, caller: int, operation: Operation) -> bool:
        """Update once."""
        del caller
        try:
            await self.update(operation.user_id, -operation.amount)
        except ExceptionWithErrorType as refusal:
            raise Refused(refusal.error_type) from refusal
        except PoolTimeoutError as error:
            raise Refused("no connection free in time") from error
        return False

    async def update(self, user_id: uuid.UUID, credits_: int) -> None:
        """Run the document's function; a test replaces it by a false one."""
        await update_credits(user_id, credits_)
