"""Questions asked together where groups of users have schemas: together within each group."""

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic

from src.common.async_database import get_async_engine
from src.common.database_settings import Sharding
from src.common.exceptions import NotFound
from src.common.postgres.routes import current_route
from src.common.postgres.shared_statements import (
    Answer,
    AsksTogether,
    Question,
    SharedStatement,
)
from src.common.routing import async_routed_to
from src.common.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    Make = Callable[[Callable[[], AsyncEngine], str | None], SharedStatement[Question, Answer]]


class SharedByGroup(Generic[Question, Answer]):
    """Asks each question of its user's group."""

    def __init__(
        self, make: "Make[Question, Answer]", user_of: Callable[[Question], uuid.UUID]
    ) -> None:
        self._make = make
        self._user_of = user_of
        self._of_groups: dict[str | None, SharedStatement[Question, Answer]] = {}

    async def read(self, asked: Question, /) -> Answer | None:
        """The answer; None where there is none, or nobody knows the user.

        Raises:
            NotAnswered: the database does not answer, or answers with an error.
        """
        try:
            async with async_routed_to(self._user_of(asked)):
                group = current_route()
        except NotFound:
            return None
        if group not in self._of_groups:
            self._of_groups[group] = self._make(get_async_engine, group)
        return await self._of_groups[group].read(asked)


def shared(
    settings: Settings,
    make: "Make[Question, Answer]",
    user_of: Callable[[Question], uuid.UUID],
) -> AsksTogether[Question, Answer]:
    """What answers questions about users' own tables for many at once, wherever these are."""
    if settings.sharding is Sharding.NONE:
        return make(get_async_engine, None)
    return SharedByGroup(make, user_of)
