"""The benchmark with a contestant that cheats once; run as a program by test_command.py."""

import itertools
import uuid
from collections.abc import Sequence

from sqlalchemy import select

from benchmarks.contestants.base import CREDITS, Contestant
from benchmarks.contestants.document_pattern import DocumentPattern, update_credits
from benchmarks.credit_update import contestants_of, main
from src.common.async_database import get_async_db
from src.common.models.user import User
from src.local_postgres import RunningServer

_calls = itertools.count()


async def update_credits_falsely(user_id: uuid.UUID) -> None:
    """As the document's, but the first operation leaves the row out."""
    if next(_calls):
        await update_credits(user_id)
        return
    async with get_async_db() as db, db.begin():
        user = (await db.execute(select(User).where(User.user_id == user_id))).scalar_one()
        user.credits_balance += CREDITS


def contestants(server: RunningServer) -> Sequence[Contestant]:
    """The cheat first, then everybody else."""
    return DocumentPattern(update_credits_falsely), *contestants_of(server)


if __name__ == "__main__":
    main(contestants)
