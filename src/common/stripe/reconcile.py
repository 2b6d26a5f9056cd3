"""Compares us with Stripe, object by object, and mends what differs.

Webhooks may be lost; Stripe's objects are not. Every object of a window says, in the same terms as
an event, what should be settled. What settling it would change is what we lack (`differences.py`),
mended by settling it. A page is looked at as a whole first (`agreement.py`); what does not plainly
agree is compared by itself.
"""

import datetime as dt
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import structlog
from sqlalchemy.orm import Session

from src.common.database_settings import Sharding
from src.common.exceptions import DatabaseBusy, Invalid
from src.common.models.reconciliation import Reconciliation
from src.common.postgres.kept_errors import keep
from src.common.postgres.routes import routed_to_schema, unrouted
from src.common.purchases import reconciliations as runs
from src.common.purchases.recorded import Asked, Recorded, merged, read_recorded
from src.common.stripe import agreement, groups, inbox
from src.common.stripe.differences import difference
from src.common.stripe.findings import Page, concerns_others, extra, failure_of, uncredited
from src.common.stripe.gateway import Gateway, configured
from src.common.stripe.gateway_errors import PermissionMissing
from src.common.stripe.inbox import EventAnswer
from src.common.stripe.listed import Listed, Window, readable
from src.common.stripe.listed_names import ListedNames
from src.common.stripe.listings import LISTED, ReadFacts, list_page, reader_of
from src.common.stripe.lookup import HANDLED_TYPES, Facts, Lookup
from src.common.stripe.ours import OURS, Ours
from src.common.stripe.processing import Processor, terms_of
from src.common.stripe.wire import Event, parse_event

logger = structlog.get_logger(__name__)

STAGES = (*LISTED, *OURS, "events")
UNSETTLED_EVENTS = ("missing", "received", "failed", "dead")


Progress = Callable[[str, Page], None]
"""Called after each page: the stage, and what it came to."""
CompareOne = Callable[[Page, str], Awaitable[None]]
"""Compares the object of this id, and notes on the page what differs."""


