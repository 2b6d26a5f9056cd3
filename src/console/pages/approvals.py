"""Requests that take another person's consent: what waits, what it would do, and deciding."""

import datetime as dt
import uuid
from collections.abc import Callable, Mapping
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from src.common.approvals import operations, queries, refunds
from src.common.approvals.forms import (
    GrantForm,
    KeyForm,
    PaymentForm,
    RefundForm,
    ReleaseForm,
    ReversalForm,
    shown,
)
from src.common.approvals.payments import PaymentPreview
from src.common.approvals.queries import ApprovalState, Foreseen, RefundPreview
from src.common.approvals.rules import ApprovalStatus
from src.common.async_database import read_from_async_database, run_in_async_database_transaction
from src.common.exceptions import ExceptionWithErrorType, Invalid
from src.common.models.approval import Approval
from src.console.audit import record
from src.console.forms import Form, posted
from src.console.money_forms import see_user
from src.console.pages.audit_trail import names_of
from src.console.people import Person, require
from src.console.permissions import Permission
from src.console.rendering import confirm, done, path_of, render
from src.console.service import gateway_of, settings_of
from src.console.whose import in_each_group
from src.html_pages import money

router = APIRouter(prefix="/approvals")

PAGE_SIZE = 50
CONSENT, REFUSE = "consent", "refuse"
Names = Mapping[str, str]
"""What colleagues call those who ask and decide, by actor."""
Seer = Annotated[Person, require(Permission.APPROVALS_SEE)]
Decider = Annotated[Person, require(Permission.APPROVALS_DECIDE)]
OurForm = Annotated[Form, posted()]


@router.get("", name="console_approvals")
async def show_approvals(
    request: Request,
    person: Seer,
    status: ApprovalStatus = ApprovalStatus.OPEN,
    cursor: str | None = None,
) -> Response:
    """Requests by status, the newest first."""
    pages = await in_each_group(
        lambda session: queries.list_approvals(
            session, status=status, cursor=cursor, limit=PAGE_SIZE
        )
    )
    found = queries.merge_states(list(pages.values()))
    requesters = [each.approval.requester for each in found.items]
    names = await read_from_async_database(lambda session: names_of(session, requesters))
    return render(
        request,
        person,
        "approvals.html",
        requests=[(each, _in_words(each)) for each in found.items],
        names=names,
        next_cursor=found.next_cursor,
        statuses=list(ApprovalStatus),
        chosen=status,
    )


@router.get("/{approval_id}", name="console_approval")
async def show_approval(request: Request, person: Seer, approval_id: uuid.UUID) -> Response:
    """One request, and what consent to it would do now; nobody sees a button on their own."""

    def work(session: Session) -> tuple[ApprovalState, Mapping[str, str], str | None, Names]:
        state, foreseen = _with_preview(session, approval_id)
        actors = [state.approval.requester, state.approval.decider or ""]
        email = see_user(session, person, state.approval.user_id, "approval")
        return state, foreseen, email, names_of(session, actors)

    found, facts, email, names = await run_in_async_database_transaction(work)
    is_open = found.status is ApprovalStatus.OPEN
    is_own = found.approval.requester == person.actor
    return render(
        request,
        person,
        "approval.html",
        state=found,
        asked=_in_words(found),
        email=email,
        names=names,
        foreseen=facts,
        is_own=is_own,
        may_decide=is_open and not is_own and person.may(Permission.APPROVALS_DECIDE),
        may_withdraw=is_open and is_own,
        may_go_on=_may_go_on(found, person),
    )


@router.post("/{approval_id}", name="console_approval_decide")
async def decide(
    request: Request, person: Decider, approval_id: uuid.UUID, form: OurForm
) -> Response:
    """Consent, after what it will do was shown, or refuse."""
    what, note = form.required("do"), form.note()
    if what not in {CONSENT, REFUSE}:
        raise Invalid("do: consent or refuse", "VALIDATION_ERROR", field="do")
    found, facts = await run_in_async_database_transaction(
        lambda session: _with_preview(session, approval_id)
    )
    if not form.is_confirmed and found.status is ApprovalStatus.OPEN:
        return await _show_before(request, person, form, found, facts, what)
    if what == REFUSE:
        await _decide(operations.refuse, "approvals.refuse", person, approval_id, form)
        return done(request, "Refused.", "console_approvals")
    await refunds.consent(
        run_in_async_database_transaction,
        gateway_of(request),
        settings_of(request),
        approval_id,
        decider=person.actor,
        note=note,
        and_note=lambda session, approval: _record(
            session, "approvals.consent", person, form, approval, before=found.status
        ),
    )
    return done(request, "Done.", "console_approval", approval_id=approval_id)


