"""Settles an event: asks Stripe first, then does what it says in one database transaction.

Written once, async, and given the way into the database: the API's own, or the worker's and the
commands' sync one.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

import structlog
from sqlalchemy.orm import Session

from src.common.database_settings import Sharding
from src.common.exceptions import DatabaseBusy
from src.common.postgres.routes import routed_to_schema, unrouted
from src.common.purchases.operations import find_credited
from src.common.purchases.rules import Terms
from src.common.purchases.whose import group_of_payment
from src.common.settings import Settings
from src.common.stripe import attempts, groups, inbox
from src.common.stripe.gateway import Gateway
from src.common.stripe.inbox import EventAnswer
from src.common.stripe.lookup import Facts, Lookup
from src.common.stripe.unasked import StripeNeeded, UnaskedGateway
from src.common.stripe.wire import AnyEvent, parse_event

logger = structlog.get_logger(__name__)
T = TypeVar("T")

ATTEMPTS = 2
"""A failed event is tried again at once, except by a busy database; then by the worker."""
ASKING_SECONDS = 2.0
"""How long all that a delivery asks of Stripe may take: Stripe is answered within three seconds."""
LOOKUPS_AT_ONCE = 20
"""How many events may wait for Stripe's answers at a time."""
RETRIES_SECONDS = 1.0
"""How late an event may be tried: as long as the first wait that is promised."""
Claim = tuple[bool, str, bytes | None]
"""An event's mode, id and body."""


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
        settings = self.settings
        return Lookup(
            self.gateway, self._is_known, settings.stripe_livemode, settings.connected_accounts
        )

    async def receive(self, event: AnyEvent, body: bytes) -> EventAnswer:
        """Store an event, then settle it; `accepted` where only the storing succeeded.

        While Stripe is silent the event is left to the worker, as if nobody had tried it.

        Raises:
            Exception: whatever kept it from being stored; then Stripe must send it again.
        """
        is_new = await self.in_database(lambda session: inbox.store_event(session, event, body))
        asks_until = asyncio.get_running_loop().time() + ASKING_SECONDS
        for attempt in range(1, ATTEMPTS + 1):
            has_begun = is_new and attempt == 1
            try:
                return await self.settle(event, has_begun=has_begun, asks_until=asks_until)
            except StripeNeeded:
                await self.hand_back(event.livemode, event.id, needs_lookup=True)
                break
            except Exception as error:  # noqa: BLE001  an edge: the row says why
                await self._note_failure(event.livemode, event.id, error)
                if attempt == ATTEMPTS or isinstance(error, DatabaseBusy):
                    break
        return EventAnswer.ACCEPTED

    async def settle(
        self, event: AnyEvent, *, has_begun: bool = False, asks_until: float | None = None
    ) -> EventAnswer:
        """Do what a stored event says, once. Of one that is settled Stripe is not asked.

        Counts the attempt first, unless `has_begun` says that this was done.

        Raises:
            StripeNeeded: Stripe has not answered by `asks_until`, on the event loop's clock.
        """
        if not has_begun and not await self.in_database(
            lambda session: attempts.begin_attempt(session, event)
        ):
            return EventAnswer.ALREADY_PROCESSED
        try:
            async with asyncio.timeout_at(asks_until):
                facts = await self.lookup.facts_of(event)
        except TimeoutError:
            raise StripeNeeded from None
        terms = terms_of(self.settings)
        told = facts or Facts()

        def work(session: Session, part: Facts) -> EventAnswer:
            if part is told:
                return inbox.finish_event(session, event, facts, terms)
            return inbox.apply(session, part, terms, cause=event.id)

        answers = await self.in_groups_of(told, work)
        if len(answers) == 1:
            return answers[0]
        answer = inbox.together(answers)
        return await self.in_database(lambda session: inbox.note_settled(session, event, answer))

    async def apply(self, facts: Facts, *, cause: str) -> EventAnswer:
        """Settle what an object found at Stripe says."""
        terms = terms_of(self.settings)
        answers = await self.in_groups_of(
            facts, lambda session, part: inbox.apply(session, part, terms, cause=cause)
        )
        return inbox.together(answers)

    async def in_groups_of(self, facts: Facts, work: Callable[[Session, Facts], T]) -> list[T]:
        """Run work in one database transaction that sees whom these facts are about.

        Where they are about users of several groups, in one for each, with its part of the facts.
        So work is run again for a part where another part became known to be of another group.
        """
        if self.settings.sharding is Sharding.NONE:
            return [await self.in_database(lambda session: work(session, facts))]
        while True:
            with unrouted():
                parts = await self.in_database(
                    lambda session: groups.parted(session.connection(), facts)
                )
            with suppress(groups.GroupBecameKnown):
                return [await self._in_group(*part, work) for part in parts.items()]

    async def _in_group(
        self, group: str | None, facts: Facts, work: Callable[[Session, Facts], T]
    ) -> T:
        def keep_to_it(session: Session) -> T:
            groups.keep_to_group(session, facts)
            return work(session, facts)

        with routed_to_schema(group):
            return await self.in_database(keep_to_it)

    async def settle_due(self, *, needs_lookup: bool) -> int:
        """Try events that wait for another try, until none does.

        Without `needs_lookup` Stripe is asked nothing: an event that needs an answer is left to a
        call with it. So the others do not wait while Stripe is silent. With it, events do not wait
        for each other, and what falls due meanwhile is begun in time. If this is cancelled, it
        hands back the events it has begun.

        Returns:
            How many events were settled or failed.
        """
        processor = self if needs_lookup else self.without_asking()
        running: set[asyncio.Task[bool]] = set()
        tried = 0
        try:
            while True:
                if len(running) < LOOKUPS_AT_ONCE and (claim := await self._claim(needs_lookup)):
                    running.add(asyncio.create_task(processor.try_claimed(*claim)))
                    continue
                if not running:
                    return tried
                done, running = await asyncio.wait(
                    running, timeout=RETRIES_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                tried += sum(task.result() for task in done)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def without_asking(self) -> "Processor":
        """The same, which raises `StripeNeeded` in place of asking Stripe."""
        return self if self.gateway is None else replace(self, gateway=UnaskedGateway())

    async def _claim(self, needs_lookup: bool) -> Claim | None:  # noqa: FBT001  a column's value
        def work(session: Session) -> Claim | None:
            row = attempts.claim_next(session, needs_lookup=needs_lookup)
            return None if row is None else (row.livemode, row.event_id, row.body)

        return await self.in_database(work)

    async def try_claimed(
        self,
        livemode: bool,  # noqa: FBT001  as Stripe's objects have it
        event_id: str,
        body: bytes | None,
    ) -> bool:
        """Try an event that was claimed; False where Stripe has to be asked first."""
        assert body is not None  # noqa: S101  only settled events lose theirs
        try:
            answer = await self.settle(parse_event(body), has_begun=True)
        except StripeNeeded:
            await self.hand_back(livemode, event_id, needs_lookup=True)
            return False
        except asyncio.CancelledError:
            await self.hand_back(livemode, event_id)
            raise
        except Exception as error:  # noqa: BLE001  an edge: the row says why
            await self._note_failure(livemode, event_id, error)
        else:
            logger.info("Stripe event", event_id=event_id, answer=answer)
        return True

    async def settle_stored(self, body: bytes, *, livemode: bool, event_id: str) -> EventAnswer:
        """Do what an event of the inbox says; `accepted` where that failed.

        The event's row then says why. So an event that cannot be read or settled holds up no other.
        """
        try:
            return await self.settle(parse_event(body))
        except Exception as error:  # noqa: BLE001  an edge: the row says why
            await self._note_failure(livemode, event_id, error)
            return EventAnswer.ACCEPTED

    async def hand_back(
        self,
        livemode: bool,  # noqa: FBT001  as Stripe's objects have it
        event_id: str,
        *,
        needs_lookup: bool | None = None,
    ) -> None:
        """Leave a claimed event to whoever claims it next, as if it had not been claimed."""
        hand_back = partial(
            attempts.hand_back, livemode=livemode, event_id=event_id, needs_lookup=needs_lookup
        )
        with suppress(DatabaseBusy):  # then it is free once the lease has ended
            await self.in_database(hand_back)

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
                lambda session: attempts.record_failure(
                    session, livemode=livemode, event_id=event_id, error=error
                )
            )
        except Exception as second:  # noqa: BLE001  it is stored; nothing is lost
            logger.warning("Its failure was not noted", error=type(second).__name__)

    async def _is_known(self, payment_intent_id: str, account: str | None) -> bool:
        """One that is noted as another's is not: settled once more, it says whose it is."""

        def work(session: Session) -> bool:
            found = find_credited(session, payment_intent_id)
            return found is not None and found.stripe_account == account

        if self.settings.sharding is Sharding.NONE:
            return await self.in_database(work)
        with unrouted():
            group = await self.in_database(
                lambda session: group_of_payment(session.connection(), payment_intent_id)
            )
        if group is None:
            return False
        with routed_to_schema(group):
            return await self.in_database(work)
