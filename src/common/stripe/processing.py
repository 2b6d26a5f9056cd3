"""From a stored event to its effect: ask Stripe, then settle in one database transaction.

Written once, async, and given the way into the database: the API's own, or the worker's and the
commands' sync one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import structlog
from sqlalchemy.orm import Session

from src.common.exceptions import DatabaseBusy
from src.common.purchases.operations import find_credited
from src.common.purchases.rules import Terms
from src.common.settings import Settings
from src.common.stripe import inbox
from src.common.stripe.gateway import Gateway
from src.common.stripe.inbox import EventAnswer
from src.common.stripe.lookup import Facts, Lookup
from src.common.stripe.wire import Event, parse_event

logger = structlog.get_logger(__name__)
T = TypeVar("T")

ATTEMPTS = 2
"""A failed event is tried again at once, except by a busy database; then by the worker."""
BATCH_EVENTS = 50


class InDatabase(Protocol):
    """Runs work in one database transaction and commits it."""

    async def __call__(self, work: Callable[[Session], T]) -> T:
        """What the work returned."""
        ...


def terms_of(settings: Settings) -> Terms:
    """Under what conditions these settings credit a payment."""
    return Terms(
        env=settings.env,
        livemode=settings.stripe_livemode,
        packages=settings.packages,
        requires_order=settings.stripe_require_order,
    )


@dataclass(frozen=True)
class Processor:
    """Settles events, and objects found at Stripe."""

    in_database: InDatabase
    gateway: Gateway | None
    settings: Settings

    @property
    def lookup(self) -> Lookup:
        """What reads events for us."""
        return Lookup(self.gateway, self._is_known, self.settings.stripe_livemode)

    async def receive(self, event: Event, body: bytes) -> EventAnswer:
        """Store an event, then settle it; `accepted` where only the storing succeeded.

        Raises:
            Exception: whatever kept it from being stored; then Stripe must send it again.
        """
        is_new = await self.in_database(lambda session: inbox.store_event(session, event, body))
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self.settle(event, is_new=is_new)
            except Exception as error:  # noqa: BLE001  an edge: the row says why
                await self._note_failure(event.livemode, event.id, error)
                if attempt == ATTEMPTS or isinstance(error, DatabaseBusy):
                    break
        return EventAnswer.ACCEPTED

    async def settle(self, event: Event, *, is_new: bool = False) -> EventAnswer:
        """Do what a stored event says, once; Stripe is not asked about one that is settled."""
        if not is_new and await self.in_database(
            lambda session: inbox.is_settled(session, livemode=event.livemode, event_id=event.id)
        ):
            return EventAnswer.ALREADY_PROCESSED
        facts = await self.lookup.facts_of(event)
        terms = terms_of(self.settings)
        return await self.in_database(
            lambda session: inbox.finish_event(session, event, facts, terms)
        )

    async def apply(self, facts: Facts, *, cause: str) -> EventAnswer:
        """Settle what an object found at Stripe says."""
        terms = terms_of(self.settings)
        return await self.in_database(
            lambda session: inbox.apply(session, facts, terms, cause=cause)
        )

    async def settle_due(self, limit: int = BATCH_EVENTS) -> int:
        """Try events that wait for another try; how many those were."""
        due = await self.in_database(
            lambda session: [
                (row.livemode, row.event_id, row.body) for row in inbox.claim_due(session, limit)
            ]
        )
        for livemode, event_id, body in due:
            assert body is not None  # noqa: S101  only settled events lose theirs
            answer = await self.settle_stored(body, livemode=livemode, event_id=event_id)
            if answer is not EventAnswer.ACCEPTED:
                logger.info("Stripe event", event_id=event_id, answer=answer)
        return len(due)

    async def settle_stored(self, body: bytes, *, livemode: bool, event_id: str) -> EventAnswer:
        """Do what an event of the inbox says; `accepted` where that failed, and its row says why.

        So that one that nobody can read or settle holds up no other.
        """
        try:
            return await self.settle(parse_event(body))
        except Exception as error:  # noqa: BLE001  an edge: the row says why
            await self._note_failure(livemode, event_id, error)
            return EventAnswer.ACCEPTED

    async def _note_failure(
        self,
        livemode: bool,  # noqa: FBT001  as Stripe's objects have it
        event_id: str,
        error: Exception,
    ) -> None:
        """Have the row say why; where not even that works, the lease ends and a worker takes it."""
        logger.warning("Stripe event failed", event_id=event_id, error=type(error).__name__)
        try:
            await self.in_database(
                lambda session: inbox.record_failure(
                    session, livemode=livemode, event_id=event_id, error=error
                )
            )
        except Exception as second:  # noqa: BLE001  it is stored; nothing is lost
            logger.warning("Its failure was not noted", error=type(second).__name__)

    async def _is_known(self, payment_intent_id: str) -> bool:
        return await self.in_database(
            lambda session: find_credited(session, payment_intent_id) is not None
        )