async def _show_before(
    request: Request,
    person: Person,
    form: Form,
    found: ApprovalState,
    foreseen: Mapping[str, str],
    what: str,
) -> Response:
    """What the decision means, and whom it is about."""
    asked = found.approval

    def work(session: Session) -> tuple[str | None, Names]:
        email = see_user(session, person, asked.user_id, "approval")
        return email, names_of(session, [asked.requester])

    email, names = await run_in_async_database_transaction(work)
    about = {} if email is None else {"User": email}
    if what == CONSENT:
        by = names.get(asked.requester, asked.requester)
        heading = f"Consent to {_in_words(found)}?"
        facts = {**about, **foreseen, "Asked by": by, "For": str(asked.reason)}
    else:
        heading = "Refuse this request?"
        means = {"Asked for": _in_words(found), "What happens": "it is never done"}
        facts = {**about, **means}
    return confirm(
        request,
        person,
        form,
        heading=heading,
        facts=facts,
        button=what.capitalize(),
        cancel=path_of(request, "console_approval", approval_id=asked.approval_id),
    )


@router.post("/{approval_id}/withdraw", name="console_approval_withdraw")
async def withdraw(
    request: Request, person: Seer, approval_id: uuid.UUID, form: OurForm
) -> Response:
    """Take back what one asked for oneself."""
    await _decide(operations.withdraw, "approvals.withdraw", person, approval_id, form)
    return done(request, "Withdrawn.", "console_approvals")


async def _decide(
    decision: Callable[..., Approval],
    action: str,
    person: Person,
    approval_id: uuid.UUID,
    form: Form,
) -> None:
    """Decide and record it in one database transaction; the same form again changes nothing."""
    note = form.note()

    def work(session: Session) -> None:
        before = queries.find_approval(session, approval_id).status
        approval = decision(session, approval_id, decider=person.actor, note=note)
        _record(session, action, person, form, approval, before=before)

    await run_in_async_database_transaction(work)


def _record(
    session: Session,
    action: str,
    person: Person,
    form: Form,
    approval: Approval,
    *,
    before: ApprovalStatus,
) -> None:
    record(
        session,
        person,
        action,
        user_id=approval.user_id,
        target=str(approval.approval_id),
        reason=approval.note,
        before={"status": str(before)},
        after={"status": str(approval.status), "command": shown(approval.command)},
        key=form.key,
    )


def _with_preview(
    session: Session, approval_id: uuid.UUID
) -> tuple[ApprovalState, Mapping[str, str]]:
    """A request, and in words what consent would do now; nothing where it is not open."""
    found = queries.find_approval(session, approval_id)
    if found.status is not ApprovalStatus.OPEN:
        return found, {}
    try:
        foreseen = queries.preview(session, found)
    except ExceptionWithErrorType as refused:
        return found, {"Would be refused now": refused.message}
    return found, _foreseen_in_words(foreseen)


def _foreseen_in_words(foreseen: Foreseen) -> Mapping[str, str]:
    if isinstance(foreseen, RefundPreview):
        return {
            "Paid back": money(foreseen.amount_cents, foreseen.currency),
            "Credits that go with it": f"{foreseen.credits:,}",
            "Balance now": f"{foreseen.balance:,}",
        }
    if isinstance(foreseen, PaymentPreview):
        return {
            "Why it was not credited": foreseen.reason,
            "Paid": money(foreseen.amount_paid_cents, foreseen.currency),
            "Credits": f"{foreseen.credits:+,}",
            "Balance afterwards": f"{foreseen.balance:,}",
        }
    if isinstance(foreseen, KeyForm):
        return {
            "Service": foreseen.service_name,
            "Ends in": foreseen.last_four,
            "It may": ", ".join(foreseen.scopes),
            "Expires": _in_utc(foreseen.expires_at) if foreseen.expires_at else "never",
        }
    lots = [
        f"{posting.amount:+,} in lot {posting.lot_seq}"
        for entry in foreseen.entries
        for posting in entry.postings
    ]
    return {
        "Credits": f"{foreseen.result.amount:+,}",
        "Balance afterwards": f"{foreseen.result.balance:,}",
        "Lots": ", ".join(lots),
    }


def _in_words(found: ApprovalState) -> str:
    """What is asked for, in a few words."""
    form = found.form
    if form is None:
        return "something that this release cannot read"
    if isinstance(form, RefundForm):
        return f"a refund of {money(form.amount_cents, found.currency or '')}"
    if isinstance(form, ReversalForm):
        return f"{form.amount:,} credits of entry {form.seq} given back"
    if isinstance(form, ReleaseForm):
        return f"{form.amount:,} credits of hold {form.hold_seq} released"
    if isinstance(form, PaymentForm):
        return f"{form.amount:,} credits given for the payment {form.stripe_object_id}"
    if isinstance(form, KeyForm):
        return f"an API key of {form.service_name} for {', '.join(form.scopes)}"
    if isinstance(form, GrantForm):
        until = "" if form.expires_at is None else f" until {_in_utc(form.expires_at)}"
        return f"{form.amount:,} {form.source} credits given{until}"
    return f"a correction by {form.amount:+,} credits"


def _in_utc(instant: dt.datetime) -> str:
    return f"{instant.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"


def _may_go_on(found: ApprovalState, person: Person) -> bool:
    """Whether this person consented to a refund that Stripe has not answered."""
    is_waiting = found.refund is not None and found.refund.status == "requested"
    return is_waiting and found.approval.decider == person.actor
