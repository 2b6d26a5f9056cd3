"""Comparing ourselves with Stripe, object by object, and mending what differs.

Webhooks may be lost; Stripe's objects are not. Every object of a window says, in the same terms as
an event, what should be settled. What settling it would change is what we lack: found by doing it
in a savepoint that is undone, mended by doing it.
"""

import datetime as dt
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from src.common.exceptions import ExceptionWithErrorType
from src.common.models.reconciliation import Reconciliation
from src.common.models.stripe_reversal import StripeReversal
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.purchases import reconciliations as runs
from src.common.stripe import inbox
from src.common.stripe.gateway import Gateway, Window, configured
from src.common.stripe.inbox import EventAnswer
from src.common.stripe.lookup import HANDLED_TYPES, Facts
from src.common.stripe.processing import InDatabase, Processor, terms_of
from src.common.stripe.wire import Dispute, Refund, parse_event

STAGES = ("sessions", "payments", "refunds", "disputes", "unfinished", "ours", "events")
Progress = Callable[[str, int], None]
"""Called after each page: the stage, and how many objects it was."""


class _Undo(Exception):
    """Leaves a savepoint, with nothing of it done."""


@dataclass
class Page:
    """What one page of a stage came to."""

    cursor: str | None
    """Where the next page begins; None after the last."""
    compared: int
    findings: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