@dataclass
class Reconciler:
    """One run over a window."""

    processor: Processor
    gateway: Gateway
    window: Window
    livemode: bool
    repairs: bool
    run_id: uuid.UUID
    account: str | None
    """The connected account that is compared; None where it is our own."""
    seen: ListedNames = field(default_factory=ListedNames)
    lacking: set[str] = field(default_factory=set[str])
    """The permissions our key was found to lack."""
    renewed_at: float = field(default_factory=time.monotonic)

    @property
    def _lookup(self) -> Lookup:
        """What reads the account's objects."""
        return self.processor.lookup.of_account(self.account)

    async def run(self, run: Reconciliation, progress: Progress) -> Reconciliation:
        """Walk all stages from where the run stands; each page is noted as it is done."""
        in_database, run_id = self.processor.in_database, self.run_id
        cursor = run.cursor
        try:
            for stage in STAGES[STAGES.index(run.stage) :]:
                while True:
                    page = await self._page(stage, cursor)
                    cursor, following = page.cursor, stage
                    if cursor is None and stage != STAGES[-1]:
                        following = STAGES[STAGES.index(stage) + 1]
                    await in_database(
                        lambda session, page=page, following=following: runs.advance(  # type: ignore[misc]  # mypy has no types for defaults
                            session,
                            run_id,
                            stage=following,
                            cursor=page.cursor,
                            compared=page.compared,
                            findings=page.findings,
                        )
                    )
                    progress(stage, page)
                    if cursor is None:
                        break
        except BaseException:
            with suppress(DatabaseBusy):  # then it is free once the lease has ended
                await in_database(lambda session: runs.release(session, run_id))
            raise
        return await in_database(lambda session: runs.finish(session, run_id))

    async def _page(self, stage: str, cursor: str | None) -> Page:
        page = Page(None, 0)
        try:
            if stage in OURS:
                await self._compare_ours(page, stage, cursor)
            else:
                names = await self._compare_listed_page(page, stage, cursor)
                page.compared += len(names)
                page.cursor = names[-1] if names else None
        except PermissionMissing as error:
            self._note_lack(page, stage, error)
        return page

    async def _compare_listed_page(
        self, page: Page, stage: str, cursor: str | None
    ) -> Sequence[str]:
        if stage == "events":
            return await self._compare_events(page, cursor)
        listed = await list_page(self.gateway, stage, self.window, cursor)
        names = [each.object_id for each in listed]
        await self._renew_lease()
        agreed = await self._agreed(stage, listed)
        read = reader_of(stage, self._lookup, livemode=self.livemode)
        for each in listed:
            if each.object_id not in agreed:
                await self._guard(page, each.object_id, partial(self._compare_listed, each, read))
        self.seen.update(names)
        return names

    async def _agreed(self, stage: str, listed: Sequence[Listed[Any]]) -> set[str]:
        """Those of a page that plainly agree with what is recorded; nothing else is said of any.

        Stripe is asked nothing, and nothing is locked. Whatever goes wrong here is told by whoever
        is compared by itself.
        """
        try:
            recorded = await self._recorded(agreement.asked_of(readable(listed)))
        except Exception as error:  # an edge: each is compared by itself
            if concerns_others(error):
                raise
            return set()

        async def is_known(payment_intent_id: str, account: str | None) -> bool:
            return recorded.is_credited(payment_intent_id, account)

        read = reader_of(stage, self._lookup.unasked(is_known), livemode=self.livemode)
        terms = terms_of(self.processor.settings)
        agreed: set[str] = set()
        for each in listed:
            with suppress(Exception):  # an edge, as above
                facts = (await read(each.read())).of_account(self.account)
                if agreement.agree(facts, recorded, terms):
                    agreed.add(each.object_id)
        return agreed

    async def _recorded(self, asked: Asked) -> Recorded:
        """What is recorded of these, wherever their users are; Stripe is asked nothing."""
        in_database = self.processor.in_database
        if self.processor.settings.sharding is Sharding.NONE:
            return await in_database(lambda session: read_recorded(session, asked))
        with unrouted():
            by_group = await in_database(
                lambda session: groups.asked_by_group(session.connection(), asked)
            )
        parts: list[Recorded] = []
        for group, part in by_group.items():
            with routed_to_schema(group):
                parts.append(await in_database(partial(read_recorded, asked=part)))
        return merged(parts)

    async def _guard(self, page: Page, name: str, compare: CompareOne) -> None:
        """Compare one object; what is wrong with it alone is a finding, and the run goes on."""
        await self._renew_lease()
        try:
            await compare(page, name)
        except PermissionMissing as error:
            self._note_lack(page, name, error)
        except Exception as error:  # an edge: the finding says so
            if concerns_others(error):
                raise
            logger.warning("Not compared", object=name, error_type=keep(error).error_type)
            what = f"failed: {failure_of(error)}"
            page.findings.append({"object": name, "what": what, "mended": False})

    def _note_lack(self, page: Page, what: str, error: PermissionMissing) -> None:
        """Say once of each permission what could not be compared without it; the run goes on."""
        permission = error.permission or what
        if permission not in self.lacking:
            self.lacking.add(permission)
            missing = f"not compared: {what}, and whatever else needs it. {error.message}"
            page.findings.append({"object": permission, "what": missing, "mended": False})

    async def _renew_lease(self) -> None:
        """Stripe may take long over a page, and nobody else shall walk it meanwhile."""
        if time.monotonic() - self.renewed_at > runs.LEASE_SECONDS / 3:
            await self.processor.in_database(lambda session: runs.renew(session, self.run_id))
            self.renewed_at = time.monotonic()

    async def _compare_listed(
        self, listed: Listed[Any], read: ReadFacts, page: Page, name: str
    ) -> None:
        await self._compare(page, name, await read(listed.read()))

    async def _compare(self, page: Page, object_id: str, facts: Facts) -> None:
        """Note what settling these facts would change; change it where we repair."""
        facts = facts.of_account(self.account)
        if agreement.are_anothers(facts, self.processor.settings.env):
            return
        difference = await self._difference(facts)
        if difference is None:
            return
        mended = False
        if self.repairs:
            try:
                await self.processor.apply(facts, cause=f"reconcile:{object_id}"[:255])
            except Exception as error:
                if concerns_others(error):
                    raise
                failure = failure_of(error)
                difference = difference if failure in difference else f"{difference}; {failure}"
            else:
                mended = await self._difference(facts) is None
        page.findings.append({"object": object_id, "what": difference, "mended": mended})

    async def _difference(self, facts: Facts) -> str | None:
        terms = terms_of(self.processor.settings)
        found = await self.processor.in_groups_of(
            facts, lambda session, part: difference(session, part, terms)
        )
        return next((each for each in found if each is not None), None)

    async def _compare_ours(self, page: Page, stage: str, cursor: str | None) -> None:
        """A page of what we have, asking Stripe after what it has not listed itself."""
        ours = Ours(self.processor, self.window, self.livemode, self.account)
        found = await ours.page(stage, cursor)
        ask = self._ask_whether_paid if stage == "ours" else self._ask_after
        for name in found.names:
            if name in found.uncredited:
                page.findings.append(uncredited(name))
            elif name not in self.seen:
                await self._guard(page, name, ask)
        page.compared += len(found.names)
        page.cursor = found.cursor

    async def _ask_after(self, page: Page, name: str) -> None:
        """Compare what Stripe says of one session or reversal that we know."""
        facts = await self._found(name)
        if facts is not None:
            await self._compare(page, name, facts)
        else:
            page.findings.append(extra(name))

    async def _ask_whether_paid(self, page: Page, name: str) -> None:
        """Note a purchase of ours that Stripe does not call paid."""
        if not await self._is_paid(name):
            page.findings.append(extra(name))

    async def _found(self, name: str) -> Facts | None:
        """What Stripe says of the object of this id; None where it has none."""
        gateway, lookup = self.gateway, self._lookup
        if name.startswith("cs_"):
            session = await gateway.retrieve_session(name)
            return await lookup.session_facts(session) if session else None
        if name.startswith(("dp_", "du_")):
            dispute = await gateway.retrieve_dispute(name)
            return await lookup.dispute_facts(dispute) if dispute else None
        if name.startswith("cn_"):
            note = await gateway.retrieve_credit_note(name)
            return await lookup.credit_note_facts(note) if note else None
        refund = await gateway.retrieve_refund(name)
        return await lookup.refund_facts(refund, livemode=self.livemode) if refund else None

    async def _is_paid(self, name: str) -> bool:
        if name.startswith("pi_"):
            payment = await self.gateway.retrieve_payment(name)
            return payment is not None and payment.has_succeeded
        if name.startswith("in_"):
            invoice = await self.gateway.retrieve_invoice(name)
            return invoice is not None and invoice.status == "paid"
        found = await self.gateway.retrieve_session(name)
        return found is not None and found.payment_status in {"paid", "no_payment_required"}

    async def _compare_events(self, page: Page, cursor: str | None) -> list[str]:
        """The inbox beside Stripe's events; where we repair, what it lacks is taken in.

        The objects have been compared before: an event that is missing rarely means that something
        else is.
        """
        found = await self.gateway.events(self.window, cursor)
        names = [each.object_id for each in found]
        stored = await self.processor.in_database(
            lambda session: inbox.statuses_of(session, livemode=self.livemode, event_ids=names)
        )
        for each in found:
            status = stored.get(each.object_id, "missing")
            if each.event_type in HANDLED_TYPES and status != "processed":
                compare = partial(self._compare_event, each, status)
                await self._guard(page, each.object_id, compare)
        return names

    async def _compare_event(
        self, listed: Listed[Event], status: str, page: Page, name: str
    ) -> None:
        mended = self.repairs and await self._is_taken_in(listed)
        if status in UNSETTLED_EVENTS or (self.repairs and not mended):
            what = f"{status}: {listed.event_type}"
            page.findings.append({"object": name, "what": what, "mended": mended})

    async def _is_taken_in(self, listed: Listed[Event]) -> bool:
        """Receive an event as if it had been delivered; whether it could be settled."""
        body = listed.body
        if self.account is not None:
            body = json.dumps(json.loads(body) | {"account": self.account}).encode()
        event = parse_event(body)
        return await self.processor.receive(event, body) is not EventAnswer.ACCEPTED


