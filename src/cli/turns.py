"""The worker's work about users, where groups of these have schemas: a group at a time."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from src.common.database import run_in_database_transaction
from src.common.group_turns import Turn, begin_turn
from src.common.postgres.routes import routed_to_schema
from src.common.routing import is_sharding

Step = Callable[[], bool | Coroutine[Any, Any, bool]]


class InTurn:
    """A step of one kind of work, with the group it was begun with longest ago.

    There may be more to do at once until every group was found done, one after the other. Where
    groups have no schemas it is the step itself.
    """

    def __init__(self, work: str, step: Step) -> None:
        self._work = work
        self._step = step
        self._found_done = 0
        """How many groups in a row."""

    def __call__(self) -> bool | Coroutine[Any, Any, bool]:
        """Do it; whether there may be more to do at once."""
        if not is_sharding():
            return self._step()
        turn = run_in_database_transaction(partial(begin_turn, work=self._work))
        if turn is None:
            return False
        with routed_to_schema(turn.schema):
            outcome = self._step()
        if isinstance(outcome, Coroutine):
            return self._served(turn, outcome)
        return self._may_go_on(turn, has_more=outcome)

    async def _served(self, turn: Turn, step: Coroutine[Any, Any, bool]) -> bool:
        with routed_to_schema(turn.schema):
            has_more = await step
        return self._may_go_on(turn, has_more=has_more)

    def _may_go_on(self, turn: Turn, *, has_more: bool) -> bool:
        self._found_done = 0 if has_more else self._found_done + 1
        if self._found_done < turn.groups:
            return True
        self._found_done = 0
        return False
