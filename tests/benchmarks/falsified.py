"""The benchmark with a contestant that cheats once; run as a program by test_command.py."""

import itertools
import uuid
from dataclasses import replace

from benchmarks.calls.document_orm import DocumentOrm, update_credits
from benchmarks.command import main
from benchmarks.contestants.base import Contestant
from benchmarks.contestants.processes import PythonContestant

_calls = itertools.count()


class LeavesOneOut(DocumentOrm):
    """As the document's, but the first operation is acknowledged without being done."""

    async def update(self, user_id: uuid.UUID, credits_: int) -> None:
        """Update, except at the first call."""
        if next(_calls):
            await update_credits(user_id, credits_)


def with_a_cheat(everybody: dict[str, Contestant]) -> dict[str, Contestant]:
    """Put the cheat in the place of the honest one."""
    honest = everybody["document-orm"]
    assert isinstance(honest, PythonContestant)
    cheat = replace(honest, calls="tests.benchmarks.falsified:LeavesOneOut")
    return everybody | {"document-orm": cheat}


if __name__ == "__main__":
    main(with_a_cheat)
