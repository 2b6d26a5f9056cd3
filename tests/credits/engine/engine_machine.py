"""The batch engine and the model side by side: the machine that hypothesis drives.

As `machine.py`, with real commits: what is asked for each goes through an engine, in between
sessions ask as ever. An engine has no clock but the database's, which is behind the one the
sessions are told: so whatever it does happens at the instant of the user's last entry.
"""

import asyncio
import datetime as dt
import uuid
from collections.abc import Sequence
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import rule

from src.common.credits.domain.commands import Command, Result
from src.common.credits.engine.engine import Engine
from src.common.exceptions import ExceptionWithErrorType
from tests.credits import books
from tests.credits.differential import answer_of
from tests.credits.engine.batching import all_at_once
from tests.credits.machine import LedgerMachine, pauses, seeds
from tests.credits.model_values import Answer

AHEAD = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
"""The engine asks the database's own clock: behind the last entry, so that this is what counts."""
LONG_AGO = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
NOBODY = uuid.UUID(int=0)


class EngineMachine(LedgerMachine):
    """Whatever happens, through whichever engine, the database and the model agree."""

    start: ClassVar[dt.datetime] = AHEAD
    runner: ClassVar[asyncio.Runner]
    engines: ClassVar[Sequence[Engine]] = ()

    def __init__(self) -> None:
        super().__init__()
        self._do([books.grant(user_id, 1) for user_id in self.ids])

    @rule(seed=seeds, seconds=pauses, engine=st.integers(0, 7))
    def ask_for_each(self, seed: int, seconds: int, engine: int = 0) -> None:
        """Each on its own, all at once, and some of them for nobody."""
        commands = self._commands(self._draw(seed, 4, 40))
        self.session.commit()
        now, self.now = self.now + dt.timedelta(seconds=seconds), LONG_AGO
        people, expected = self._expected(commands)
        self.now = now
        strangers: list[Command] = [books.spend(NOBODY, 1), books.release(NOBODY, 1)]
        outcomes = self.runner.run(all_at_once(self.engines[engine], [*commands, *strangers]))
        assert list(map(_answer, outcomes)) == [*expected, *["USER_NOT_FOUND"] * 2]
        self._count(expected)
        self._finish(people)


def _answer(outcome: Result | BaseException) -> Answer | str:
    assert isinstance(outcome, Result | ExceptionWithErrorType), outcome
    return answer_of(outcome)