def end_of_now() -> dt.datetime:
    """The end of a window with all that there is: Stripe tells times in whole seconds."""
    return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)


async def reconcile(
    processor: Processor,
    *,
    since: dt.datetime,
    until: dt.datetime | None = None,
    repairs: bool,
    resumes: bool = False,
    account: str | None = None,
    progress: Progress = lambda _stage, _page: None,
) -> Reconciliation:
    """Compare everything Stripe made since then with ours; with `repairs` mend what differs.

    What is of a connected `account` is compared in its name, by a run of its own.

    With `resumes`, a run from the same instant on that was cut off is taken up where it stood, and
    keeps its own end; without, or where there is none, all of the window is compared.

    Raises:
        Invalid: VALIDATION_ERROR, the window is empty.
        StripeGatewayError: STRIPE_GATEWAY_ERROR; the run can be taken up again.
        Unavailable: STRIPE_NOT_CONFIGURED.
    """
    gateway = configured(processor.gateway).for_account(account)
    processor = replace(processor, gateway=gateway)
    livemode = bool(processor.settings.stripe_livemode)
    end = until or end_of_now()
    if end <= since:
        raise Invalid("until: must be later than since", "VALIDATION_ERROR", field="until")

    def begin(session: Session) -> Reconciliation:
        return runs.begin(
            session,
            livemode=livemode,
            account=account,
            since=since,
            until=end,
            repairs=repairs,
            resumes=resumes,
            first_stage=STAGES[0],
        )

    run = await processor.in_database(begin)
    window = Window(run.since_at, run.until_at)
    reconciler = Reconciler(
        processor, gateway, window, livemode, repairs, run.reconciliation_id, account
    )
    return await reconciler.run(run, progress)