@dataclass
class Reconciler:
    """One run over a window."""

    processor: Processor
    gateway: Gateway
    window: Window
    livemode: bool
    repairs: bool
    seen: set[str] = field(default_factory=set[str])

    async def run(self, run: Reconciliation, progress: Progress) -> Reconciliation:
        """Walk all stages from where the run stands; each page is noted as it is done."""
        in_database, run_id = self.processor.in_database, run.reconciliation_id
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
                    progress(stage, page.compared)
                    if cursor is None:
                        break
        except BaseException:
            await in_database(lambda session: runs.release(session, run_id))
            raise
        return await in_database(lambda session: runs.finish(session, run_id))

    async def _page(self, stage: str, cursor: str | None) -> Page:
        page = Page(None, 0)
        names: list[str] = []
        if stage == "unfinished":
            await self._ask_after_unfinished(page)
        elif stage == "ours":
            await self._look_for_extra(page)
        elif stage == "events":
            names = await self._fetch_events(page, cursor)
        else:
            for name, facts in await self._walk(stage, cursor):
                names.append(name)
                await self._compare(page, name, facts)
        self.seen.update(names)
        page.compared += len(names)
        page.cursor = names[-1] if names else None
        return page

    async def _walk(self, stage: str, cursor: str | None) -> list[tuple[str, Facts]]:
        """A page of Stripe's objects, each with what it says."""
        lookup, window = self.processor.lookup, self.window
        match stage:
            case "sessions":
                sessions = await self.gateway.sessions(window, cursor)
                return [(each.id, await lookup.session_facts(each)) for each in sessions]
            case "payments":
                payments = await self.gateway.payments(window, cursor)
                return [
                    (each.id, await lookup.payment_facts(each) if each.has_succeeded else Facts())
                    for each in payments
                ]
            case "refunds":
                refunds = await self.gateway.refunds(window, cursor)
                return [(each.id, await self._refund(each)) for each in refunds]
            case _:
                disputes = await self.gateway.disputes(window, cursor)
                return [(each.id, await lookup.dispute_facts(each)) for each in disputes]

    async def _compare(self, page: Page, object_id: str, facts: Facts) -> None:
        """Note what settling these facts would change; change it where we repair."""
        if any(each.env not in (None, self.processor.settings.env) for each in facts.payments):
            return  # another deployment's, on the same account
        difference = await self._difference(facts)
        if difference is None:
            return
        mended = False
        if self.repairs:
            try:
                await self.processor.apply(facts, cause=f"reconcile:{object_id}"[:255])
            except ExceptionWithErrorType as error:
                difference = f"{difference}; {error.error_type}: {error.message}"
            else:
                mended = await self._difference(facts) is None
        page.findings.append({"object": object_id, "what": difference, "mended": mended})

    async def _difference(self, facts: Facts) -> str | None:
        terms = terms_of(self.processor.settings)

        def work(session: Session) -> str | None:
            for reversal in facts.reversals:
                known = session.get(StripeReversal, (reversal.livemode, reversal.reversal_id))
                if known is None:
                    return "missing"
                if (known.status, known.amount_cents) != (reversal.status, reversal.amount_cents):
                    return f"different: {known.status} here, {reversal.status} at Stripe"
            noted = [
                session.get(UnmatchedPayment, (each.livemode, each.stripe_session_id))
                for each in facts.payments
            ]
            answer = EventAnswer.ALREADY_PROCESSED
            try:
                with session.begin_nested():
                    answer = inbox.apply(session, facts, terms, cause="reconcile")
                    raise _Undo  # noqa: TRY301  nothing of it stays
            except _Undo:
                session.expire_all()
            if answer is EventAnswer.PROCESSED:
                return "missing"
            if answer is EventAnswer.UNMATCHED and None in noted:
                return "missing: it belongs among the unmatched payments"
            return None

        return await self.processor.in_database(work)

    async def _refund(self, refund: Refund) -> Facts:
        return await self.processor.lookup.refund_facts(refund, livemode=self.livemode)

    async def _ask_after_unfinished(self, page: Page) -> None:
        """Orders, refunds and disputes from before the window that may have ended in it."""
        names = await self.processor.in_database(
            lambda session: runs.unfinished(session, livemode=self.livemode)
        )
        lookup = self.processor.lookup
        for name in names:
            if name in self.seen:
                continue
            page.compared += 1
            if name.startswith("cs_"):
                found = await self.gateway.retrieve_session(name)
                facts = await lookup.session_facts(found) if found else None
            else:
                facts = await self._reversal(name)
            if facts is not None:
                await self._compare(page, name, facts)
            else:
                page.findings.append({"object": name, "what": "extra", "mended": False})

    async def _reversal(self, name: str) -> Facts | None:
        found: Refund | Dispute | None
        if name.startswith(("dp_", "du_")):
            found = await self.gateway.retrieve_dispute(name)
            return await self.processor.lookup.dispute_facts(found) if found else None
        found = await self.gateway.retrieve_refund(name)
        return await self._refund(found) if found else None

    async def _look_for_extra(self, page: Page) -> None:
        """Purchases of ours that Stripe knows nothing of, or does not call paid."""
        names = await self.processor.in_database(
            lambda session: runs.purchases_between(
                session,
                livemode=self.livemode,
                since=self.window.since,
                until=self.window.until,
            )
        )
        for name in names:
            page.compared += 1
            if name not in self.seen and not await self._is_paid(name):
                page.findings.append({"object": name, "what": "extra", "mended": False})

    async def _is_paid(self, name: str) -> bool:
        if name.startswith("pi_"):
            payment = await self.gateway.retrieve_payment(name)
            return payment is not None and payment.has_succeeded
        if not name.startswith("cs_"):
            return True  # an invoice; its PaymentIntents were compared
        found = await self.gateway.retrieve_session(name)
        return found is not None and found.payment_status in {"paid", "no_payment_required"}

    async def _fetch_events(self, page: Page, cursor: str | None) -> list[str]:
        """Take in the events that never reached us; the objects have been mended before."""
        if not self.repairs:
            return []
        found = await self.gateway.events(self.window, cursor)
        for each in found:
            body = json.dumps(each, default=str).encode()  # the library reads decimals
            try:
                event = parse_event(body)
            except (ExceptionWithErrorType, ValidationError):
                continue
            if event.type not in HANDLED_TYPES:
                continue
            if await self.processor.receive(event, body) is EventAnswer.ACCEPTED:
                page.findings.append(
                    {"object": event.id, "what": "an event that fails", "mended": False}
                )
        return [str(each["id"]) for each in found]


async def reconcile(
    processor: Processor,
    *,
    since: dt.datetime,
    until: dt.datetime | None = None,
    repairs: bool,
    progress: Progress = lambda _stage, _compared: None,
) -> Reconciliation:
    """Compare everything Stripe made since then with ours; with `repairs` mend what differs.

    A run that was cut off is taken up where it stood.

    Raises:
        StripeGatewayError: STRIPE_GATEWAY_ERROR; the run can be taken up again.
        Unavailable: STRIPE_NOT_CONFIGURED.
    """
    gateway = configured(processor.gateway)
    livemode = bool(processor.settings.stripe_livemode)
    end = until or dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)
    run = await _begin(processor.in_database, livemode, since, end, repairs=repairs)
    window = Window(run.since_at, run.until_at)
    return await Reconciler(processor, gateway, window, livemode, repairs).run(run, progress)


async def _begin(
    in_database: InDatabase,
    livemode: bool,  # noqa: FBT001  as Stripe's objects have it
    since: dt.datetime,
    until: dt.datetime,
    *,
    repairs: bool,
) -> Reconciliation:
    return await in_database(
        lambda session: runs.begin(
            session,
            livemode=livemode,
            since=since,
            until=until,
            repairs=repairs,
            first_stage=STAGES[0],
        )
    )
