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

from src.common.credits.commands import Command, Result
from src.common.credits.engine import Engine
from src.common.credits.operations import execute
from src.common.exceptions import ExceptionWithErrorType
from tests.credits import books
from tests.credits.batching import all_at_once
from tests.credits.machine import START, LedgerMachine, answer_of, draw, pauses, seeds
from tests.credits.model import Answer

LONG_AGO = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
NOBODY = uuid.UUID(int=0)


class EngineMachine(LedgerMachine):
    """Whatever happens, through whichever engine, the database and the model agree."""

    runner: ClassVar[asyncio.Runner]
    engines: ClassVar[Sequence[Engine]] = ()

    def __init__(self) -> None:
        super().__init__()
        commands: list[Command] = [books.grant(user_id, 1) for user_id in self.ids]
        people = self._settled(commands)
        expected = self._expected(people, commands)
        execute(self.session, commands, now=START)
        self._finish(self.session.commit, people, expected)

    @rule(seed=seeds, seconds=pauses, engine=st.integers(0, 7))
    def ask_for_each(self, seed: int, seconds: int, engine: int = 0) -> None:
        """Each on its own, all at once, and some of them for nobody."""
        self.session.commit()
        self.now += dt.timedelta(seconds=seconds)
        commands = [self._command(wish) for wish in draw(seed, 4, 40)]
        people = {
            user_id: self.people[user_id].at(LONG_AGO)
            for user_id in {command.user_id for command in commands}
        }
        expected: list[Answer | str] = self._expected(people, commands)
        strangers: list[Command] = [books.spend(NOBODY, 1), books.release(NOBODY, 1)]
        outcomes = self.runner.run(all_at_once(self.engines[engine], [*commands, *strangers]))
        assert list(map(_answer, outcomes)) == [*expected, *["USER_NOT_FOUND"] * 2]
        self._count(expected)
        self._finish(self.session.commit, people, expected)


def _answer(outcome: Result | BaseException) -> Answer | str:
    assert isinstance(outcome, Result | ExceptionWithErrorType), outcome
    return answer_of(outcome)
