"""What we have beside Stripe's lists, page by page, of one group of users after the other.

Where groups have schemas, what is nobody's comes first: money back that waits for its payment moves
into a group, so that whoever walks after it does not miss it. Groups come in the order of their
names, and a page is of one group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from sqlalchemy.orm import Session

from src.common.database_settings import Sharding
from src.common.postgres.routes import SHARED_SCHEMA, is_group, routed_to_schema, unrouted
from src.common.purchases import reconciliations as runs
from src.common.purchases.uncredited import uncredited_among
from src.common.sharding.groups import ready_groups
from src.common.stripe.gateway import PAGE_SIZE
from src.common.stripe.listed import Window
from src.common.stripe.processing import Processor

OURS = {
    "unfinished": runs.unfinished,
    "ours": runs.purchases_between,
    "our_reversals": runs.reversals_between,
}
"""The stages, and how a page of each is found."""


class PageOfOurs(NamedTuple):
    """A page of what we have."""

    names: Sequence[str]
    uncredited: frozenset[str]
    """Those of them that are purchases which credited nobody."""
    cursor: str | None
    """Where the next page begins; None after the last."""


@dataclass(frozen=True)
class Ours:
    """What we have of one window and account."""

    processor: Processor
    window: Window
    livemode: bool
    account: str | None

    async def page(self, stage: str, cursor: str | None) -> PageOfOurs:
        """The page that begins there; the first where it is None.

        A stage begins anew where the database was copied into groups, or out of them, since the
        cursor was written: its order was another.
        """
        is_divided = self.processor.settings.sharding is not Sharding.NONE
        if cursor is not None and _is_of_groups(cursor) is not is_divided:
            cursor = None
        if not is_divided:
            names, without_credit = await self._read(stage, cursor)
            return PageOfOurs(names, without_credit, names[-1] if names else None)
        place, _, after = (cursor or SHARED_SCHEMA).partition(":")
        with routed_to_schema(None if place == SHARED_SCHEMA else place):
            names, without_credit = await self._read(stage, after or None)
        cursor = f"{place}:{names[-1]}" if names else await self._following(place)
        return PageOfOurs(names, without_credit, cursor)

    async def _read(self, stage: str, after: str | None) -> tuple[Sequence[str], frozenset[str]]:
        find = partial(
            OURS[stage],
            livemode=self.livemode,
            account=self.account,
            since=self.window.since,
            until=self.window.until,
            after=after,
            limit=PAGE_SIZE,
        )

        def read(session: Session) -> tuple[Sequence[str], frozenset[str]]:
            names = find(session)
            return names, uncredited_among(session, names)

        return await self.processor.in_database(read)

    async def _following(self, place: str) -> str | None:
        """The group that comes next; None after the last."""
        with unrouted():
            found = await self.processor.in_database(
                lambda session: ready_groups(session.connection())
            )
        return next((each for each in found if place == SHARED_SCHEMA or each > place), None)


def _is_of_groups(cursor: str) -> bool:
    """Whether it names a group, or what is nobody's; without groups it is an object's id alone."""
    place, _, _ = cursor.partition(":")
    return place == SHARED_SCHEMA or is_group(place)
